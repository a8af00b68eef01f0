"""The wheel: built by the standard interface without a network, installed into an environment of its own, and used there."""
import os
import subprocess
import sys
import unittest

import support


class Wheel(unittest.TestCase):
    def test_it_is_built_installed_and_used_apart_from_the_source(self):
        folder = os.path.join(support.SCRATCH, "wheel")
        os.makedirs(folder)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        # What a frontend does with a backend that asks for no packages; it finds the finished build.
        hook = f"import sys; sys.path.insert(0, 'python'); import halo_wheel; print(halo_wheel.build_wheel({folder!r}))"
        done = subprocess.run([sys.executable, "-c", hook], cwd=support.SOURCE, capture_output=True, text=True, check=True)
        wheel = os.path.join(folder, done.stdout.splitlines()[-1])
        place = os.path.join(support.SCRATCH, "environment")
        subprocess.run([sys.executable, "-m", "venv", place], check=True, capture_output=True)
        subprocess.run([os.path.join(place, "bin", "pip"), "install", "--no-index", "--quiet",
                        "--disable-pip-version-check", wheel], check=True, capture_output=True, env=environment)
        flow = support.write("review.yaml", support.REVIEW)
        code = f"""
import halo, sys
assert halo.__file__.startswith({place!r}), halo.__file__
row = halo.run({flow!r}, [{{"id": "a1", "prompt": "The kettle leaks from the lid since Tuesday."}}])[0]
print(row["status"], "kettle" in row["outputs"]["reply"], halo.__version__)
"""
        used = subprocess.run([os.path.join(place, "bin", "python"), "-c", code], capture_output=True, text=True,
                              env=environment, cwd=support.SCRATCH, check=False)
        self.assertEqual((used.returncode, used.stdout.split()[:2]), (0, ["ok", "True"]), used.stderr)
        linked = subprocess.run(["ldd", os.path.join(place, "lib", f"python3.{sys.version_info.minor}", "site-packages",
                                                     "halo", "_halo", "bin", "halo")], capture_output=True, text=True,
                                check=True).stdout
        self.assertIn(os.path.join(place, "lib"), linked, "DuckDB's library is the wheel's own")


if __name__ == "__main__":
    support.main()
