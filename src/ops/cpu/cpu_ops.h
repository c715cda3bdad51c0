#pragma once
#include "ops/cpu/isa.h"
#include "ops/ops.h"

namespace tinyserve::ops {

/// SIMD kernels for this machine's instruction set, chosen at start-up (AVX2 up), on the threads of `pool`.
std::unique_ptr<Ops> make_cpu_ops(ThreadPool& pool, const OpsOptions& options);

/// The same, using nothing above `isa`; the tests run each level the machine has. linear() chooses its own.
std::unique_ptr<Ops> make_cpu_ops(ThreadPool& pool, const OpsOptions& options, cpu::Isa isa);

}  // namespace tinyserve::ops
