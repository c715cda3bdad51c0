#pragma once
// tokenizer.model: a SentencePiece model (unigram or BPE), run by libsentencepiece, which is the reference for it.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/token_model.h"

namespace tinyserve {

struct SentencePieceFile {
  std::unique_ptr<TokenModel> model;
  int32_t unk_id = -1, bos_id = -1, eos_id = -1, pad_id = -1;  ///< -1: none
  std::vector<int32_t> control_ids;                             ///< never made from text: <s>, </s>, ...
  bool add_dummy_prefix = true;                                 ///< a space before the text, left out when decoding
  std::string unknown_surface;                                  ///< what the unknown token decodes to
};

/// `proto` is the file's content, `where` its name in messages. Throws InputError when it is not a usable model.
SentencePieceFile load_sentencepiece(std::string_view proto, std::string_view where);

}  // namespace tinyserve
