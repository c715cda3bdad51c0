#pragma once
#include "ops/ops.h"

namespace tinyserve::ops {

/// Kernels for one NVIDIA GPU (compute capability 8.0 up), one stream, all memory from allocate(). Throws InputError
/// when there is no usable GPU. The pool is not used.
std::unique_ptr<Ops> make_cuda_ops(ThreadPool& pool, const OpsOptions& options);

}  // namespace tinyserve::ops
