#include "server/model_backend.h"

#include <algorithm>

namespace tinyserve {

ModelText::ModelText(const Tokenizer& tokenizer, const ChatTemplate* chat_template)
    : tokenizer_(tokenizer), chat_template_(chat_template ? chat_template : &no_template_) {
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id)
    longest_token_bytes_ = std::max(longest_token_bytes_, static_cast<int32_t>(tokenizer.token_bytes(id).size()));
}

}  // namespace tinyserve
