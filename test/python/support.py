"""What the tests of the package share: python3 SCRIPT BUILD SOURCE."""
import os
import subprocess
import sys
import tempfile
import unittest

BUILD = os.path.abspath(sys.argv.pop(1))
SOURCE = os.path.abspath(sys.argv.pop(1))
SCRATCH = tempfile.mkdtemp(prefix="halo-python-test-")
PACKAGE = os.path.join(BUILD, "python")

for name in [each for each in os.environ if each.startswith("HALO_")]:
    del os.environ[name]
# Profiles and history are the test's own.
os.environ["XDG_STATE_HOME"] = os.path.join(SCRATCH, "state")
os.environ["PYTHONPATH"] = PACKAGE
# Room for KV is made for so many calls at once, where nothing is known of the rows; little is enough here.
os.environ["HALO_SEQUENCES"] = "8"
sys.path.insert(0, PACKAGE)
os.chdir(SCRATCH)

REVIEW = """\
start_ops: [extract]
end_ops: [reply]
ops:
  extract:
    model: halo-demo
    prompt: "Extract product, problem and sentiment as JSON."
    temperature: 0
    max_tokens: 80
    output_ops: [reply]
  reply:
    model: halo-demo
    prompt: "Reply to the customer in one sentence."
    temperature: 0
    max_tokens: 80
    input_ops: [extract]
"""
ONE = "start_ops: [a]\nend_ops: [a]\nops:\n  a: {model: halo-demo, prompt: Say, temperature: 0, max_tokens: 4}\n"


def write(name, text):
    path = os.path.join(SCRATCH, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def function_flow(name, inputs=("n",)):
    """A workflow that calls one function."""
    listed = ", ".join(inputs)
    return write(f"{name}.yaml", f"""\
graph:
  nodes:
    - {{id: rows, type: input, outputs: [{listed}]}}
    - {{id: f, type: processor, processor: {name}, inputs: [{listed}], outputs: [x]}}
""")


def python(code, timeout=120):
    """Runs a program in an interpreter of its own; returns (exit code, standard output, standard error)."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, cwd=SCRATCH)
    return done.returncode, done.stdout, done.stderr


def main():
    unittest.main(verbosity=2)
