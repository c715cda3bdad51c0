#pragma once
#include "ops/ops.h"

namespace tinyserve::ops {

/// Plain loops in F32 with F64 sums, one thread: the oracle for every other backend. Rounds weights to their format and
/// K/V to the cache's dtype, and nothing else.
std::unique_ptr<Ops> make_ref_ops(ThreadPool& pool, const OpsOptions& options);

}  // namespace tinyserve::ops
