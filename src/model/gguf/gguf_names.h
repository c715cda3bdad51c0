#pragma once
// A GGUF file's tensors by the names, and in the order of rows, that checkpoints of their family have.

#include <cstdint>
#include <string>
#include <string_view>

#include "model/gguf/gguf_file.h"

namespace tinyserve {

/// What `tensor` ("blk.3.attn_q.weight") is called in a checkpoint of the architecture
/// ("model.layers.3.self_attn.q_proj.weight"); its own name where the family has no such tensor.
std::string checkpoint_name(std::string_view architecture, std::string_view tensor);

/// Llama's q and k have their rows in another order here: pairs that rotate together are neighbours within a head,
/// while checkpoints have one half of the head after the other. The number of heads whose rows to put back; 0: none.
int64_t interleaved_heads(const GgufMetadata& metadata, std::string_view tensor);

}  // namespace tinyserve
