#include "text/incremental_decoder.h"

namespace tinyserve {
namespace {
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
}  // namespace

void IncrementalDecoder::push_byte(uint8_t byte, std::string& out) {
  if (num_missing_) {
    if (byte >= low_ && byte <= high_) {
      pending_[num_pending_++] = static_cast<char>(byte);
      low_ = 0x80, high_ = 0xBF;
      if (--num_missing_ == 0) {
        out.append(pending_, num_pending_);
        num_pending_ = 0;
      }
      return;
    }
    // What waited is a maximal subpart; this byte starts anew.
    out += kReplacement;
    num_pending_ = num_missing_ = 0;
  }
  if (byte < 0x80) {
    out += static_cast<char>(byte);
    return;
  }
  // Table 3-7 of the Unicode standard: well-formed byte sequences. The second byte's range excludes overlong forms,
  // surrogates and code points past U+10FFFF.
  low_ = 0x80, high_ = 0xBF;
  if (byte >= 0xC2 && byte <= 0xDF) {
    num_missing_ = 1;
  } else if (byte >= 0xE0 && byte <= 0xEF) {
    num_missing_ = 2;
    if (byte == 0xE0) low_ = 0xA0;
    if (byte == 0xED) high_ = 0x9F;
  } else if (byte >= 0xF0 && byte <= 0xF4) {
    num_missing_ = 3;
    if (byte == 0xF0) low_ = 0x90;
    if (byte == 0xF4) high_ = 0x8F;
  } else {
    out += kReplacement;
    return;
  }
  pending_[num_pending_++] = static_cast<char>(byte);
}

void IncrementalDecoder::push(std::string_view piece, std::string& out) {
  if (strip_space_ && !piece.empty()) {
    strip_space_ = false;
    if (piece.front() == ' ') piece.remove_prefix(1);
  }
  for (const char c : piece) push_byte(static_cast<uint8_t>(c), out);
}

std::string IncrementalDecoder::push(std::string_view piece) {
  std::string out;
  push(piece, out);
  return out;
}

void IncrementalDecoder::flush(std::string& out) {
  if (num_missing_) out += kReplacement;
  num_pending_ = num_missing_ = 0;
  strip_space_ = false;
}

std::string IncrementalDecoder::flush() {
  std::string out;
  flush(out);
  return out;
}

}  // namespace tinyserve
