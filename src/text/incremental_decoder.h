#pragma once
// Turns the bytes of tokens, one token at a time, into text that is valid UTF-8 at every step.
//
// A token of a byte-level or byte-fallback vocabulary may end inside a character; its bytes then wait for the next
// token. Bytes that can never become a character are replaced by U+FFFD, one for each maximal subpart (Unicode 15,
// section 3.9, "U+FFFD Substitution of Maximal Subparts"), which is what bytes.decode(errors="replace") of Python does.
// The concatenation of all deltas equals the decoding of all bytes at once, however they were split.

#include <cstdint>
#include <string>
#include <string_view>

namespace tinyserve {

class IncrementalDecoder {
 public:
  /// strip_leading_space: drop one space at the very start, which SentencePiece vocabularies put before the first word
  /// (pass Tokenizer::strips_leading_space()). Pass false when decoding goes on after text that was shown before.
  explicit IncrementalDecoder(bool strip_leading_space = false) : strip_space_(strip_leading_space) {}

  /// Appends to `out` the text that is complete with the bytes of one more token. O(bytes of the piece).
  void push(std::string_view piece, std::string& out);
  std::string push(std::string_view piece);

  /// At the end of the answer: what waited becomes U+FFFD. The decoder is then as new, but strips no more space.
  void flush(std::string& out);
  std::string flush();

  /// Bytes that wait for the rest of their character: 0 to 3.
  int num_pending() const { return num_pending_; }

 private:
  void push_byte(uint8_t byte, std::string& out);

  bool strip_space_;
  uint8_t num_pending_ = 0, num_missing_ = 0;
  uint8_t low_ = 0x80, high_ = 0xBF;  ///< range of the next continuation byte
  char pending_[4] = {};
};

}  // namespace tinyserve
