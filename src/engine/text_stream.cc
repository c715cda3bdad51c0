#include "engine/text_stream.h"

#include "engine/request.h"

namespace tinyserve {

TextStream::TextStream(const TokenText& tokens, const SamplingParams& params, std::shared_ptr<const StopSet> stops)
    : tokens_(&tokens),
      skip_special_(params.skip_special_tokens),
      matcher_(std::move(stops), params.include_stop_in_output) {}

const std::string* TextStream::add(int32_t token, bool match_stops) {
  if (skip_special_ && tokens_->is_special(token)) return nullptr;
  if (!match_stops) {
    decoder_.push(tokens_->token_bytes(token), ready_);
    return nullptr;
  }
  matcher_.push(decoder_.push(tokens_->token_bytes(token)), ready_);
  return matcher_.matched();
}

void TextStream::finish() {
  if (matcher_.stopped()) return;
  matcher_.flush(ready_);
  decoder_.flush(ready_);
}

}  // namespace tinyserve
