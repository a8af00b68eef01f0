"""Rows while a run goes on: iterators, async for, sessions with tickets, priorities, cancellation; threads; Ctrl-C."""
import asyncio
import gc
import pathlib
import threading
import time
import unittest
import weakref

import support

import halo

ONE = support.write("one.yaml", support.ONE)
OTHER = support.write("other.yaml", support.ONE.replace("a:", "b:").replace("[a]", "[b]"))
ECHO = support.function_flow("echo")


def prompts(count):
    return ({"prompt": f"Kettle number {n} leaks."} for n in range(count))


class Streams(unittest.TestCase):
    def test_rows_come_as_they_end_and_all_of_them(self):
        self.assertEqual(sorted(row["id"] for row in halo.stream(ONE, prompts(40))), list(range(40)))

    def test_in_order_where_that_is_asked_for(self):
        self.assertEqual([row["id"] for row in halo.stream(ONE, prompts(40), ordered=True)], list(range(40)))

    def test_rows_are_taken_as_results_are(self):
        taken = 0

        def endless():
            nonlocal taken
            while True:
                taken += 1
                yield {"n": taken}

        rows = halo.stream(ECHO, endless(), functions={"echo": lambda n: n})
        for _ in range(3):
            next(rows)
        rows.close()  # ends the run
        self.assertLess(taken, 3 * 4096)

    def test_bad_rows_fail_alone_and_bad_objects_at_once(self):
        rows = {row["id"]: row for row in halo.stream(ONE, iter([{"prompt": "p"}, {"promt": "q"}]))}
        self.assertEqual(rows[0]["status"], "ok")
        self.assertEqual(rows["row:2"]["error"]["code"], "bad_row")
        with self.assertRaises(halo.RowsError):
            list(halo.stream(ONE, iter([{"prompt": "p"}, 3])))

    def test_what_an_iterator_raises_ends_the_run(self):
        def broken():
            yield {"prompt": "p"}
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            list(halo.stream(ONE, broken()))

    def test_faults_before_it_runs(self):
        with self.assertRaises(halo.WorkflowError):
            list(halo.stream("nowhere.yaml", prompts(1)))


class AsyncStreams(unittest.TestCase):
    def test_the_loop_goes_on_meanwhile(self):
        async def all_of_it():
            turns = 0

            async def count():
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            counter = asyncio.ensure_future(count())
            ids = [row["id"] async for row in halo.astream(ONE, prompts(30))]
            counter.cancel()
            return ids, turns

        ids, turns = asyncio.run(all_of_it())
        self.assertEqual(sorted(ids), list(range(30)))
        self.assertGreater(turns, 1)

    def test_rows_may_come_asynchronously(self):
        async def rows():
            for row in prompts(3):
                await asyncio.sleep(0)
                yield row

        async def all_of_it():
            return [row["status"] async for row in halo.astream(ONE, rows())]

        self.assertEqual(asyncio.run(all_of_it()), ["ok"] * 3)

    def test_what_rows_raise_ends_it(self):
        async def rows():
            yield {"prompt": "p"}
            raise ZeroDivisionError

        async def all_of_it():
            return [row async for row in halo.astream(ONE, rows())]

        with self.assertRaises(ZeroDivisionError):
            asyncio.run(all_of_it())


class Sessions(unittest.TestCase):
    def test_rows_of_several_workflows_while_it_runs(self):
        with halo.Session([ONE, OTHER]) as session:
            first = session.submit(ONE, {"prompt": "It leaks."})
            self.assertEqual(list(first.result(timeout=60)), ["a"])
            second = session.submit(OTHER, {"id": "x", "prompt": "It leaks."})
            self.assertEqual(second.row(timeout=60)["id"], "x")
            self.assertEqual(first.result()["a"], second.result()["b"])
            with self.assertRaises(halo.UsageError):
                session.submit({"prompt": "p"})
            with self.assertRaises(halo.UsageError):
                session.submit("third.yaml", {"prompt": "p"})
        self.assertEqual(session.outcome["status"], "ok")
        with self.assertRaises(halo.UsageError):
            session.submit(ONE, {"prompt": "p"})

    def test_results_as_they_come(self):
        with halo.Session(ONE) as session:
            tickets = {session.submit(row) for row in prompts(20)}
            self.assertEqual(set(session.results()), tickets)
            self.assertEqual(list(session.results()), [])
            known, other = (session.submit(row) for row in prompts(2))
            known.row(timeout=60)
            self.assertEqual(list(session.results()), [other], "what was taken is not given again")

    def test_what_was_taken_is_not_kept(self):
        with halo.Session(ECHO, functions={"echo": lambda n: n}) as session:
            for n in range(3000):
                session.submit({"n": n}).row(timeout=60)
            self.assertLessEqual(len(session._tickets.ended), 1025)

    def test_failed_rows_raise_when_asked_for_outputs(self):
        with halo.Session(ECHO, functions={"echo": lambda n: 1 // n}) as session:
            ticket = session.submit({"n": 0})
            with self.assertRaises(halo.RowFailed) as raised:
                ticket.result(timeout=60)
            self.assertIn("ZeroDivisionError", str(raised.exception))
            self.assertEqual(ticket.row()["status"], "failed")

    def test_priorities_and_cancellation(self):
        # One call at a time, which is held until all rows are there.
        hold = threading.Event()
        order = []

        def echo(n):
            hold.wait(60)
            order.append(n)
            return n

        with halo.Session(ECHO, functions={"echo": echo}) as session:
            first = session.submit({"n": 0})
            while not session.progress().get("calls_running"):
                pass
            low = [session.submit({"n": n}) for n in (1, 2)]
            high = session.submit({"n": 9}, priority=5)
            gone = session.submit({"n": 7}, priority=9)
            gone.cancel()
            self.assertEqual(gone.row(timeout=60)["error"]["code"], "cancelled")
            hold.set()
            self.assertEqual(high.result(timeout=60), {"x": 9})
            for ticket in (first, *low):
                ticket.row(timeout=60)
        self.assertNotIn(7, order)
        self.assertEqual(sorted(order), [0, 1, 2, 9])

    def test_priority_goes_ahead_of_all_that_has_not_begun(self):
        hold, inside = threading.Event(), threading.Event()
        order = []

        def echo(n):
            inside.set()
            hold.wait(60)
            order.append(n)
            time.sleep(0.05)

        with halo.Session(ECHO, functions={"echo": echo}) as session:
            session.submit({"n": 0})
            self.assertTrue(inside.wait(60))
            for n in range(1, 200):
                session.submit({"n": n})
            while session._sources[0].waiting:  # until the run has taken them
                time.sleep(0.01)
            urgent = session.submit({"n": 999}, priority=5)
            hold.set()
            urgent.row(timeout=60)
            session.stop(give_up=True)
        # It takes the place of the first call that ends; some begin before it is there.
        self.assertLess(order.index(999), 20)

    def test_what_cannot_be_submitted(self):
        with halo.Session([pathlib.Path(ECHO)], functions={"echo": lambda n: n}) as session:
            self.assertEqual(session.submit(ECHO, {"n": 1}, timeout=None).result(timeout=60), {"x": 1})
            for wishes in ({"priority": "high"}, {"priority": 2**40}, {"priority": 1.5}, {"timeout": "1"}):
                with self.assertRaisesRegex(halo.UsageError, "whole number of 32 bits as priority"):
                    session.submit({"n": 2}, **wishes)
            with self.assertRaisesRegex(halo.RowsError, "expected a dict such as"):
                session.submit("p")

    def test_timeouts(self):
        hold = threading.Event()
        with halo.Session(ECHO, functions={"echo": lambda n: hold.wait(60)}) as session:
            late = session.submit({"n": 1}, timeout=0.05)
            self.assertEqual(late.row(timeout=60)["error"]["code"], "deadline")
            waiting = session.submit({"n": 2})
            with self.assertRaises(TimeoutError):
                waiting.row(timeout=0.01)
            hold.set()

    def test_tickets_can_be_awaited(self):
        with halo.Session(ONE) as session:
            async def both():
                return await asyncio.gather(*(session.submit(row) for row in prompts(2)))

            self.assertEqual([row["status"] for row in asyncio.run(both())], ["ok", "ok"])

    def test_what_keeps_it_from_running_reaches_everyone(self):
        session = halo.Session("nowhere.yaml")
        ticket = session.submit({"prompt": "p"})
        with self.assertRaises(halo.WorkflowError):
            ticket.result(timeout=60)
        with self.assertRaises(halo.WorkflowError):
            session.close()

    def test_stopping_leaves_no_ticket_open(self):
        hold = threading.Event()
        session = halo.Session(ECHO, functions={"echo": lambda n: hold.wait(60)})
        tickets = [session.submit({"n": n}) for n in range(3)]
        session.stop(give_up=True)
        hold.set()
        session.close()
        for ticket in tickets:
            self.assertTrue(ticket.done())

    def test_one_that_nobody_has_any_more_ends(self):
        session = halo.Session(ONE)
        session.submit({"prompt": "p"}).row(timeout=60)
        thread, gone = session._thread, weakref.ref(session)
        del session
        gc.collect()
        self.assertIsNone(gone())
        thread.join(60)
        self.assertFalse(thread.is_alive())


class Threads(unittest.TestCase):
    def test_two_threads_each_run_a_batch(self):
        rows = [{"prompt": f"Lamp {n} came broken."} for n in range(12)]
        wanted = list(halo.run(ONE, rows))
        got = {}

        def work(name):
            got[name] = list(halo.run(ONE, rows))

        threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(got, {"one": wanted, "two": wanted})

    def test_python_goes_on_while_the_core_works(self):
        turns = 0
        ended = threading.Event()

        def count():
            nonlocal turns
            while not ended.is_set():
                turns += 1

        counter = threading.Thread(target=count)
        counter.start()
        before = turns
        halo.run(ONE, list(prompts(20)))
        after = turns
        ended.set()
        counter.join()
        self.assertGreater(after, before)


if __name__ == "__main__":
    support.main()
