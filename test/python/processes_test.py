"""What happens to a run when its process forks, is interrupted, or ends."""
import os
import pickle
import signal
import subprocess
import sys
import unittest

import support

import halo

ONE = support.write("one.yaml", support.ONE)
ECHO = support.function_flow("echo")

START = """
import os, signal, sys, threading
import halo
ECHO = {echo!r}
ONE = {one!r}
""".format(echo=ECHO, one=ONE)


class Forks(unittest.TestCase):
    def test_a_copy_says_so_instead_of_hanging(self):
        code, out, error = support.python(START + """
session = halo.Session(ONE)
session.submit({"prompt": "p"}).row(timeout=60)
child = os.fork()
if child == 0:
    said = []
    for use in (lambda: halo.run(ONE, [{"prompt": "p"}]), lambda: session.submit({"prompt": "q"}),
                lambda: halo.explain(ONE), session.stop, lambda: next(halo.stream(ONE, iter([])))):
        try:
            use()
        except halo.ForkedError as raised:
            said.append("spawn" in str(raised))
    del session
    print(said, flush=True)
    sys.exit(0)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print("parent", session.submit({"prompt": "r"}).row(timeout=60)["status"])
session.close()
""")
        self.assertEqual((code, error), (0, ""))
        self.assertEqual(out.splitlines(), ["[True, True, True, True, True]", "child 0", "parent ok"])

    def test_waiting_in_a_copy_is_refused(self):
        code, out, error = support.python(START + """
import asyncio
inside, hold = threading.Event(), threading.Event()
def echo(n):
    inside.set()
    hold.wait(60)
session = halo.Session(ECHO, functions={"echo": echo})
ticket = session.submit({"n": 1})
inside.wait(60)
child = os.fork()
if child == 0:
    async def wait():
        await ticket
    said = 0
    for use in (ticket.row, ticket.result, lambda: list(session.results()), lambda: asyncio.run(wait())):
        try:
            use()
        except halo.ForkedError:
            said += 1
    print(said, flush=True)
    os._exit(0)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
hold.set()
session.close()
""")
        self.assertEqual((code, out, error), (0, "4\nchild 0\n", ""))

    def test_pools_that_fork_hand_the_error_on(self):
        path = support.write("forked.py", f"""
import concurrent.futures, multiprocessing
import halo
def work(n):
    halo.run({ONE!r}, [{{"prompt": "p"}}])
if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool, concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        for ask in (lambda: pool.apply_async(work, [0]).get(60), lambda: executor.submit(work, 0).result(60)):
            try:
                ask()
            except halo.ForkedError as error:
                print("spawn" in str(error))
""")
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, "True\nTrue\n"), done.stderr)

    def test_errors_can_be_pickled(self):
        row = {"id": 1, "status": "failed", "error": {"operator": "a", "code": "c", "message": "m"}}
        place = halo.Diagnostic("f.yaml", 1, 2, "no")
        for error in (halo.RowFailed(row), halo.ForkedError(), halo.RowsError("no", [place]), halo.InputOutputError("no", [place]),
                      halo.StoppedError("no", [row], "folder"), halo.InterruptedRun([row], "folder")):
            copy = pickle.loads(pickle.dumps(error))
            self.assertEqual((type(copy), str(copy), vars(copy)), (type(error), str(error), vars(error)))

    def test_multiprocessing_works_where_it_spawns(self):
        path = support.write("spawned.py", f"""
import multiprocessing
def work(n):
    import halo
    return halo.run({ONE!r}, [{{"prompt": "p"}}])[0]["status"]
if __name__ == "__main__":
    import halo
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(work, [0]))
""")
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, "['ok']\n"), done.stderr)


class Interrupts(unittest.TestCase):
    HOLD = START + """
order = []
def echo(n):
    print("inside", n, flush=True)
    sys.stdin.readline()
    return n
"""

    def interrupt(self, code):
        """Runs it, sends SIGINT once a function is inside, then lets the function go on."""
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, cwd=support.SCRATCH)
        self.assertEqual(process.stdout.readline(), "inside 0\n")
        process.send_signal(signal.SIGINT)
        # The function goes on only when the run knows of it; other lines may come before.
        while "stopping" not in process.stderr.readline():
            self.assertIsNone(process.poll())
        out, error = process.communicate("\n" * 300, timeout=120)
        return process.returncode, out, error

    def test_once_finishes_what_runs(self):
        code, out, error = self.interrupt(self.HOLD + """
try:
    halo.run(ECHO, [{"n": n} for n in range(200)], functions={"echo": echo}, progress=True)
except KeyboardInterrupt as raised:
    print("kept", [row["outputs"]["x"] for row in raised.results])
""")
        self.assertEqual(code, 0, error)
        # Calls that the tool has been given are finished, others are not made.
        self.assertIn("kept [0", out)
        self.assertNotIn("199", out)

    def test_without_a_handler_it_is_an_ordinary_one(self):
        code, _, error = self.interrupt(self.HOLD + """
halo.run(ECHO, [{"n": n} for n in range(200)], functions={"echo": echo}, progress=True)
""")
        self.assertNotEqual(code, 0)
        self.assertIn("InterruptedRun", error)


class Ends(unittest.TestCase):
    def test_a_process_ends_with_its_runs(self):
        code, out, error = support.python(START + """
session = halo.Session(ONE)
session.submit({"prompt": "p"}).row(timeout=60)
rows = halo.stream(ONE, ({"prompt": "p"} for _ in range(5)))
next(rows)
print("end")
""")
        self.assertEqual((code, out, error), (0, "end\n", ""))

    def test_engines_end_with_their_run(self):
        code, out, _ = support.python(START + """
import subprocess
halo.run(ONE, [{"prompt": "p"}])
print(subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True).stdout)
""")
        self.assertEqual(code, 0)
        self.assertNotIn("engine-process", out)

    def test_an_engine_that_is_killed_ends_nothing_else(self):
        code, out, error = support.python(START + """
import subprocess
with halo.Session(ONE) as session:
    first = session.submit({"prompt": "p"}).result(timeout=60)
    listed = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "pid=,args="], capture_output=True, text=True).stdout
    engine = [int(line.split()[0]) for line in listed.splitlines() if "engine-process" in line]
    os.kill(engine[0], signal.SIGKILL)
    print(len(engine), session.submit({"prompt": "p", "id": "again"}).result(timeout=60) == first)
""")
        self.assertEqual((code, out), (0, "1 True\n"), error)

    def test_memory_does_not_grow_with_runs(self):
        code, out, error = support.python(START + """
import resource
def batch():
    halo.run(ECHO, [{"n": n, "text": "x" * 10000} for n in range(500)], functions={"echo": lambda n: n})
def kept():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
for _ in range(5):
    batch()
before = kept()
for _ in range(20):
    batch()
# Twenty batches have 100 MB of rows; an allocator's slack is far less.
print(kept() - before < 30e6)
threads = threading.active_count()
print(threads, len(os.listdir("/proc/self/task")) - threads <= 1, len(os.listdir("/proc/self/fd")) < 20)
""")
        self.assertEqual((code, out), (0, "True\n1 True True\n"), error)


if __name__ == "__main__":
    support.main()
