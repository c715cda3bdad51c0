#pragma once
// What a sampler wants to know of one row of logits [n]. One or two passes that vectorise (row_scans.h); no sort of the
// vocabulary. Ties go to the lowest id.

#include <cstdint>
#include <vector>

namespace tinyserve {

struct Candidate {
  float value = 0;
  int32_t id = 0;
};
/// Larger first, of equal ones the lower id.
inline bool better(const Candidate& a, const Candidate& b) {
  return a.value > b.value || (a.value == b.value && a.id < b.id);
}

/// The largest and its id; id -1 when there is a NaN or nothing finite to pick (all -inf, or +inf).
Candidate argmax(const float* x, int32_t n);

/// The k best (k <= n; all when fewer), best first. Expected O(n + k log k): a threshold rises as better ones turn up.
void select_top(const float* x, int32_t n, int32_t k, std::vector<Candidate>& out);

/// log(sum(exp(x[i]))), given the maximum.
double log_sum_exp(const float* x, int32_t n, float max);

/// exp((x[i] - max) / temperature) of a row, relative error below 3e-7, exactly 0 for -inf; and what is left of it
/// after cuts. Not normalised. Memory is kept from row to row.
class TokenWeights {
 public:
  explicit TokenWeights(int32_t n);

  void assign(const float* x, float max, float temperature);
  double total() const { return total_; }
  float operator[](int32_t id) const { return weights_[id]; }

  /// Drops all below `floor` (the largest weight is 1).
  void keep_from(float floor);
  /// Keeps the fewest best that together reach `share` (0..1) of the total.
  void keep_share(double share);
  /// The id at which the cumulative weight, in order of ids, passes u * total(). u in [0, 1).
  int32_t at(double u) const;

 private:
  Candidate find_last_kept(double wanted);
  void cut(const Candidate& last);

  int32_t n_;
  std::vector<float> weights_;
  std::vector<double> block_sums_;
  double total_ = 0;
  std::vector<double> histogram_;
  std::vector<Candidate> bin_;
};

}  // namespace tinyserve
