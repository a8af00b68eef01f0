#include "bench/answer_scoring.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>

namespace halo::bench {
namespace {

using Json = nlohmann::json;

// ---- Reading answers
// -----------------------------------------------------------------------------

/// The answer of an operator; "" where there is none or it is no text.
std::string TextOf(const Json& outputs, const std::string& op) {
  const auto found = outputs.find(op);
  if (found == outputs.end() || !found->is_string()) return "";
  return found->get<std::string>();
}

/// An answer that is an object, or text that is one; null otherwise.
Json ObjectOf(const Json& outputs, const std::string& op) {
  const auto found = outputs.find(op);
  if (found == outputs.end()) return nullptr;
  Json value = *found;
  if (value.is_string())
    value = Json::parse(value.get<std::string>(), nullptr, /*allow_exceptions=*/false);
  return value.is_object() ? value : Json(nullptr);
}

const Json& Expected(const Json& expected, const std::string& key) {
  const auto found = expected.find(key);
  if (found == expected.end()) throw std::runtime_error("'expected' lacks '" + key + "'");
  return *found;
}

/// What stands between the last `before` and the next `after`.
std::optional<std::string> Between(const std::string& text, const std::string& before,
                                   const std::string& after) {
  const size_t start = text.rfind(before);
  if (start == std::string::npos) return std::nullopt;
  const size_t begin = start + before.size();
  const size_t end = text.find(after, begin);
  if (end == std::string::npos || end == begin) return std::nullopt;
  return text.substr(begin, end - begin);
}

/// The side that an answer takes: "... Answer: no."
std::optional<std::string> SideOf(const Json& outputs, const std::string& op) {
  return Between(TextOf(outputs, op), "Answer: ", ".");
}

bool Names(const std::string& text, const std::string& what) {
  return !what.empty() && text.find(what) != std::string::npos;
}

// ---- Records
// -------------------------------------------------------------------------------------

Criterion HasKeys(const std::string& op, std::vector<std::string> keys) {
  return {"valid JSON", true, [op, keys](const Json& outputs, const Json&) {
            const Json object = ObjectOf(outputs, op);
            return object.size() == keys.size() &&
                   std::all_of(keys.begin(), keys.end(),
                               [&](const std::string& key) { return object.contains(key); });
          }};
}

Criterion FieldIsRight(const std::string& op, const std::string& key) {
  return {key, true, [op, key](const Json& outputs, const Json& expected) {
            const Json& right = Expected(expected, key);
            const Json object = ObjectOf(outputs, op);
            return object.contains(key) && object.at(key) == right;
          }};
}

std::vector<Criterion> RecordCriteria(const std::string& op, const std::vector<std::string>& keys) {
  std::vector<Criterion> criteria = {HasKeys(op, keys)};
  for (const std::string& key : keys) criteria.push_back(FieldIsRight(op, key));
  return criteria;
}

// ---- Customer messages
// ---------------------------------------------------------------------------

/// True: escalate; false: wait.
std::optional<bool> VerdictOf(const Json& outputs, const std::string& department) {
  const std::optional<std::string> verdict = Between(TextOf(outputs, department), "Verdict: ", ".");
  if (verdict == "escalate") return true;
  if (verdict == "wait") return false;
  return std::nullopt;
}

std::vector<Criterion> MessageCriteria() {
  static const std::vector<std::string> departments = {"support", "engineering", "operations"};
  std::vector<Criterion> criteria =
      RecordCriteria("extract", {"product", "problem", "sentiment", "urgency"});
  criteria.push_back({"reply names both", true, [](const Json& outputs, const Json& expected) {
                        const std::string reply = TextOf(outputs, "reply");
                        return Names(reply, Expected(expected, "product").get<std::string>()) &&
                               Names(reply, Expected(expected, "problem").get<std::string>());
                      }});
  criteria.push_back({"verdicts right", false, [](const Json& outputs, const Json& expected) {
                        const Json& by = Expected(expected, "escalated_by");
                        return std::all_of(
                            departments.begin(), departments.end(), [&](const std::string& who) {
                              const bool right = std::find(by.begin(), by.end(), who) != by.end();
                              return VerdictOf(outputs, who) == right;
                            });
                      }});
  criteria.push_back({"majority right", false, [](const Json& outputs, const Json&) {
                        const std::string verdict = TextOf(outputs, "verdict");
                        int escalating = 0;
                        for (const std::string& who : departments) {
                          const std::optional<bool> one = VerdictOf(outputs, who);
                          if (!one) return false;
                          escalating += *one ? 1 : 0;
                        }
                        return Names(verdict, escalating >= 2 ? ": escalate, by" : ": wait, by");
                      }});
  return criteria;
}

// ---- Opinions and debates
// ------------------------------------------------------------------------

/// Side -> the voters who take it; empty if one of them takes none.
std::map<std::string, std::set<std::string>> Votes(const Json& outputs,
                                                   const std::vector<std::string>& voters) {
  std::map<std::string, std::set<std::string>> votes;
  for (const std::string& voter : voters) {
    const std::optional<std::string> side = SideOf(outputs, voter);
    if (!side) return {};
    votes[*side].insert(voter);
  }
  return votes;
}

std::optional<std::string> JudgedAnswer(const Json& outputs) {
  return Between(TextOf(outputs, "judge"), "final answer is: ", ".");
}

/// "A", "A and B", "A, B and C".
std::set<std::string> ListedNames(std::string list) {
  for (size_t at; (at = list.find(" and ")) != std::string::npos;) list.replace(at, 5, ", ");
  std::set<std::string> names;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(", ", begin), list.size());
    names.insert(list.substr(begin, end - begin));
    begin = end + 2;
  }
  return names;
}

std::vector<Criterion> VotingCriteria(std::vector<std::string> voters) {
  return {{"all take a side", false,
           [voters](const Json& outputs, const Json&) { return !Votes(outputs, voters).empty(); }},
          {"judge names a winner", true,
           [voters](const Json& outputs, const Json&) {
             const auto votes = Votes(outputs, voters);
             const auto judged = votes.find(JudgedAnswer(outputs).value_or(""));
             return judged != votes.end() &&
                    std::all_of(votes.begin(), votes.end(), [&](const auto& side) {
                      return side.second.size() <= judged->second.size();
                    });
           }},
          {"supporters right", false, [voters](const Json& outputs, const Json&) {
             const auto votes = Votes(outputs, voters);
             const auto judged = votes.find(JudgedAnswer(outputs).value_or(""));
             if (judged == votes.end()) return false;
             const std::string count = ", " + std::to_string(judged->second.size()) + " of " +
                                       std::to_string(voters.size()) + ".";
             const auto list = Between(TextOf(outputs, "judge"), "supported by ", count);
             return list && ListedNames(*list) == judged->second;
           }}};
}

Criterion SameSide(const std::string& name, const std::string& first, const std::string& second) {
  return {name, true, [first, second](const Json& outputs, const Json&) {
            const std::optional<std::string> side = SideOf(outputs, first);
            return side && side == SideOf(outputs, second);
          }};
}

/// An argument with a serious flaw leaves the question open, one with a small flaw stands.
std::vector<Criterion> ArgumentCriteria() {
  return {{"position stated", false,
           [](const Json& outputs, const Json&) { return SideOf(outputs, "argue").has_value(); }},
          {"flaw judged", false,
           [](const Json& outputs, const Json&) {
             const auto flaw = Between(TextOf(outputs, "attack"), "flaw is ", ".");
             return flaw == "serious" || flaw == "small";
           }},
          {"resolution follows", true, [](const Json& outputs, const Json&) {
             const auto flaw = Between(TextOf(outputs, "attack"), "flaw is ", ".");
             const auto resolved = SideOf(outputs, "resolve");
             if (flaw == "serious") return resolved == "open";
             return flaw == "small" && resolved && resolved == SideOf(outputs, "argue");
           }}};
}

std::vector<Criterion> ConversationCriteria() {
  std::vector<Criterion> criteria;
  for (const std::string turn : {"opening", "follow_up", "closing"}) {
    criteria.push_back(
        {turn + " names the topic", true, [turn](const Json& outputs, const Json& expected) {
           return Names(TextOf(outputs, turn), Expected(expected, "topic").get<std::string>());
         }});
  }
  return criteria;
}

}  // namespace

std::vector<Criterion> CriteriaOf(const std::string& workflow) {
  if (workflow == "customer_messages") return MessageCriteria();
  if (workflow == "review_extraction_3step")
    return RecordCriteria("record",
                          {"product", "months_used", "praised", "criticized", "buys_again"});
  if (workflow == "multi_turn") return ConversationCriteria();
  if (workflow == "voting_4way")
    return VotingCriteria({"practical", "skeptical", "factual", "creative"});
  if (workflow == "voting_4way_two_models")
    return VotingCriteria({"teacher", "engineer", "historian", "critic"});
  if (workflow == "voting_5way_three_models")
    return VotingCriteria({"direct", "stepwise", "contrarian", "careful", "concise"});
  if (workflow == "adversarial_3step") return ArgumentCriteria();
  if (workflow == "adversarial_4step_two_models")
    return {SameSide("defense keeps the answer", "propose", "defend"),
            SameSide("judge states that answer", "defend", "judge")};
  if (workflow == "seed_example") return {SameSide("second answer follows", "op0", "op1")};
  throw std::invalid_argument("workflow '" + workflow +
                              "' has no criteria: add them to bench/answer_scoring.cc");
}

std::vector<bool> Score(const std::vector<Criterion>& criteria, const Json& outputs,
                        const Json& expected) {
  std::vector<bool> scores = {true};
  for (const Criterion& criterion : criteria) {
    const bool holds = criterion.holds(outputs, expected);
    if (criterion.in_task && !holds) scores[0] = false;
    scores.push_back(holds);
  }
  return scores;
}

}  // namespace halo::bench
