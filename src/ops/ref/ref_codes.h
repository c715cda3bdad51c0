#pragma once
// Codes of one page and KV head (selection_layout.h), written and read one token and channel at a time.

#include "ops/selection_layout.h"
#include "tensor/dtype.h"

namespace tinyserve::ops::ref {

/// u: [16 tokens, head_dim axes]. Writes all of the page's coarse and fine bytes.
void write_key_codes(const HeadBits& bits, int32_t head_dim, const float* u, uint8_t* coarse, uint8_t* fine);
/// levels: [16 tokens, head_dim axes] in units of kLevelStep, 0 for axes without bits. `fine` null: the coarse grade.
void read_key_codes(const HeadBits& bits, int32_t head_dim, const uint8_t* coarse, const uint8_t* fine, int8_t* levels);

/// mean: [head_dim].
void write_mean(int32_t head_dim, const float* mean, uint8_t* to);
void read_mean(int32_t head_dim, const uint8_t* from, float* mean);

/// One token's value [head_dim] as head_dim / 16 words.
void write_value(int32_t head_dim, const float* value, uint64_t* to);
void read_value(int32_t head_dim, const uint64_t* from, float* value);

}  // namespace tinyserve::ops::ref
