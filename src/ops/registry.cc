#include <string>

#include "base/error.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/ops.h"
#include "ops/ref/ref_ops.h"
#ifdef TINYSERVE_CUDA
#include "ops/cuda/cuda_ops.h"
#endif

namespace tinyserve::ops {
namespace {

struct Backend {
  std::string_view name;
  std::unique_ptr<Ops> (*make)(ThreadPool&, const OpsOptions&);
};

constexpr Backend kBackends[] = {
    {"cpu", make_cpu_ops},
    {"ref", make_ref_ops},
#ifdef TINYSERVE_CUDA
    {"cuda", make_cuda_ops},
#endif
};

}  // namespace

std::unique_ptr<Ops> make_ops(std::string_view backend, ThreadPool& pool, const OpsOptions& options) {
  std::string names;
  for (const Backend& b : kBackends) {
    if (b.name == backend) return b.make(pool, options);
    names += (names.empty() ? "" : ", ") + std::string(b.name);
  }
  throw InputError("no backend is called '" + std::string(backend) + "'; there are: " + names);
}

}  // namespace tinyserve::ops
