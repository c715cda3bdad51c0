// A tokenizer.json from anywhere, and a text to encode with it. The input is the file, a NUL byte, and the text.
//
// Beyond crashes: decoding gives valid UTF-8, every id is in the vocabulary, and loading and encoding end soon.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t nul = input.find('\0');
  const std::string_view json = input.substr(0, nul);
  const std::string_view text = nul == input.npos ? json : input.substr(nul + 1);
  try {
    const auto tokenizer = tinyserve::Tokenizer::from_json(json, "tokenizer.json");
    for (const bool parse_special : {false, true}) {
      const auto ids = tokenizer->encode(text, true, parse_special);
      for (int32_t id : ids) {
        require(id >= 0 && id < tokenizer->vocab_size());
        tokenizer->token_bytes(id);
        tokenizer->first_token_bytes(id);
        tokenizer->is_special(id);
      }
      require(tinyserve::unicode::is_valid_utf8(tokenizer->decode(ids, parse_special)));
    }
    tokenizer->strips_leading_space();
  } catch (const tinyserve::InputError&) {
  }
  return 0;
}
