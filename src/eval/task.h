#pragma once
// Long contexts with something to find in them, and questions that a model answers only if it finds it.

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "eval/eval_text.h"
#include "text/tokenizer.h"

namespace tinyserve::eval {

enum class TaskKind {
  kNeedle,       ///< one fact (a seven-digit number of two words) somewhere in running text
  kMultiNeedle,  ///< sixteen such facts, spread evenly; one is asked for
  kPasskey,      ///< a five-digit pass key in sentences that repeat
  kRecall,       ///< running text, then a table of words and seven-digit numbers; one row is asked for
  kText,         ///< running text that goes on: no fact, every token of the continuation is scored
};

/// Tokens [begin, end) of a question.
struct TokenSpan {
  int32_t begin = 0, end = 0;
};

/// What follows the context: the question together with its right answer.
struct TaskQuestion {
  std::vector<int32_t> tokens;
  TokenSpan answer;
};

/// One context and the questions that can be asked of it. The context's K and V serve them all.
struct Task {
  std::vector<int32_t> context;
  std::vector<TaskQuestion> questions;  ///< the longest ends at the wanted length
};

/// Makes tasks. The i-th task of a kind and a length depends on the seed and on i alone, not on what was made before.
class TaskMaker {
 public:
  /// Questions that one context can be asked at most.
  static int32_t questions_of(TaskKind kind);

  /// Both outlive it. `decode_tokens`: of kText, the tokens that are scored.
  TaskMaker(const Tokenizer& tokenizer, const EvalText& text, uint64_t seed, int32_t decode_tokens);

  /// `length` tokens in all, `questions` of them asked (of kNeedle, kPasskey and kText one). Throws InputError: a text or a
  /// length that is too short, a tokenizer without words to draw keys from.
  Task make(TaskKind kind, int32_t length, int64_t index, int32_t questions) const;

 private:
  class Draft;

  const Tokenizer& tokenizer_;
  const EvalText& text_;
  uint64_t seed_;
  int32_t decode_tokens_;
  std::vector<std::string> words_;
};

/// The tokens of `text` inside a longer text: without BOS, and without the space that some tokenizers begin every text with.
std::vector<int32_t> encode_inside(const Tokenizer& tokenizer, std::string_view text);

/// `text` with the tokens that `answer`, its last occurrence in it, is made of. Throws InputError when the tokens do not say
/// `answer`.
TaskQuestion make_question(const Tokenizer& tokenizer, std::string_view text, std::string_view answer);

}  // namespace tinyserve::eval
