#!/usr/bin/env python3
"""halo_wheel.py FOLDER: builds the package's wheel into FOLDER. Also the build backend of pyproject.toml (PEP 517).

Nothing is downloaded but what scripts/bootstrap installs for the C++ build, which this begins where it is not done. A wheel
holds the module, the Python beside it, the program `halo` with DuckDB's library, and the demo model; it is for the Python that
runs this and for processors such as this machine's.
"""

import base64
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAME = "halo_batch"


def version():
    found = re.search(r"project\(halo VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())
    return found.group(1)


def tag():
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return f"{python}-{python}-{re.sub('[-.]', '_', sysconfig.get_platform())}"


def metadata():
    return (
        f"Metadata-Version: 2.1\nName: halo-batch\nVersion: {version()}\n"
        "Summary: Batches of agentic LLM workflows as one query\nLicense: Apache-2.0\nRequires-Python: >=3.11\n"
    )


def run(*command, **more):
    # What a frontend reads from standard output is the name of the wheel alone.
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr, **more)


def is_built_for_this_python():
    cache = ROOT / "build" / "release" / "CMakeCache.txt"
    module = f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    return cache.exists() and (ROOT / "build" / "release" / "python" / "halo" / module).exists()


def build_files(stage):
    """Puts what the wheel is made of below `stage`."""
    environment = dict(os.environ)
    if not is_built_for_this_python():
        environment["CMAKE_ARGS"] = f"{environment.get('CMAKE_ARGS', '')} -DHALO_PYTHON={sys.executable}".strip()
        run("scripts/bootstrap", "python", env=environment)
    run("scripts/build", "release", "halo", "halo_python", env=environment)
    run("cmake", "--install", "build/release", "--component", "python", "--prefix", stage)


def write_wheel(stage, path):
    """Files in one order and with one time, so that equal contents are equal wheels."""
    info = f"{NAME}-{version()}.dist-info"
    texts = {
        f"{info}/METADATA": metadata(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: halo_wheel\nRoot-Is-Purelib: false\nTag: {tag()}\n",
        f"{info}/LICENSE": (ROOT / "LICENSE").read_text(),
        f"{info}/THIRD_PARTY_NOTICES.md": (ROOT / "THIRD_PARTY_NOTICES.md").read_text(),
    }
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:

        def add(name, data, mode):
            entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}")

        for file in sorted(pathlib.Path(stage).rglob("*")):
            if file.is_file():
                is_program = os.access(file, os.X_OK)
                add(file.relative_to(stage).as_posix(), file.read_bytes(), 0o755 if is_program else 0o644)
        for name, text in texts.items():
            add(name, text.encode(), 0o644)
        add(f"{info}/RECORD", ("\n".join(record + [f"{info}/RECORD,,"]) + "\n").encode(), 0o644)


# The hooks of PEP 517.


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = f"{NAME}-{version()}-{tag()}.whl"
    with tempfile.TemporaryDirectory() as stage:
        build_files(stage)
        write_wheel(stage, os.path.join(wheel_directory, name))
    return name


def build_sdist(sdist_directory, config_settings=None):
    name = f"{NAME}-{version()}"
    path = os.path.join(sdist_directory, f"{name}.tar.gz")
    with tempfile.TemporaryDirectory() as scratch:
        info = os.path.join(scratch, "PKG-INFO")
        pathlib.Path(info).write_text(metadata())
        run("git", "archive", f"--prefix={name}/", f"--add-file={info}", "--format=tar.gz", "-o", path, "HEAD")
    return f"{name}.tar.gz"


def main():
    folder = pathlib.Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"wheel: {folder / build_wheel(str(folder))}")


if __name__ == "__main__":
    main()
