#include "eval/eval_text.h"

#include "base/error.h"
#include "base/mapped_file.h"

namespace tinyserve::eval {

EvalText load_eval_text(const Tokenizer& tokenizer, std::span<const std::string> files) {
  EvalText text;
  for (const std::string& file : files) {
    const std::vector<int32_t> ids = tokenizer.encode(read_text_file(file), false, false);
    text.tokens.insert(text.tokens.end(), ids.begin(), ids.end());
  }
  if (text.tokens.empty()) throw InputError("there is no text to measure on; name a file with --text");
  const std::vector<int32_t> bare = tokenizer.encode("a", false, false), whole = tokenizer.encode("a", true, false);
  if (whole.size() > bare.size() && tokenizer.bos_id() == whole.front()) text.bos = whole.front();
  return text;
}

}  // namespace tinyserve::eval
