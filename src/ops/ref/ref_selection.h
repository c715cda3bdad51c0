#pragma once
// Query-aware selection in plain loops: the oracle of the two operations, and what a backend on host memory may call until it
// has its own.

#include "ops/ops.h"

namespace tinyserve::ops::ref {

void encode_pages(const EncodeArgs& args);
void sparse_attention(const SparseAttentionArgs& args, const BatchLayout& batch);

}  // namespace tinyserve::ops::ref
