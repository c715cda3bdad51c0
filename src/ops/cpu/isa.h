#pragma once
// Which instruction set the kernels of one backend instance use. Everything but AVX-512 BF16 comes from Highway's
// targets; Debian 12's Highway (1.0.3) knows no BF16 dot product, so those kernels are written apart and chosen here.

#include <cstdint>
#include <string_view>

namespace tinyserve::ops::cpu {

/// Ordered: a machine that runs one runs all before it.
enum class Isa : uint8_t { kAvx2, kAvx512, kAvx512Bf16 };

/// The best this machine and its operating system offer. Throws InputError on a machine without AVX2.
Isa detect_isa();
std::string_view isa_name(Isa isa);  ///< "AVX2", "AVX-512 BF16", ...

/// Within its lifetime, Highway's dispatch offers nothing above `isa`; kernels' addresses are taken under it. Touches
/// process-wide state: construct backends on one thread at a time.
class ScopedIsa {
 public:
  explicit ScopedIsa(Isa isa);
  ~ScopedIsa();
  ScopedIsa(const ScopedIsa&) = delete;
  ScopedIsa& operator=(const ScopedIsa&) = delete;
};

}  // namespace tinyserve::ops::cpu
