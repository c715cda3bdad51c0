#include "ops/cpu/isa.h"

#include <hwy/highway.h>
#include <hwy/targets.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/error.h"

namespace tinyserve::ops::cpu {
namespace {

bool has_avx512_bf16() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5));
#else
  return false;
#endif
}

int64_t targets_up_to(Isa isa) { return HWY_AVX2 | (isa >= Isa::kAvx512 ? HWY_AVX3 : 0); }

}  // namespace

Isa detect_isa() {
  const int64_t targets = hwy::SupportedTargets();  // looks at the operating system's support too
  if (targets & HWY_AVX3) return has_avx512_bf16() ? Isa::kAvx512Bf16 : Isa::kAvx512;
  if (targets & HWY_AVX2) return Isa::kAvx2;
  throw InputError("this processor has no AVX2, which the cpu backend needs; --backend ref runs anywhere, slowly");
}

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx2: return "AVX2";
    case Isa::kAvx512: return "AVX-512";
    case Isa::kAvx512Bf16: return "AVX-512 BF16";
  }
  return "?";
}

ScopedIsa::ScopedIsa(Isa isa) { hwy::GetChosenTarget().Update(hwy::SupportedTargets() & targets_up_to(isa)); }

ScopedIsa::~ScopedIsa() { hwy::GetChosenTarget().DeInit(); }

}  // namespace tinyserve::ops::cpu
