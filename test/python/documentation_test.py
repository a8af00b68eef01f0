"""What docstrings, stubs and docs/python.md show is true."""
import doctest
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import unittest

import support

import halo

support.write("review.yaml", support.REVIEW)


class Documentation(unittest.TestCase):
    def test_examples_of_docstrings_work(self):
        examples = 0
        for module in pkgutil.iter_modules(halo.__path__):
            if module.name.startswith("_core") or module.name == "_halo":
                continue
            failed, tried = doctest.testmod(importlib.import_module(f"halo.{module.name}"))
            self.assertEqual(failed, 0, module.name)
            examples += tried
        self.assertGreater(examples, 10)

    def test_everything_public_says_what_it_is(self):
        for name in halo.__all__:
            self.assertTrue(getattr(halo, name).__doc__, name)

    def test_the_page_names_every_option(self):
        with open(os.path.join(support.SOURCE, "docs", "python.md"), encoding="utf-8") as file:
            page = file.read()
        self.assertEqual([name for name in halo.option_names() if f"`{name}`" not in page], [])

    def test_programs_of_the_page_work(self):
        with open(os.path.join(support.SOURCE, "docs", "python.md"), encoding="utf-8") as file:
            programs = re.findall(r"```python\n(.*?)```", file.read(), re.S)
        self.assertGreater(len(programs), 3)
        support.write("rows.jsonl", '{"id": "a1", "prompt": "The kettle leaks."}\n')
        for program in programs:
            code, _, error = support.python(program)
            self.assertEqual(code, 0, program + error)

    @unittest.skipIf(shutil.which("mypy") is None, "mypy is not installed")
    def test_types_are_strict(self):
        user = support.write("user.py", """\
import halo
from typing import Any, Dict, List
results: Any = halo.run("w.yaml", [{"prompt": "p"}], models={"m": "f.gguf"})
plan: str = halo.explain("w.yaml").text
with halo.Session(["w.yaml"]) as session:
    outputs: Dict[str, Any] = session.submit("w.yaml", {"prompt": "p"}, priority=1).result()
queries: List[halo.Query] = [halo.Query(id=0, prompt="p")]
""")
        for files in ([os.path.join(support.SOURCE, "python", "halo")], [user]):
            environment = {**os.environ, "MYPYPATH": os.path.join(support.SOURCE, "python")}
            done = subprocess.run(["mypy", "--strict", "--cache-dir", support.SCRATCH + "/mypy", *files],
                                  capture_output=True, text=True, env=environment, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_stub_has_what_the_module_has(self):
        with open(os.path.join(support.SOURCE, "python", "halo", "_core.pyi"), encoding="utf-8") as file:
            stub = file.read()
        declared = set(re.findall(r"^(?:class|def) (\w+)|^(\w+): str", stub, re.M))
        names = {first or second for first, second in declared}
        self.assertEqual(names, {name for name in dir(halo._core) if not name.startswith("__")})
        for kind in ("Rows", "Run", "ArrowTable"):
            body = stub.split(f"class {kind}:")[1].split("\n\n")[0]
            own = {name for name in vars(getattr(halo._core, kind)) if not name.startswith("_")}
            self.assertEqual(set(re.findall(r"def ([a-z]\w*)", body)), own)


if __name__ == "__main__":
    print(sys.version)
    support.main()
