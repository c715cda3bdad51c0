#pragma once
// How audits of sparse attention draw (step 5 of SparseAttentionArgs in ops.h). One header for all backends.

#include <cstdint>

namespace tinyserve::ops {

/// The share of draws in which all are alike, whatever they are thought to weigh: it bounds what one draw can say.
constexpr double kAuditEqual = 0.1;

/// The numbers in (0, 1) by which one KV head draws its page and its token: those below kAuditEqual fall on all alike,
/// in order, the others on weights, in order.
struct AuditNumbers {
  double page = 0, token = 0;
};
constexpr AuditNumbers audit_numbers(uint64_t bits, int32_t kv_head) {
  uint64_t z = bits + 0x9e3779b97f4a7c15ull * (static_cast<uint64_t>(kv_head) + 1);  // splitmix64, twice mixed
  for (int i = 0; i < 2; ++i) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
  }
  return {(static_cast<double>(z >> 32) + 0.5) * 0x1p-32, (static_cast<double>(z & 0xFFFFFFFF) + 0.5) * 0x1p-32};
}

}  // namespace tinyserve::ops
