#pragma once
// The tree of a parsed template. Nodes are plain data; the interpreter switches over their type.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace tinyserve::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;
struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct CallArgs {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> keyword;
  ExprPtr star;         ///< *args, may be null
  ExprPtr double_star;  ///< **kwargs, may be null
};

enum class ExprType : uint8_t {
  kConst,      // value
  kName,       // name
  kList,       // children
  kTuple,      // children
  kDict,       // children: key, value, key, value...
  kNot,        // children[0]
  kNegative,   // children[0]
  kPositive,   // children[0]
  kAnd,        // children[0], children[1]
  kOr,         // children[0], children[1]
  kBinary,     // op, children[0], children[1]
  kConcat,     // children
  kCompare,    // children[0], then ops[i] children[i + 1]
  kCondition,  // children: test, then, else (null when absent)
  kAttribute,  // children[0] . name
  kItem,       // children[0] [ children[1] ]
  kSlice,      // children[0] [ children[1] : children[2] : children[3] ], the last three may be null
  kCall,       // children[0] ( args )
  kFilter,     // children[0] | name ( args ); children[0] is null for the body of a block
  kTest,       // children[0] is name ( args )
};

enum class Operator : uint8_t {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kIn,
  kNotIn,
};

struct FilterEntry;
struct TestEntry;

struct Expr {
  ExprType type;
  int line;
  int depth = 1;  ///< 1 + the deepest child
  std::string name;
  Value value;
  Operator op{};
  std::vector<Operator> ops;
  std::vector<ExprPtr> children;
  CallArgs args;
  const FilterEntry* filter = nullptr;  ///< kFilter: found while parsing, so that a misspelt name fails at load
  const TestEntry* test = nullptr;      ///< kTest
};

/// What an assignment writes to.
struct Target {
  enum Type : uint8_t { kName, kTuple, kNamespace } type = kName;
  int line = 0;
  std::string name;
  std::string attribute;      ///< kNamespace: name.attribute
  std::vector<Target> items;  ///< kTuple
};

struct Parameter {
  std::string name;
  ExprPtr default_value;  ///< may be null
};

/// A macro, or the body of a call block.
struct MacroDefinition {
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  bool uses_varargs = false, uses_kwargs = false, uses_caller = false;
};

enum class StatementType : uint8_t {
  kText,         // text
  kPrint,        // exprs
  kIf,           // branches, orelse
  kFor,          // target, exprs[0] = items, exprs[1] = filter or null, body, orelse
  kSet,          // target, exprs[0]
  kSetBlock,     // target, exprs[0] = filters or null, body
  kMacro,        // macro
  kCallBlock,    // exprs[0] = the call, macro = the body
  kFilterBlock,  // exprs[0] = filters, body
  kWith,         // targets, exprs, body
  kScope,        // body in a scope of its own ({% generation %})
  kBreak,
  kContinue,
};

struct Statement {
  StatementType type;
  int line;
  std::string text;
  Target target;
  std::vector<Target> targets;
  std::vector<ExprPtr> exprs;
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body body, orelse;
  std::unique_ptr<MacroDefinition> macro;
  bool uses_loop = false;  ///< kFor: the body names `loop`
  bool recursive = false;  ///< kFor
};

}  // namespace tinyserve::jinja
