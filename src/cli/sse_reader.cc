#include "cli/sse_reader.h"

namespace tinyserve::cli {

void SseReader::feed(std::string_view piece) {
  for (;;) {
    const size_t end = piece.find('\n');
    if (end == std::string_view::npos) break;
    if (pending_.empty()) {
      line(piece.substr(0, end));
    } else {
      pending_ += piece.substr(0, end);
      line(pending_);
      pending_.clear();
    }
    piece.remove_prefix(end + 1);
  }
  pending_ += piece;
}

void SseReader::line(std::string_view text) {
  if (text.ends_with('\r')) text.remove_suffix(1);
  if (text.empty()) {
    if (!data_.empty()) on_data_(data_);
    data_.clear();
    return;
  }
  constexpr std::string_view kData = "data:";
  if (!text.starts_with(kData)) return;
  text.remove_prefix(kData.size());
  if (text.starts_with(' ')) text.remove_prefix(1);
  if (!data_.empty()) data_ += '\n';
  data_ += text;
}

}  // namespace tinyserve::cli
