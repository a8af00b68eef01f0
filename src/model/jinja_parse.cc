// The only place that sees llama.cpp's Jinja engine: its lexer and parser, whose tree is copied
// into ours. Its runtime is not used: it loses the marks of input in a dozen filters, has no limit
// on steps, output or recursion, divides by zero, follows circular references for ever, and copies
// all variables at every scope.
#include <algorithm>
#include <functional>

#include "jinja/lexer.h"
#include "jinja/parser.h"
#include "jinja/runtime.h"
#include "model/jinja_program.h"

namespace halo {

namespace {

namespace llama = ::jinja;

constexpr size_t kMaxBrackets = 100;    // each costs a dozen frames of the parser
constexpr size_t kMaxStatements = 150;  // blocks in blocks; every elif counts
constexpr size_t kMaxNesting = 500;  // all of it with operators, each of which nests its left side

[[noreturn]] void Fail(std::string message, size_t position) {
  throw JinjaFault{"template", std::move(message), position};
}

// Walks the tokens as the parser will and refuses what would nest too deeply or end inside a block.
class NestingCheck {
 public:
  void Run(const std::vector<llama::token>& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) Visit(tokens, i);
    if (!statements_.empty()) {
      const std::string& word = statements_.back().word;
      Fail("'" + word + "' is never ended by 'end" + word + "'", statements_.back().position);
    }
  }

 private:
  void Visit(const std::vector<llama::token>& tokens, size_t i) {
    const llama::token& token = tokens[i];
    switch (token.t) {
      case llama::token::open_statement:
        brackets_.assign(1, 0);
        Statement(tokens, i);
        break;
      case llama::token::open_expression:
        brackets_.assign(1, 0);
        break;
      case llama::token::close_statement:
      case llama::token::close_expression:
        brackets_.assign(1, 0);
        break;
      case llama::token::open_paren:
      case llama::token::open_square_bracket:
      case llama::token::open_curly_bracket:
        brackets_.push_back(0);
        break;
      case llama::token::close_paren:
      case llama::token::close_square_bracket:
      case llama::token::close_curly_bracket:
        if (brackets_.size() > 1) brackets_.pop_back();
        ++brackets_.back();
        break;
      case llama::token::comma:
        brackets_.back() = 0;
        break;
      case llama::token::identifier:
        if (IsOperator(token.value)) ++brackets_.back();
        break;
      case llama::token::dot:
      case llama::token::pipe:
      case llama::token::unary_operator:
      case llama::token::additive_binary_operator:
      case llama::token::multiplicative_binary_operator:
      case llama::token::comparison_binary_operator:
        ++brackets_.back();
        break;
      default:
        break;
    }
    if (depth_ > kMaxStatements || brackets_.size() > kMaxBrackets) {
      Fail("the template is nested too deeply", token.pos);
    }
    size_t nesting = depth_;
    for (const size_t operators : brackets_) nesting += operators + 1;
    if (nesting > kMaxNesting) Fail("the expression is too long or nested too deeply", token.pos);
  }

  static bool IsOperator(const std::string& word) {
    return word == "not" || word == "and" || word == "or" || word == "in" || word == "is" ||
           word == "if" || word == "else";
  }

  void Statement(const std::vector<llama::token>& tokens, size_t i) {
    if (i + 1 >= tokens.size() || tokens[i + 1].t != llama::token::identifier) return;
    const std::string& word = tokens[i + 1].value;
    if (word == "elif" && !statements_.empty()) {
      ++statements_.back().depth;
      ++depth_;
    } else if (word == "if" || word == "for" || word == "macro" || word == "call" ||
               word == "filter" || (word == "set" && !HasEquals(tokens, i))) {
      statements_.push_back({word, tokens[i + 1].pos, 1});
      ++depth_;
    } else if (word.compare(0, 3, "end") == 0 && word != "endgeneration") {
      if (statements_.empty()) Fail("'" + word + "' ends nothing", tokens[i + 1].pos);
      const OpenStatement& open = statements_.back();
      if (word.substr(3) != open.word) {
        Fail("'" + word + "' where 'end" + open.word + "' is expected", tokens[i + 1].pos);
      }
      depth_ -= open.depth;
      statements_.pop_back();
    }
  }

  static bool HasEquals(const std::vector<llama::token>& tokens, size_t i) {
    for (; i < tokens.size() && tokens[i].t != llama::token::close_statement; ++i) {
      if (tokens[i].t == llama::token::equals) return true;
    }
    return false;
  }

  struct OpenStatement {
    std::string word;
    size_t position;
    size_t depth;  // itself and its elifs, each of which the parser nests
  };
  std::vector<OpenStatement> statements_;
  size_t depth_ = 0;  // of all of them
  std::vector<size_t> brackets_ = {
      0};  // operators seen since the last comma, for each open bracket
};

template <typename Node>
const Node* As(const llama::statement_ptr& node) {
  return dynamic_cast<const Node*>(node.get());
}

// Copies llama.cpp's tree. Its nodes are told apart by dynamic_cast, which is too slow to do at
// every run.
class TreeCopy {
 public:
  std::vector<JinjaNode> Block(const llama::statements& statements) {
    std::vector<JinjaNode> block;
    for (const llama::statement_ptr& statement : statements) Statement(statement, &block);
    return block;
  }

 private:
  static JinjaNode Make(JinjaOp op, const llama::statement_ptr& from) {
    JinjaNode node;
    node.op = op;
    node.position = from->pos;
    return node;
  }

  static const std::string& NameOf(const llama::statement_ptr& node) {
    if (const auto* name = As<llama::identifier>(node)) return name->val;
    Fail("a name is expected here", node ? node->pos : std::string::npos);
  }

  JinjaNode Optional(const llama::statement_ptr& from) {
    return from ? Expression(from) : JinjaNode();
  }

  void Statement(const llama::statement_ptr& from, std::vector<JinjaNode>* block) {
    if (As<llama::comment_statement>(from) || As<llama::noop_statement>(from)) return;
    if (const auto* choice = As<llama::if_statement>(from)) {
      JinjaNode node = Make(JinjaOp::kIf, from);
      node.kids.push_back(Expression(choice->test));
      node.body = Block(choice->body);
      node.other = Block(choice->alternate);
      block->push_back(std::move(node));
    } else if (const auto* loop = As<llama::for_statement>(from)) {
      block->push_back(Loop(*loop, from));
    } else if (const auto* set = As<llama::set_statement>(from)) {
      block->push_back(Assignment(*set, from));
    } else if (const auto* macro = As<llama::macro_statement>(from)) {
      JinjaNode node = Make(JinjaOp::kMacro, from);
      node.text = NameOf(macro->name);
      node.other = Parameters(macro->args);
      node.body = Block(macro->body);
      block->push_back(std::move(node));
    } else if (const auto* call = As<llama::call_statement>(from)) {
      JinjaNode node = Make(JinjaOp::kCallBlock, from);
      node.kids.push_back(Expression(call->call));
      node.other = Parameters(call->caller_args);
      node.body = Block(call->body);
      block->push_back(std::move(node));
    } else if (const auto* filter = As<llama::filter_statement>(from)) {
      JinjaNode node = Make(JinjaOp::kFilterBlock, from);
      node.kids.push_back(Filter(filter->filter, JinjaNode()));
      node.body = Block(filter->body);
      block->push_back(std::move(node));
    } else if (As<llama::break_statement>(from)) {
      block->push_back(Make(JinjaOp::kBreak, from));
    } else if (As<llama::continue_statement>(from)) {
      block->push_back(Make(JinjaOp::kContinue, from));
    } else {
      JinjaNode node = Make(JinjaOp::kOutput, from);
      node.kids.push_back(Expression(from));
      block->push_back(std::move(node));
    }
  }

  static void Names(const llama::statement_ptr& from, JinjaNode* node) {
    if (const auto* tuple = As<llama::tuple_literal>(from)) {
      node->flag = true;
      for (const auto& item : tuple->val) node->names.push_back(NameOf(item));
    } else {
      node->names.push_back(NameOf(from));
    }
  }

  JinjaNode Loop(const llama::for_statement& loop, const llama::statement_ptr& from) {
    JinjaNode node = Make(JinjaOp::kFor, from);
    Names(loop.loopvar, &node);
    if (const auto* select = As<llama::select_expression>(loop.iterable)) {
      node.kids.push_back(Expression(select->lhs));
      node.kids.push_back(Expression(select->test));
    } else {
      node.kids.push_back(Expression(loop.iterable));
      node.kids.emplace_back();
    }
    node.body = Block(loop.body);
    node.other = Block(loop.default_block);
    return node;
  }

  JinjaNode Assignment(const llama::set_statement& set, const llama::statement_ptr& from) {
    JinjaNode node = Make(JinjaOp::kSet, from);
    node.kids.push_back(Optional(set.val));
    if (const auto* member = As<llama::member_expression>(set.assignee)) {
      if (member->computed) Fail("only names and attributes can be set", from->pos);
      node.text = NameOf(member->property);
      node.kids.push_back(Expression(member->object));
    } else {
      Names(set.assignee, &node);
    }
    node.body = Block(set.body);
    return node;
  }

  std::vector<JinjaNode> Parameters(const llama::statements& from) {
    std::vector<JinjaNode> parameters;
    for (const llama::statement_ptr& parameter : from) {
      const auto* named = As<llama::keyword_argument_expression>(parameter);
      JinjaNode node = Make(named ? JinjaOp::kNamed : JinjaOp::kName, parameter);
      node.text = NameOf(named ? named->key : parameter);
      if (named) node.kids.push_back(Expression(named->val));
      parameters.push_back(std::move(node));
    }
    return parameters;
  }

  void Arguments(const llama::statements& from, JinjaNode* node) {
    bool any_named = false;
    for (const llama::statement_ptr& argument : from) {
      if (const auto* named = As<llama::keyword_argument_expression>(argument)) {
        any_named = true;
        JinjaNode item = Make(JinjaOp::kNamed, argument);
        item.text = NameOf(named->key);
        item.kids.push_back(Expression(named->val));
        node->kids.push_back(std::move(item));
      } else {
        if (any_named) Fail("arguments by position come before named ones", argument->pos);
        node->kids.push_back(Expression(argument));
      }
    }
  }

  // The name and the arguments behind | or is.
  JinjaNode Filter(const llama::statement_ptr& from, JinjaNode operand,
                   JinjaOp op = JinjaOp::kFilter) {
    JinjaNode node = Make(op, from);
    node.kids.push_back(std::move(operand));
    if (const auto* call = As<llama::call_expression>(from)) {
      node.text = NameOf(call->callee);
      Arguments(call->args, &node);
    } else {
      node.text = NameOf(from);
    }
    return node;
  }

  static JinjaNode Constant(JinjaValue value, const llama::statement_ptr& from) {
    JinjaNode node = Make(JinjaOp::kConstant, from);
    node.constant = std::move(value);
    return node;
  }

  JinjaNode Items(JinjaOp op, const llama::statements& items, const llama::statement_ptr& from) {
    JinjaNode node = Make(op, from);
    for (const llama::statement_ptr& item : items) node.kids.push_back(Expression(item));
    return node;
  }

  JinjaNode Expression(const llama::statement_ptr& from) {
    if (!from) Fail("an expression is missing", std::string::npos);
    if (const auto* name = As<llama::identifier>(from)) return Name(*name, from);
    if (const auto* text = As<llama::string_literal>(from))
      return Constant(JinjaValue::Text(text->val), from);
    if (const auto* integer = As<llama::integer_literal>(from))
      return Constant(JinjaValue::Int(integer->val), from);
    if (const auto* number = As<llama::float_literal>(from))
      return Constant(JinjaValue::Float(number->val), from);
    if (const auto* member = As<llama::member_expression>(from)) return Member(*member, from);
    if (const auto* binary = As<llama::binary_expression>(from)) return Binary(*binary, from);
    if (const auto* call = As<llama::call_expression>(from)) {
      JinjaNode node = Make(JinjaOp::kCall, from);
      node.kids.push_back(Expression(call->callee));
      Arguments(call->args, &node);
      return node;
    }
    if (const auto* filter = As<llama::filter_expression>(from)) {
      return Filter(filter->filter, Expression(filter->operand));
    }
    if (const auto* test = As<llama::test_expression>(from)) {
      JinjaNode node = Filter(test->test, Expression(test->operand), JinjaOp::kTest);
      node.flag = test->negate;
      return node;
    }
    return RareExpression(from);
  }

  JinjaNode RareExpression(const llama::statement_ptr& from) {
    if (const auto* list = As<llama::array_literal>(from))
      return Items(JinjaOp::kList, list->val, from);
    if (const auto* tuple = As<llama::tuple_literal>(from))
      return Items(JinjaOp::kTuple, tuple->val, from);
    if (const auto* map = As<llama::object_literal>(from)) {
      JinjaNode node = Make(JinjaOp::kMap, from);
      for (const auto& [key, value] : map->val) {
        node.kids.push_back(Expression(key));
        node.kids.push_back(Expression(value));
      }
      return node;
    }
    if (const auto* unary = As<llama::unary_expression>(from)) {
      const std::string& op = unary->op.value;
      JinjaNode node = Make(op == "not" ? JinjaOp::kNot
                            : op == "-" ? JinjaOp::kNegative
                                        : JinjaOp::kPositive,
                            from);
      node.kids.push_back(Expression(unary->argument));
      return node;
    }
    if (const auto* either = As<llama::ternary_expression>(from)) {
      JinjaNode node = Make(JinjaOp::kEither, from);
      node.kids.push_back(Expression(either->condition));
      node.kids.push_back(Expression(either->true_expr));
      node.kids.push_back(Expression(either->false_expr));
      return node;
    }
    if (const auto* select = As<llama::select_expression>(from)) {
      JinjaNode node = Make(JinjaOp::kEither, from);
      node.kids.push_back(Expression(select->test));
      node.kids.push_back(Expression(select->lhs));
      node.kids.emplace_back();
      return node;
    }
    if (As<llama::blank_expression>(from)) return Make(JinjaOp::kBlank, from);
    Fail("this is not supported here: " + from->type(), from->pos);
  }

  static JinjaNode Name(const llama::identifier& name, const llama::statement_ptr& from) {
    const std::string& word = name.val;
    if (word == "true" || word == "True") return Constant(JinjaValue::Bool(true), from);
    if (word == "false" || word == "False") return Constant(JinjaValue::Bool(false), from);
    if (word == "none" || word == "None") return Constant(JinjaValue::None(), from);
    JinjaNode node = Make(JinjaOp::kName, from);
    node.text = word;
    return node;
  }

  JinjaNode Member(const llama::member_expression& member, const llama::statement_ptr& from) {
    JinjaNode object = Expression(member.object);
    if (const auto* slice = As<llama::slice_expression>(member.property)) {
      JinjaNode node = Make(JinjaOp::kSlice, from);
      node.kids.push_back(std::move(object));
      node.kids.push_back(Optional(slice->start_expr));
      node.kids.push_back(Optional(slice->stop_expr));
      node.kids.push_back(Optional(slice->step_expr));
      return node;
    }
    const bool by_name = !member.computed && As<llama::identifier>(member.property);
    JinjaNode node = Make(by_name ? JinjaOp::kAttribute : JinjaOp::kIndex, from);
    node.kids.push_back(std::move(object));
    if (by_name) {
      node.text = NameOf(member.property);
    } else {
      node.kids.push_back(Expression(member.property));
    }
    return node;
  }

  JinjaNode Binary(const llama::binary_expression& binary, const llama::statement_ptr& from) {
    static const std::vector<std::pair<std::string, JinjaOp>> kOperators = {
        {"and", JinjaOp::kAnd},         {"or", JinjaOp::kOr},        {"in", JinjaOp::kIn},
        {"not in", JinjaOp::kIn},       {"==", JinjaOp::kEqual},     {"!=", JinjaOp::kNotEqual},
        {"<", JinjaOp::kLess},          {"<=", JinjaOp::kLessEqual}, {">", JinjaOp::kGreater},
        {">=", JinjaOp::kGreaterEqual}, {"+", JinjaOp::kAdd},        {"-", JinjaOp::kSubtract},
        {"*", JinjaOp::kMultiply},      {"/", JinjaOp::kDivide},     {"%", JinjaOp::kRemainder},
        {"~", JinjaOp::kJoin}};
    for (const auto& [word, op] : kOperators) {
      if (binary.op.value != word) continue;
      JinjaNode node = Make(op, from);
      node.flag = word == "not in";
      node.kids.push_back(Expression(binary.left));
      node.kids.push_back(Expression(binary.right));
      return node;
    }
    Fail("unknown operator '" + binary.op.value + "'", from->pos);
  }
};

std::string FirstLine(const std::exception& error) {
  std::string text = error.what();
  text = text.substr(0, text.find('\n'));
  for (const char* prefix : {"lexer: ", "parser: ", "Parser Error: "}) {
    if (text.rfind(prefix, 0) == 0) text = text.substr(std::char_traits<char>::length(prefix));
  }
  return text.substr(0, text.find(" of type "));
}

// llama.cpp's errors do not say where they are. The fault lies at the end of the shortest part that
// fails alike.
size_t ShortestFailing(size_t length, const std::string& message,
                       const std::function<void(size_t)>& attempt) {
  size_t good = 0;
  size_t bad = length;
  while (good + 1 < bad) {
    const size_t middle = (good + bad) / 2;
    bool same = false;
    try {
      attempt(middle);
    } catch (const std::exception& error) {
      same = FirstLine(error) == message;
    }
    (same ? bad : good) = middle;
  }
  return bad;
}

llama::lexer_result Tokenize(const std::string& source) {
  try {
    return llama::lexer().tokenize(source);
  } catch (const std::exception& error) {
    const std::string message = FirstLine(error);
    const size_t end = ShortestFailing(source.size(), message, [&](size_t length) {
      llama::lexer().tokenize(source.substr(0, length));
    });
    Fail(message, end == 0 ? 0 : end - 1);
  }
}

llama::program ParseTokens(const llama::lexer_result& tokens) {
  try {
    return llama::parse_from_tokens(tokens);
  } catch (const std::exception& error) {
    const std::string message = FirstLine(error);
    const size_t end = ShortestFailing(tokens.tokens.size(), message, [&](size_t length) {
      llama::lexer_result part = tokens;
      part.tokens.resize(length);
      llama::parse_from_tokens(part);
    });
    Fail(message, end == 0 ? 0 : tokens.tokens[end - 1].pos);
  }
}

// llama.cpp's lexer does this too, but in quadratic time.
std::string WithUnixLineEnds(const std::string& source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      text += source[i];
    } else if (i + 1 >= source.size() || source[i + 1] != '\n') {
      text += '\n';
    }
  }
  return text;
}

}  // namespace

JinjaProgram JinjaProgram::Parse(std::string source) {
  if (source.size() > kMaxSourceBytes) {
    throw JinjaFault{"template", "the template is larger than 1 MiB", 0};
  }
  JinjaProgram program;
  program.source_ = WithUnixLineEnds(source);
  const llama::lexer_result tokens = Tokenize(program.source_);
  NestingCheck().Run(tokens.tokens);
  program.is_constant_ =
      std::all_of(tokens.tokens.begin(), tokens.tokens.end(),
                  [](const llama::token& token) { return token.t == llama::token::text; });
  const llama::program tree = ParseTokens(tokens);
  program.body_ = TreeCopy().Block(tree.body);
  return program;
}

}  // namespace halo
