// The module halo._core: streams of rows, runs, plans and tables of results, as the package's
// Python code needs them. Everything that takes time runs without the interpreter's lock.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/arrow_c.h"
#include "core/arrow_table.h"
#include "core/core_run.h"
#include "core/options.h"
#include "halo/row_stream.h"
#include "halo/session.h"
#include "halo_build_info.h"
#include "optimizer/cost_profile.h"
#include "session/machine.h"

namespace py = pybind11;

namespace halo::python {
namespace {

constexpr double kSliceSeconds = 0.05;  // after which a waiting thread looks for signals

/// A copy of the interpreter that fork has made: the threads of the core are not in it.
struct ForkedProcess : std::exception {};

/// The process that has loaded the module.
pid_t loaded_in = 0;

bool IsForked() { return getpid() != loaded_in; }

void RequireOwnProcess() {
  if (IsForked()) throw ForkedProcess();
}

void End(RowStream& /*rows*/) {}
void End(CoreRun& run) { run.GiveUp(); }

/// Something that threads of the core share with objects of Python. In a copy of the process those
/// threads are missing, and waiting for them at its end would never end.
template <typename Value>
class OfOneProcess {
 public:
  explicit OfOneProcess(std::shared_ptr<Value> value) : value_(std::move(value)) {}
  ~OfOneProcess() {
    if (IsForked()) {
      // Never freed: the copy of the process has no use for it, and cannot end it.
      new std::shared_ptr<Value>(std::move(value_));
      return;
    }
    const py::gil_scoped_release unlocked;  // its end may wait for threads that call Python
    End(*value_);
    value_.reset();
  }
  OfOneProcess(const OfOneProcess&) = delete;
  OfOneProcess& operator=(const OfOneProcess&) = delete;

  Value& get() const {
    RequireOwnProcess();
    return *value_;
  }
  const std::shared_ptr<Value>& shared() const {
    RequireOwnProcess();
    return value_;
  }

 private:
  std::shared_ptr<Value> value_;  // shared with a run
};

using PyRows = OfOneProcess<RowStream>;
using PyRun = OfOneProcess<CoreRun>;

/// Calls `wait` with slices of `most_s` until it is true or the time is over. A signal's exception
/// (KeyboardInterrupt) comes through.
template <typename Wait>
void WaitInSlices(double most_s, const Wait& wait) {
  do {
    const double slice_s = std::min(most_s, kSliceSeconds);
    bool is_done = false;
    {
      const py::gil_scoped_release unlocked;
      is_done = wait(slice_s);
    }
    if (is_done) return;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    most_s -= slice_s;
  } while (most_s > 0);
}

/// A function of Python as the core calls it. `function` takes and gives JSON texts.
HostFunction FunctionOf(py::object function, int32_t at_once) {
  // Shared by copies of the options; the last one gives it back to Python.
  const std::shared_ptr<py::object> shared(new py::object(std::move(function)), [](py::object* o) {
    const py::gil_scoped_acquire locked;
    delete o;
  });
  HostFunction host;
  host.at_once = at_once;
  host.run = [shared](const std::string& call) {
    const py::gil_scoped_acquire locked;
    try {
      return (*shared)(call).cast<std::string>();
    } catch (const py::error_already_set& error) {
      // It belongs to Python and must not leave the lock. What it says is all that is wanted: its
      // frames are the package's.
      throw std::runtime_error(py::str(error.value()).cast<std::string>());
    }
  };
  return host;
}

using Streams = std::vector<const PyRows*>;
using Functions = std::map<std::string, std::pair<py::object, int32_t>>;

SimulationOptions OptionsOf(const std::string& json, const Streams& streams,
                            const Functions& functions) {
  RequireOwnProcess();
  SimulationOptions options = ReadOptions(json);
  for (size_t i = 0; i < streams.size() && i < options.run.inputs.size(); ++i) {
    if (streams[i] != nullptr) options.run.inputs[i].stream = streams[i]->shared();
  }
  for (const auto& [name, function] : functions)
    options.run.functions[name] = FunctionOf(function.first, function.second);
  options.run.environment = [environ = py::module_::import("os")
                                           .attr("environ")
                                           .attr("copy")()
                                           .cast<std::map<std::string, std::string>>()](
                                const std::string& name) -> std::optional<std::string> {
    const auto found = environ.find(name);
    return found == environ.end() ? std::nullopt : std::optional(found->second);
  };
  return options;
}

std::unique_ptr<PyRun> Begin(CoreRun::Kind kind, const std::string& json, const Streams& streams,
                             const Functions& functions) {
  SimulationOptions options = OptionsOf(json, streams, functions);
  return std::make_unique<PyRun>(CoreRun::Begin(kind, std::move(options)));
}

/// Finished rows by columns: inputs, indices, when they were opened and had ended, and all rows as
/// the text of one JSON array, since one long text costs Python less than many short ones.
using FinishedRows = std::tuple<std::vector<size_t>, std::vector<int64_t>, std::vector<double>,
                                std::vector<double>, std::string>;

FinishedRows Take(const PyRun& run, size_t most, size_t least, double most_s) {
  CoreRun& core = run.get();
  std::vector<FinishedRow> rows;
  WaitInSlices(most_s, [&](double slice_s) {
    rows = core.Take(most, least, slice_s);
    return !rows.empty() || core.is_over();
  });
  FinishedRows taken;
  auto& [inputs, indices, opened, ended, text] = taken;
  text = "[";
  for (const FinishedRow& row : rows) {
    inputs.push_back(row.input);
    indices.push_back(row.index);
    opened.push_back(row.opened_s);
    ended.push_back(row.ended_s);
    if (text.size() > 1) text += ',';
    text += row.json;
  }
  text += ']';
  return taken;
}

/// Throws Python's exception for a text that is no Unicode.
std::string TextOf(const py::handle& text) {
  Py_ssize_t bytes = 0;
  const char* begin = PyUnicode_AsUTF8AndSize(text.ptr(), &bytes);
  if (begin == nullptr) throw py::error_already_set();
  return {begin, static_cast<size_t>(bytes)};
}

/// Takes what a producer has put into a capsule, so that it is released once, by whom it belongs
/// to.
int64_t AddArrow(const PyRows& rows, const py::capsule& capsule) {
  RowStream& stream = rows.get();
  auto* given =
      static_cast<ArrowArrayStream*>(PyCapsule_GetPointer(capsule.ptr(), kArrowStreamCapsule));
  if (given == nullptr) throw py::error_already_set();
  if (given->release == nullptr) throw Error(ErrorCode::kUsage, "the table was taken before");
  ArrowArrayStream own = *given;
  given->release = nullptr;
  const auto release = [](ArrowArrayStream* table) {
    if (table->release != nullptr) table->release(table);
  };
  const std::unique_ptr<ArrowArrayStream, decltype(release)> owner(&own, release);
  const py::gil_scoped_release unlocked;
  return stream.AddArrow(&own);
}

py::capsule ExportArrow(const ArrowTable& table) {
  auto stream = std::make_unique<ArrowArrayStream>();
  table.Export(stream.get());
  const py::capsule capsule(stream.get(), kArrowStreamCapsule, [](PyObject* object) {
    auto* left = static_cast<ArrowArrayStream*>(PyCapsule_GetPointer(object, kArrowStreamCapsule));
    if (left->release != nullptr) left->release(left);
    delete left;
  });
  (void)stream.release();  // the capsule's
  return capsule;
}

std::unique_ptr<ArrowTable> TableOf(
    const std::vector<std::tuple<std::string, std::variant<Numbers, Texts>>>& columns) {
  std::vector<ArrowColumn> given;
  for (const auto& [name, values] : columns) {
    ArrowColumn& column = given.emplace_back();
    column.name = name;
    std::visit([&](const auto& list) { column.values = list; }, values);
  }
  return std::make_unique<ArrowTable>(given);
}

const char* NameOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUsage:
      return "usage";
    case ErrorCode::kWorkflow:
      return "workflow";
    case ErrorCode::kRows:
      return "rows";
    case ErrorCode::kModel:
      return "model";
    case ErrorCode::kConfig:
      return "config";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kUnsupported:
      return "unsupported";
  }
  return "usage";
}

/// Throws halo.errors' exception for one of the core.
void Raise(const Error& error) {
  using Place = std::tuple<std::string, int32_t, int32_t, std::string>;
  std::vector<Place> diagnostics;
  for (const Diagnostic& each : error.diagnostics())
    diagnostics.emplace_back(each.location.file, each.location.line, each.location.column,
                             each.message);
  const py::object exception =
      py::module_::import("halo.errors")
          .attr("error_of")(NameOf(error.code()), error.what(), diagnostics);
  PyErr_SetObject(py::type::of(exception).ptr(), exception.ptr());
}

void RegisterErrors() {
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      Raise(error);
    } catch (const ForkedProcess&) {
      const py::object exception = py::module_::import("halo.errors").attr("ForkedError")();
      PyErr_SetObject(py::type::of(exception).ptr(), exception.ptr());
    }
  });
}

void AddRows(py::module_& module) {
  const auto unlocked = py::call_guard<py::gil_scoped_release>();
  py::class_<PyRows>(module, "Rows")
      .def(py::init([](bool any_time) {
             RequireOwnProcess();
             using Arrival = RowStream::Arrival;
             return std::make_unique<PyRows>(
                 std::make_shared<RowStream>(any_time ? Arrival::kAnyTime : Arrival::kBefore));
           }),
           py::arg("any_time"))
      .def(
          "add",
          [](const PyRows& rows, const py::str& row, int32_t priority, double timeout_s) {
            return rows.get().Add(TextOf(row), {priority, timeout_s});
          },
          py::arg("row"), py::arg("priority"), py::arg("timeout_s"))
      .def(
          "add_all",
          [](const PyRows& rows, const py::list& texts) {
            RowStream& stream = rows.get();
            for (const py::handle text : texts) stream.Add(TextOf(text));
          },
          py::arg("rows"))
      .def("add_arrow", AddArrow, py::arg("table"))
      .def("cancel", [](const PyRows& rows, int64_t index) { rows.get().Cancel(index); })
      .def("close", [](const PyRows& rows) { rows.get().Close(); })
      .def_property_readonly("waiting", [](const PyRows& rows) { return rows.get().waiting(); })
      .def(
          "wait_below",
          [](const PyRows& rows, int64_t count, double most_s) {
            return rows.get().WaitBelow(count, most_s);
          },
          py::arg("rows"), py::arg("most_s"), unlocked);
}

void AddRuns(py::module_& module) {
  const auto unlocked = py::call_guard<py::gil_scoped_release>();
  py::class_<PyRun>(module, "Run")
      .def("take", Take, py::arg("most"), py::arg("least"), py::arg("most_s"))
      .def_property_readonly("is_over", [](const PyRun& run) { return run.get().is_over(); })
      .def("fileno", [](const PyRun& run) { return run.get().ready_descriptor(); })
      .def("stop", [](const PyRun& run, int level) { run.get().Stop(level); })
      .def(
          "join", [](const PyRun& run, double most_s) { return run.get().Join(most_s); },
          py::arg("most_s"), unlocked)
      .def("progress", [](const PyRun& run) { return run.get().ProgressJson(); })
      .def("outcome", [](const PyRun& run) { return run.get().OutcomeJson(); })
      .def_property_readonly("run_dir", [](const PyRun& run) { return run.get().RunFolder(); });
  module.def(
      "run",
      [](const std::string& options, const Streams& streams, const Functions& functions) {
        return Begin(CoreRun::Kind::kRun, options, streams, functions);
      },
      py::arg("options"), py::arg("rows"), py::arg("functions"));
  module.def(
      "simulate",
      [](const std::string& options, const Streams& streams, const Functions& functions) {
        return Begin(CoreRun::Kind::kSimulation, options, streams, functions);
      },
      py::arg("options"), py::arg("rows"), py::arg("functions"));
  module.def(
      "explain",
      [](const std::string& json, const Streams& streams, const Functions& functions,
         const std::vector<std::string>& formats) {
        RunOptions options = OptionsOf(json, streams, functions).run;
        const py::gil_scoped_release released;
        Session session(std::move(options));
        std::vector<std::string> texts;
        for (const std::string& format : formats) texts.push_back(session.Explain(format));
        return texts;
      },
      py::arg("options"), py::arg("rows"), py::arg("functions"), py::arg("formats"));
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  loaded_in = getpid();
  RegisterErrors();
  AddRows(module);
  AddRuns(module);
  py::class_<ArrowTable>(module, "ArrowTable")
      .def(py::init(&TableOf), py::arg("columns"))
      .def(
          "__arrow_c_stream__",
          [](const ArrowTable& table, const py::object& /*requested_schema*/) {
            return ExportArrow(table);
          },
          py::arg("requested_schema") = py::none())
      .def("__len__", &ArrowTable::rows);
  module.def("option_names", &OptionNames);
  module.def("profile_name",
             [](int threads) { return ProfileFileName(MachineFingerprint(threads)); });
  module.attr("version") = build_info::kVersion;
  module.attr("commit") = build_info::kCommit;
}

}  // namespace halo::python
