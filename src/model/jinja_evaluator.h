#pragma once

#include <cstdint>
#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/jinja_program.h"
#include "model/jinja_value.h"

namespace halo {

/// What a template learned about the text in holes. As long as other texts give the same answers,
/// the template does the same with them.
struct JinjaObservations {
  bool acted = false;  ///< it did more than copy, trim, search and compare: nothing can be said
  std::set<std::string> needles;  ///< texts that were searched for in a hole (and not found)
  std::set<std::string> equals;   ///< texts that a hole was compared with
};

struct JinjaSettings {
  /// True: undefined names are faults, values print as JSON, a mapping's keys come before its
  /// methods. False: as llama.cpp runs chat templates.
  bool strict = true;
  std::tm date = {};                          ///< what strftime_now says
  JinjaObservations* observations = nullptr;  ///< null: nobody asks
  uint64_t max_steps = 1'000'000;             ///< nodes run, items visited, 64 bytes of text made
  size_t max_bytes = size_t{16} << 20;        ///< of the output and of any text on the way
};

/// Variables of a block; inner scopes see the outer ones. Names belong to the program.
struct JinjaScope {
  std::vector<std::pair<std::string_view, JinjaValue>> names;
  std::shared_ptr<JinjaScope> parent;
};

/// Runs one program once. All faults are thrown as JinjaFault with a position.
///
/// Meaning follows llama.cpp's engine, which model templates are tested against: a loop's variables
/// live through all its iterations, a macro sees the variables of its caller, blocks are trimmed as
/// with trim_blocks and lstrip_blocks. Lengths and indices of texts count bytes in lenient mode, as
/// there, and characters in strict mode.
class JinjaEvaluator {
 public:
  using Lookup = std::function<std::optional<JinjaValue>(const std::string& name)>;

  /// `lookup` gives the names from outside, `names` lists them for messages.
  JinjaEvaluator(const JinjaProgram& program, const JinjaSettings& settings, Lookup lookup,
                 std::vector<std::string> names);
  ~JinjaEvaluator();
  JinjaEvaluator(const JinjaEvaluator&) = delete;
  JinjaEvaluator& operator=(const JinjaEvaluator&) = delete;

  MarkedText Render();
  /// The value of a program that is one expression; the rendered text of any other.
  JinjaValue Evaluate();

  // For the built-in functions.
  bool strict() const { return settings_.strict; }
  const std::tm& date() const { return settings_.date; }
  void Step(size_t count = 1);
  [[noreturn]] void Fail(const std::string& message) const;
  bool Truth(const JinjaValue& value);
  bool Equal(const JinjaValue& a, const JinjaValue& b, int depth = 0);
  /// Negative, zero or positive. Numbers come before texts; anything else has no order.
  int Compare(const JinjaValue& a, const JinjaValue& b);
  bool Contains(const JinjaValue& container, const JinjaValue& item);
  /// What ~ makes of a value.
  MarkedText TextOf(const JinjaValue& value, int depth = 0);
  /// A new text, charged for.
  JinjaValue NewText(MarkedText text);
  /// More of a text that is being made, charged for.
  void Append(const MarkedText& text, MarkedText* out);
  /// Charges for looking a key up.
  void UseAsKey(const JinjaValue& key);
  JinjaValue Attribute(const JinjaValue& object, const std::string& name, bool for_call);
  JinjaValue Index(const JinjaValue& object, const JinjaValue& key);
  JinjaValue Slice(const JinjaValue& object, const JinjaValue* start, const JinjaValue* stop,
                   const JinjaValue* step);
  JinjaValue ApplyFilter(const std::string& name, JinjaValue operand,
                         const JinjaArguments& arguments);
  bool ApplyTest(const std::string& name, const JinjaValue& value, const JinjaArguments& arguments);
  /// Remembers what may be part of a circle of references, to be taken apart at the end.
  void Mutating(const std::shared_ptr<JinjaObject>& object) { mutated_.push_back(object); }
  /// The template searches `text` for `needle`.
  void Searching(const MarkedText& text, const MarkedText& needle);
  /// The template does something with `text` that depends on more than Searching and Comparing
  /// tell.
  void Acting(const MarkedText& text);
  void Comparing(const MarkedText& text, const MarkedText& other);

 private:
  static constexpr size_t kBytesPerStep = 64;
  enum class Flow { kNext, kBreak, kContinue };
  using Scope = std::shared_ptr<JinjaScope>;
  class Deeper;

  Flow Run(const std::vector<JinjaNode>& block, const Scope& scope, MarkedText* out);
  Flow RunNode(const JinjaNode& node, const Scope& scope, MarkedText* out);
  void RunLoop(const JinjaNode& node, const Scope& scope, MarkedText* out);
  void RunSet(const JinjaNode& node, const Scope& scope);
  void RunCallBlock(const JinjaNode& node, const Scope& scope, MarkedText* out);
  std::vector<JinjaValue> LoopItems(const JinjaNode& node, const Scope& scope);
  void Unpack(const JinjaNode& node, const JinjaValue& value, JinjaScope* scope);
  void Print(const JinjaValue& value, MarkedText* out, int depth = 0);

  JinjaValue Eval(const JinjaNode& node, const Scope& scope);
  JinjaValue EvalName(const JinjaNode& node, const Scope& scope);
  JinjaValue EvalCall(const JinjaNode& node, const Scope& scope);
  JinjaValue EvalSlice(const JinjaNode& node, const Scope& scope);
  JinjaValue EvalOperator(const JinjaNode& node, const Scope& scope);
  JinjaValue EvalUnary(const JinjaNode& node, const Scope& scope);
  JinjaValue EvalMap(const JinjaNode& node, const Scope& scope);
  JinjaValue EvalFilter(const JinjaNode& node, JinjaValue operand, const Scope& scope);
  std::vector<JinjaValue> EvalItems(const JinjaNode& node, const Scope& scope);
  JinjaArguments Arguments(const JinjaNode& node, const Scope& scope);
  JinjaValue Call(const JinjaValue& callee, const JinjaArguments& arguments, const Scope& scope);
  JinjaValue CallBody(const JinjaNode& body, const JinjaArguments& arguments, const Scope& parent);
  JinjaValue Arithmetic(const JinjaNode& node, const JinjaValue& a, const JinjaValue& b);
  JinjaValue Repeat(const JinjaValue& text, const JinjaValue& times);
  bool Less(JinjaOp op, const JinjaValue& a, const JinjaValue& b);
  JinjaValue Missing(const std::string& name, const JinjaMap* map) const;
  void RequireDefined(const JinjaValue& value) const;

  const JinjaProgram& program_;
  const JinjaSettings settings_;
  const Lookup lookup_;
  const std::vector<std::string> names_;
  std::unordered_map<std::string, std::optional<JinjaValue>> outside_;  // what lookup_ gave
  std::vector<std::shared_ptr<JinjaObject>> mutated_;
  const JinjaNode* current_ = nullptr;
  uint64_t steps_ = 0;
  int depth_ = 0;
};

/// A filter, method or function that every template has.
struct JinjaBuiltin {
  using Run = JinjaValue (*)(JinjaEvaluator& run, const JinjaValue& self,
                             const JinjaArguments& arguments);
  std::string_view name;
  uint32_t kinds = 0;  ///< bit 1 << kind: what it can be applied to
  Run run = nullptr;
};

/// The filter or method of this name for values of this kind; null if there is none.
const JinjaBuiltin* FindJinjaMethod(std::string_view name, JinjaKind kind);
/// The function of this name; null if there is none.
const JinjaBuiltin* FindJinjaFunction(std::string_view name);
std::vector<std::string> JinjaFilterNames();
std::vector<std::string> JinjaTestNames();
std::set<std::string> JinjaFunctionNames();
/// JSON of a value, each byte with the origin of what it came from; `structure` marks brackets and
/// quotes.
MarkedText JinjaJsonText(JinjaEvaluator& run, const JinjaValue& value, Origin structure);

}  // namespace halo
