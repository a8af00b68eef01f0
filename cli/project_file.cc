#include "project_file.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "workflow/key_table.h"
#include "workflow/value_reader.h"
#include "workflow/yaml_tree.h"

namespace halo::cli {
namespace {

void ReadAllowed(KeyContext& c, const YamlField& f, RunOptions& options) {
  static const std::vector<std::string> kWords = {"exec", "net", "files", "env"};
  const auto words = c.reader.TextList(f, "exec, net, files or env");
  if (!words) return;
  for (const YamlNode* word : *words) {
    if (std::find(kWords.begin(), kWords.end(), word->text) == kWords.end()) {
      c.reader.diagnostics().Add(word->line, word->column,
                                 "allow: expected exec, net, files or env, got '" + word->text +
                                     "'" + DidYouMean(word->text, kWords));
      continue;
    }
    options.allow.insert(word->text);
  }
}

/// A flag's connection wins over the file's.
void ReadUrls(KeyContext& c, const YamlField& f, RunOptions& options) {
  if (f.value->kind != YamlNode::Kind::kMapping)
    return c.reader.Mismatch(f, "a mapping of names to duckdb:PATH or postgres://...");
  for (const auto& [key, value] : f.value->entries) {
    if (const auto url = c.reader.Word({"connections." + key->text, key.get(), value.get()}))
      options.project_connections.emplace(key->text, *url);
  }
}

template <double ModelPrice::*Of>
void ReadPrice(KeyContext& c, const YamlField& f, ModelPrice& price) {
  constexpr double kMost = 1e6;
  const char* expected = "a number from 0 to 1000000, for a million tokens";
  const auto amount = c.reader.Number(f, expected);
  if (!amount) return;
  if (*amount < 0 || *amount > kMost) return c.reader.Mismatch(f, expected);
  price.*Of = *amount;
}

constexpr KeySpec<ModelPrice> kPriceKeys[] = {{"prompt", ReadPrice<&ModelPrice::prompt>},
                                              {"output", ReadPrice<&ModelPrice::output>}};

void ReadPrices(KeyContext& c, const YamlField& f, RunOptions& options) {
  const char* expected = "a mapping of models to {prompt: NUMBER, output: NUMBER}";
  if (f.value->kind != YamlNode::Kind::kMapping) return c.reader.Mismatch(f, expected);
  for (const auto& [key, value] : f.value->entries) {
    if (value->kind != YamlNode::Kind::kMapping) {
      c.reader.Mismatch({"prices." + key->text, key.get(), value.get()}, expected);
      continue;
    }
    ModelPrice price;
    ReadMapping<ModelPrice>(c, *value, kPriceKeys, "in a price", price);
    options.prices.emplace(key->text, price);
  }
}

constexpr KeySpec<RunOptions> kKeys[] = {
    {"allow", ReadAllowed}, {"connections", ReadUrls}, {"prices", ReadPrices}};

}  // namespace

void ReadProjectFile(const std::string& path, RunOptions& options) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) throw Error(ErrorCode::kConfig, path + ": cannot be read");
  DiagnosticList diagnostics(path);
  const std::string content = text.str();
  const YamlNode::Pointer root = ParseYaml(content, diagnostics);
  ValueReader reader(diagnostics);
  KeyContext context{reader, content};
  if (root->kind == YamlNode::Kind::kMapping) {
    ReadMapping<RunOptions>(context, *root, kKeys, "in the project's settings", options);
  } else if (root->kind != YamlNode::Kind::kNull) {
    diagnostics.Add(
        root->line, root->column,
        "expected a mapping with allow, connections or prices, got " + DescribeNode(*root));
  }
  diagnostics.ThrowIfAny(ErrorCode::kConfig);
}

}  // namespace halo::cli
