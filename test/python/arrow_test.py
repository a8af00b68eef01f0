"""Tables through the Arrow C data interface. Neither pyarrow nor Polars is needed: the producer here fills in the
interface's own structures with ctypes, and the consumer reads them again."""
import ctypes
import gc
import unittest

import support

import halo
from halo import _rows

ONE = support.write("one.yaml", support.ONE)


class Schema(ctypes.Structure):
    pass


class Array(ctypes.Structure):
    pass


class Stream(ctypes.Structure):
    pass


ReleaseSchema = ctypes.CFUNCTYPE(None, ctypes.POINTER(Schema))
ReleaseArray = ctypes.CFUNCTYPE(None, ctypes.POINTER(Array))
ReleaseStream = ctypes.CFUNCTYPE(None, ctypes.POINTER(Stream))
GetSchema = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Stream), ctypes.POINTER(Schema))
GetNext = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Stream), ctypes.POINTER(Array))
GetError = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(Stream))

Schema._fields_ = [
    ("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_char_p), ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64), ("children", ctypes.POINTER(ctypes.POINTER(Schema))),
    ("dictionary", ctypes.POINTER(Schema)), ("release", ReleaseSchema), ("private_data", ctypes.c_void_p),
]
Array._fields_ = [
    ("length", ctypes.c_int64), ("null_count", ctypes.c_int64), ("offset", ctypes.c_int64), ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64), ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(Array))), ("dictionary", ctypes.POINTER(Array)),
    ("release", ReleaseArray), ("private_data", ctypes.c_void_p),
]
Stream._fields_ = [
    ("get_schema", GetSchema), ("get_next", GetNext), ("get_last_error", GetError), ("release", ReleaseStream),
    ("private_data", ctypes.c_void_p),
]

new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
capsule_pointer.restype = ctypes.c_void_p
capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
CAPSULE = b"arrow_array_stream"
WHY = ctypes.c_char_p(b"the producer broke")


class Producer:
    """A table of batches: columns are (name, format, values), values numbers or texts or None."""

    def __init__(self, batches, fail_at=None):
        self.batches = batches
        self.fail_at = fail_at
        self.released = {"schema": 0, "array": 0, "stream": 0}
        self.kept = []  # what the structures point to
        self.next = 0

    def pointers(self, kind, items):
        made = (ctypes.POINTER(kind) * len(items))(*[ctypes.pointer(item) for item in items])
        self.kept.append((made, items))
        return made

    def release(self, what, kind):
        def call(pointer):
            self.released[what] += 1
            pointer.contents.release = kind()

        made = kind(call)
        self.kept.append(made)
        return made

    def fill_schema(self, out):
        columns = self.batches[0]
        children = [Schema(format=f.encode(), name=n.encode(), flags=2, release=self.release("schema", ReleaseSchema))
                    for n, f, _ in columns]
        out.format, out.name, out.n_children = b"+s", b"", len(children)
        out.children = self.pointers(Schema, children)
        out.release = self.release("schema", ReleaseSchema)

    def column(self, form, values):
        validity = bytearray((len(values) + 7) // 8 + 1)
        for i, value in enumerate(values):
            if value is not None:
                validity[i // 8] |= 1 << i % 8
        parts = [bytes(validity)]
        if form == "u":
            texts = [(value or "").encode() for value in values]
            offsets = [0]
            for text in texts:
                offsets.append(offsets[-1] + len(text))
            parts += [bytes((ctypes.c_int32 * len(offsets))(*offsets)), b"".join(texts) + b"\0"]
        else:
            kind = {"l": ctypes.c_int64, "g": ctypes.c_double, "tdD": ctypes.c_int32}[form]
            parts.append(bytes((kind * len(values))(*[value or 0 for value in values])))
        buffers = (ctypes.c_void_p * len(parts))(*[ctypes.cast(ctypes.c_char_p(p), ctypes.c_void_p) for p in parts])
        self.kept.append((parts, buffers))
        return Array(length=len(values), null_count=sum(v is None for v in values), n_buffers=len(parts), buffers=buffers,
                     release=self.release("array", ReleaseArray))

    def fill_array(self, out):
        if self.fail_at == self.next:
            return 5
        if self.next == len(self.batches):
            out.release = ReleaseArray()
            return 0
        columns = self.batches[self.next]
        self.next += 1
        out.length = len(columns[0][2])
        out.n_buffers, out.n_children = 1, len(columns)
        out.buffers = (ctypes.c_void_p * 1)(None)
        out.children = self.pointers(Array, [self.column(form, values) for _, form, values in columns])
        out.release = self.release("array", ReleaseArray)
        return 0

    def __arrow_c_stream__(self, requested_schema=None):
        def get_schema(_, out):
            self.fill_schema(out.contents)
            return 0

        stream = Stream(GetSchema(get_schema), GetNext(lambda _, out: self.fill_array(out.contents)),
                        GetError(lambda _: ctypes.cast(WHY, ctypes.c_void_p).value), self.release("stream", ReleaseStream))
        self.kept.append(stream)
        return new_capsule(ctypes.addressof(stream), CAPSULE, None)


def read(table):
    """What a consumer sees of a table that halo gives: {column: values}."""
    capsule = table.__arrow_c_stream__()
    stream = Stream.from_address(capsule_pointer(capsule, CAPSULE))
    schema, array = Schema(), Array()
    assert stream.get_schema(ctypes.byref(stream), ctypes.byref(schema)) == 0
    assert stream.get_next(ctypes.byref(stream), ctypes.byref(array)) == 0
    columns = {}
    for i in range(schema.n_children):
        field, column = schema.children[i].contents, array.children[i].contents
        valid = ctypes.string_at(column.buffers[0], (array.length + 7) // 8) if array.length else b""
        numbers = (ctypes.c_int64 * (array.length + 1)).from_address(column.buffers[1]) if array.length else []
        values = []
        for k in range(array.length):
            if not valid[k // 8] >> k % 8 & 1:
                values.append(None)
            elif field.format == b"U":
                values.append(ctypes.string_at(column.buffers[2] + numbers[k], numbers[k + 1] - numbers[k]).decode())
            else:
                values.append(numbers[k])
        columns[field.name.decode()] = values
    schema.release(ctypes.byref(schema))
    array.release(ctypes.byref(array))
    assert stream.get_next(ctypes.byref(stream), ctypes.byref(array)) == 0
    assert not array.release, "one batch"
    return columns


class ArrowTables(unittest.TestCase):
    def test_rows_come_from_all_batches(self):
        flow = support.function_flow("see", ("i", "f", "t", "d"))
        table = Producer([
            [("i", "l", [1, None]), ("f", "g", [0.5, 2.0]), ("t", "u", ["zwölf", None]), ("d", "tdD", [0, 1])],
            [("i", "l", [3]), ("f", "g", [None]), ("t", "u", [""]), ("d", "tdD", [None])],
        ])
        seen = []
        halo.run(flow, table, functions={"see": lambda **row: seen.append(row)})
        self.assertEqual(sorted(seen, key=str), sorted([
            {"i": 1, "f": 0.5, "t": "zwölf", "d": "1970-01-01"},
            {"i": None, "f": 2.0, "t": None, "d": "1970-01-02"},
            {"i": 3, "f": None, "t": "", "d": None},
        ], key=str))
        self.assertEqual(table.released["stream"], 1)
        self.assertEqual(table.released["array"], 2, "each batch once; its columns are the producer's")

    def test_results_are_a_table_of_the_interface(self):
        results = halo.run(ONE, Producer([[("id", "l", [7, 5]), ("prompt", "u", ["It leaks.", "It broke."])]]))
        columns = read(results)
        self.assertEqual(list(columns), ["id", "status", "a", "error_operator", "error_code", "error_message",
                                         "prompt_tokens", "output_tokens"])
        self.assertEqual(columns["id"], [7, 5])
        self.assertEqual(columns["status"], ["ok", "ok"])
        wanted = halo.run(ONE, [{"id": 7, "prompt": "It leaks."}, {"id": 5, "prompt": "It broke."}])
        self.assertEqual(columns["a"], [row["outputs"]["a"] for row in wanted])
        self.assertEqual(columns["error_code"], [None, None])
        self.assertEqual(len(results), 2)

    def test_a_result_is_input_again(self):
        first = halo.run(ONE, Producer([[("prompt", "u", ["It leaks."])]]))
        again = halo.run(ONE, first, column="a")
        self.assertEqual(read(again)["status"], ["ok"])

    def test_what_is_no_text_is_json(self):
        row = {"id": "x", "status": "failed", "outputs": {"a": {"k": [1]}, "b": None},
               "error": {"operator": "a", "code": "c", "message": "m"}, "usage": {"prompt_tokens": 1, "output_tokens": 2}}
        columns = read(_rows.arrow_table([row, None]))
        self.assertEqual(columns["a"], ['{"k":[1]}', None])
        self.assertEqual(columns["status"], ["failed", "unfinished"])
        self.assertEqual(columns["error_message"], ["m", None])
        self.assertEqual(columns["prompt_tokens"], [1, None])
        self.assertEqual(read(_rows.arrow_table([]))["id"], [])

    def test_a_stream_outlives_its_table(self):
        table = _rows.arrow_table([{"id": 1, "status": "ok", "outputs": {}, "error": None,
                                    "usage": {"prompt_tokens": 1, "output_tokens": 2}}])

        class Held:
            def __init__(self, capsule):
                self.capsule = capsule

            def __arrow_c_stream__(self):
                return self.capsule

        held = Held(table.__arrow_c_stream__())
        del table
        gc.collect()
        self.assertEqual(read(held)["id"], [1])

    def test_faults_of_the_producer_are_errors(self):
        with self.assertRaisesRegex(halo.RowsError, "the producer broke"):
            halo.run(ONE, Producer([[("prompt", "u", ["p"])]], fail_at=1))
        taken = Producer([[("prompt", "u", ["p"])]])
        capsule = taken.__arrow_c_stream__()
        rows = halo._core.Rows(any_time=False)
        self.assertEqual(rows.add_arrow(capsule), 1)
        with self.assertRaisesRegex(halo.UsageError, "taken before"):
            rows.add_arrow(capsule)
        with self.assertRaises(ValueError):
            rows.add_arrow(new_capsule(1, b"something else", None))


if __name__ == "__main__":
    support.main()
