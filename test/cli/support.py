"""What the tests of the program share: where it is, a model for it, one way to run it."""
import os
import subprocess
import sys
import tempfile

BIN = os.path.abspath(sys.argv[1])
SOURCE = os.path.abspath(sys.argv[2])
HALO = os.path.join(BIN, "halo")
SCRATCH = tempfile.mkdtemp(prefix="halo-cli-test-")
# Runs leave nothing behind them: durable_test asks for what it wants to see.
os.environ["HALO_EPHEMERAL"] = "1"
os.environ["HALO_CACHE"] = "off"


def seconds(count):
    """A time limit for this build: sanitizers make programs slower (HALO_TEST_TIMEOUT_FACTOR of CMake)."""
    return count * int(os.environ.get("HALO_TEST_TIMEOUT_FACTOR", "1"))


def own_environment():
    """Nothing of the caller's settings; runs are not kept, profiles and history are the test's own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HALO_")}
    return environment | {"HALO_EPHEMERAL": "1", "HALO_CACHE": "off", "XDG_STATE_HOME": os.path.join(SCRATCH, "own-state")}


def halo(*args, stdin=None, env=None, timeout=120):
    """Runs halo; returns (exit code, stdout, stderr) with text streams."""
    environment = own_environment()
    environment.update(env or {})
    done = subprocess.run([HALO, *args], input=stdin, capture_output=True, text=True, timeout=seconds(timeout),
                          env=environment, cwd=SCRATCH)
    return done.returncode, done.stdout, done.stderr


def model():
    """A tiny model, made once for this script."""
    path = os.path.join(SCRATCH, "tiny.gguf")
    if not os.path.exists(path):
        code, _, error = halo("models", "synth", "--shape", "tiny", "--layers", "2", "--seed", "3", "-o", path)
        assert code == 0, error
    return path


def adapter():
    """A LoRA adapter for model(), made once for this script."""
    path = os.path.join(SCRATCH, "adapter.gguf")
    if not os.path.exists(path):
        code, _, error = halo("models", "synth-lora", model(), "--seed", "4", "-o", path)
        assert code == 0, error
    return path


def exact_answers_or_skip(test):
    """A CPU whose kernels were not tested is refused, and `halo version` says so."""
    answer = [line for line in halo("version")[1].splitlines() if line.startswith("exact answers ")][0]
    if not answer.endswith(" yes"):
        test.skipTest(answer)


def write(name, text):
    path = os.path.join(SCRATCH, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path
