"""What `cmake --install` leaves is enough, wherever it lies: the program runs, and another project finds Halo and embeds it.

install_test.py CMAKE BUILD_FOLDER SOURCE_FOLDER CXX_COMPILER
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

CMAKE, BUILD, SOURCE, COMPILER = sys.argv[1:5]
WORKFLOW = """
start_ops: [extract]
end_ops: [reply]
ops:
  extract: {model: m, prompt: "List the product.", temperature: 0, max_tokens: 5, output_ops: [reply]}
  reply: {model: m, prompt: "Answer.", temperature: 0, max_tokens: 5, input_ops: [extract]}
"""


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="halo-install-test-"))
        first = cls.folder / "first place"
        cls.run_ok(CMAKE, "--install", BUILD, "--prefix", first)
        cls.prefix = cls.folder / "moved here"
        first.rename(cls.prefix)
        cls.model = cls.folder / "tiny.gguf"
        cls.run_ok(cls.prefix / "bin/halo", "models", "synth", "--shape", "tiny", "--layers", "2", "-o", cls.model)
        cls.workflow, cls.rows = cls.folder / "workflow.yaml", cls.folder / "rows.jsonl"
        cls.workflow.write_text(WORKFLOW)
        cls.rows.write_text("".join(json.dumps({"id": f"r{i}", "prompt": f"Kettle {i} leaks."}) + "\n" for i in range(4)))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def run_ok(cls, *command):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cls.folder)
        if done.returncode != 0:
            raise AssertionError(f"{command}\nended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout

    def test_files_are_where_they_belong(self):
        for name in ("bin/halo", "include/halo/session.h", "include/halo/error.h", "lib/cmake/Halo/HaloConfig.cmake",
                     "lib/cmake/Halo/HaloConfigVersion.cmake", "lib/halo/libhalo_session.a", "lib/halo/libllama.a"):
            self.assertTrue((self.prefix / name).is_file(), name)
        config = (self.prefix / "lib/cmake/Halo/HaloConfig.cmake").read_text()
        self.assertNotIn(SOURCE, config, "the package must not point back to where Halo was built")
        self.assertNotIn(BUILD, config)

    def test_the_program_needs_nothing_of_the_build_folder(self):
        path = self.run_ok("readelf", "-d", self.prefix / "bin/halo")
        self.assertNotIn(BUILD, path)
        self.assertNotIn("not found", self.run_ok("ldd", self.prefix / "bin/halo"))

    def test_the_model_that_comes_with_it_is_found_by_its_name(self):
        workflow = self.folder / "demo.yaml"
        workflow.write_text(WORKFLOW.replace("model: m,", "model: halo-demo,"))
        listed = dict(line.split("\t") for line in self.run_ok(self.prefix / "bin/halo", "models", "ls").splitlines())
        self.assertEqual(pathlib.Path(listed["halo-demo.q8_0"]).resolve(), (self.prefix / "share/halo/models/halo-demo.q8_0.gguf").resolve())
        answers = self.run_ok(self.prefix / "bin/halo", "run", workflow, "-i", self.rows, "--quiet", "--worker-memory", "64M")
        self.assertEqual([json.loads(line)["status"] for line in answers.splitlines()], ["ok"] * 4)

    def test_another_project_embeds_it(self):
        build = self.folder / "build"
        self.run_ok(CMAKE, "-S", f"{SOURCE}/examples/embed", "-B", build, f"-DCMAKE_PREFIX_PATH={self.prefix}",
                    f"-DCMAKE_CXX_COMPILER={COMPILER}", "-DCMAKE_BUILD_TYPE=Release")
        self.run_ok(CMAKE, "--build", build)
        embedded, stand_alone = self.folder / "embedded.jsonl", self.folder / "stand-alone.jsonl"
        shown = self.run_ok(build / "embed", self.workflow, self.rows, f"m={self.model}", embedded)
        self.run_ok(self.prefix / "bin/halo", "run", self.workflow, "-i", self.rows, "--model", f"m={self.model}", "-o", stand_alone,
                    "--quiet", "--worker-memory", "256M")

        self.assertIn("extract", shown)
        rows = [json.loads(line) for line in embedded.read_text().splitlines()]
        self.assertEqual([row["id"] for row in rows], ["r0", "r1", "r2", "r3"])
        for row in rows:
            self.assertEqual(row["status"], "ok")
            self.assertEqual(row["usage"]["output_tokens"], 10)
        self.assertEqual(embedded.read_text(), stand_alone.read_text(), "the program and the library answer alike")

    def test_errors_can_be_caught_by_their_type(self):
        build = self.folder / "build"
        if not (build / "embed").exists():
            self.test_another_project_embeds_it()
        done = subprocess.run([str(build / "embed"), str(self.folder / "none.yaml"), str(self.rows), f"m={self.model}",
                               str(self.folder / "none.jsonl")], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("none.yaml", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=["install_test"], verbosity=1)
