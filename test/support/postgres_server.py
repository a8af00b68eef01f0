#!/usr/bin/env python3
"""postgres_server.py [--listen] [--max-connections N] [--template FOLDER]: a real PostgreSQL in a temporary folder, for tests.

Prints one line, its URL, when it takes connections. It listens on a Unix socket in its folder; with --listen on
127.0.0.1 at a free port (with a password) as well, and the URL is that one. Whoever started it talks to its standard input:

  stop     the server ends at once, as if it had crashed; answered by "stopped"
  start    it runs again on the same data; answered by its URL
  (end)    server and folder are removed. A parent that is killed ends its side of the pipe too.

initdb takes seconds: with --template its result is kept in FOLDER, and later servers begin with a copy of it.

Run as root it starts the server as the user postgres, or else nobody: initdb refuses root.
"""

import argparse
import ctypes
import glob
import os
import pathlib
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

START_SECONDS = 60
PR_SET_PDEATHSIG = 1


def programs():
    """The folder of initdb and postgres."""
    folders = []
    if shutil.which("pg_config"):
        folders.append(subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True).stdout.strip())
    installed = glob.glob("/usr/lib/postgresql/*/bin")
    folders += sorted(installed, key=lambda path: [int(part) for part in path.split("/")[4].split(".")], reverse=True)
    for folder in folders:
        if os.access(f"{folder}/initdb", os.X_OK) and os.access(f"{folder}/postgres", os.X_OK):
            return pathlib.Path(folder)
    sys.exit("postgres_server.py: no PostgreSQL here: install the package postgresql (scripts/bootstrap does)")


def other_user():
    """Who runs the server: None for ourselves."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    sys.exit("postgres_server.py: run as root, it needs the user postgres or nobody")


class Server:
    def __init__(self, listen, max_connections):
        self.bin = programs()
        self.user = other_user()
        self.listen = listen
        self.max_connections = max_connections
        self.password = secrets.token_hex(8)
        self.process = None
        self.port = free_port()
        # A socket's path has at most 107 bytes, so not below a deep TMPDIR.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="halo-postgres-", dir="/tmp"))
        if self.user:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        self.data = self.folder / "data"
        self.log = self.folder / "log"

    def as_user(self):
        """Arguments of subprocess: as the server's user, in a folder that it may enter, without PG... variables."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        options = {"cwd": self.folder, "env": environment | {"LC_ALL": "C", "HOME": str(self.folder)}}
        if self.user:
            options |= {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        return options

    def make(self, template):
        """The server's data: a copy of what is kept in the folder `template`, if there is one, else new."""
        kept = template and template / f"cluster-{self.bin.parent.name}"
        if not kept:
            self.initialize()
            return
        if not kept.exists():
            self.initialize()
            self.keep(kept)
            return
        shutil.copytree(kept, self.data)
        self.password = (self.data / "halo-password").read_text()
        for path in [self.data, *self.data.rglob("*")]:
            if self.user:
                os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def keep(self, kept):
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = pathlib.Path(tempfile.mkdtemp(prefix="new-", dir=kept.parent))
        shutil.copytree(self.data, fresh, dirs_exist_ok=True)
        (fresh / "halo-password").write_text(self.password)
        try:
            fresh.rename(kept)
        except OSError:  # another one was faster
            shutil.rmtree(fresh)

    def initialize(self):
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        if self.user:
            os.chown(password_file, self.user.pw_uid, self.user.pw_gid)
        made = subprocess.run(
            [self.bin / "initdb", "-D", self.data, "-U", "halo", "-E", "UTF8", "--locale=C", "--no-sync",
             "--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={password_file}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, **self.as_user())
        if made.returncode != 0:
            sys.exit(f"postgres_server.py: initdb failed: {made.stderr}")

    def start(self):
        # The port stays what it was, unless another program has taken it.
        for _ in range(5):
            if self.try_start():
                return
            self.port = free_port()
        sys.exit(f"postgres_server.py: the server does not start: {self.log.read_text()[-2000:]}")

    def try_start(self):
        libc = ctypes.CDLL(None, use_errno=True)
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1" if self.listen else "",
            "unix_socket_directories": self.folder,
            "max_connections": self.max_connections,
            "superuser_reserved_connections": 3,
            "shared_buffers": "16MB",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "autovacuum": "off",
            "deadlock_timeout": "100ms",
        }
        command = [self.bin / "postgres", "-D", self.data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with open(self.log, "ab") as log:
            # Where this program is killed, the server gets the signal that ends it at once.
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT), **self.as_user())
        end = time.monotonic() + START_SECONDS
        while self.process.poll() is None:
            ready = subprocess.run(
                [self.bin / "pg_isready", "-q", "-h", self.folder, "-p", str(self.port), "-U", "halo", "-d", "postgres"],
                stdin=subprocess.DEVNULL, **self.as_user())
            if ready.returncode == 0:
                return True
            if time.monotonic() > end:
                self.stop()
                break
            time.sleep(0.02)
        return False

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def url(self):
        if self.listen:
            return f"postgres://halo:{self.password}@127.0.0.1:{self.port}/postgres"
        folder = urllib.parse.quote(str(self.folder), safe="")
        return f"postgres://halo@/postgres?host={folder}&port={self.port}"

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--max-connections", type=int, default=20)
    parser.add_argument("--template", type=pathlib.Path)
    arguments = parser.parse_args()

    def end(*_):
        sys.exit(1)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    server = Server(arguments.listen, arguments.max_connections)
    try:
        server.make(arguments.template)
        server.start()
        print(server.url(), flush=True)
        for line in sys.stdin:
            if line.strip() == "stop":
                server.stop()
                print("stopped", flush=True)
            elif line.strip() == "start":
                server.start()
                print(server.url(), flush=True)
    finally:
        # Whatever comes now, the rest is removed.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        server.remove()


if __name__ == "__main__":
    main()
