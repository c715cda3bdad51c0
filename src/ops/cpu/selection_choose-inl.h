// Choosing by keys: thresholds from a histogram, then one pass. Included inside the namespace of each instruction set, after its
// compare(): bits of the 16 keys that are above, and equal to, a threshold.

// The best `count` of the keys: those above `key`, and of those that equal it the first `at_it`.
struct Threshold {
  int32_t key = kNumKeys, at_it = 0;
};

class Histogram {
 public:
  Histogram(const uint16_t* keys, int64_t n) {
    // Several, or an increment waits for the one before.
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
      ++counts_[0][keys[i]];
      ++counts_[1][keys[i + 1]];
      ++counts_[2][keys[i + 2]];
      ++counts_[3][keys[i + 3]];
    }
    for (; i < n; ++i) ++counts_[0][keys[i]];
  }
  Threshold best(int64_t count) const {
    if (count <= 0) return {};
    int32_t key = kNumKeys - 1;
    for (;; --key) {
      const int32_t here = counts_[0][key] + counts_[1][key] + counts_[2][key] + counts_[3][key];
      if (count <= here || key == 0) return {key, static_cast<int32_t>(count < here ? count : here)};
      count -= here;
    }
  }
  // The fewest of the best, `most` at most, that have the share top_p of all and of `elsewhere`.
  int64_t fewest(float top_p, float elsewhere, int64_t most) const {
    constexpr double kFalls = 0.96923323447634408;  // exp(-1/32)
    const auto count_of = [&](int32_t key) {
      return counts_[0][key] + counts_[1][key] + counts_[2][key] + counts_[3][key];
    };
    double left = elsewhere, weight = 1;
    for (int32_t key = kNumKeys - 1; key >= 0; --key, weight *= kFalls) left += weight * count_of(key);
    left *= top_p;
    weight = 1;
    int64_t count = 0;
    for (int32_t key = kNumKeys - 1; key >= 0 && left > 0 && count < most; --key, weight *= kFalls) {
      const int32_t here = count_of(key);
      const double wanted = std::ceil(left / weight);
      count += wanted < here ? static_cast<int64_t>(wanted) : here;
      left -= weight * here;
    }
    return std::min(count, most);
  }

 private:
  int32_t counts_[4][kNumKeys] = {};
};

// The first `left` of the bits; counts them off.
TS_INLINE uint32_t first_of(uint32_t bits, int32_t& left) {
  const int32_t count = __builtin_popcount(bits);
  if (count <= left) {
    left -= count;
    return bits;
  }
  uint32_t taken = 0;
  for (; left > 0; --left, bits &= bits - 1) taken |= bits & -bits;
  return taken;
}

// The largest key that at least `count` of n keys reach.
int32_t reached_by(const uint16_t* keys, int64_t n, int64_t count) { return Histogram(keys, n).best(count).key; }

int32_t choose_pages(const uint16_t* keys, int32_t pages, int32_t least, int32_t* chosen) {
  int32_t found = 0;
  for (int32_t p = 0; p < pages; p += 16) {
    uint32_t above, equal;
    compare(keys + p, least, &above, &equal);
    const uint32_t there = pages - p >= 16 ? 0xFFFF : (1u << (pages - p)) - 1;
    append(chosen, found, p, (above | equal) & there);
  }
  return found;
}

// Every kSampled-th page's keys are sampled; below so many pages, or when a large part of the tokens is wanted, all are counted.
constexpr int32_t kSampled = 16, kLeastPages = 16 * kSampled;

// Thresholds of the best to.exact and of the best to.exact + to.coded. Counting all keys takes longer than all the rest: a sample says
// above which key the wanted ones surely lie, and these are counted.
void find_thresholds(const uint16_t* keys, int32_t pages, const ChosenTokens& to, Threshold& exact, Threshold& read) {
  const int64_t n = int64_t{pages} * kCodePage, wanted = int64_t{to.exact} + to.coded;
  if (to.top_p <= 0 && pages >= kLeastPages && wanted <= n / 8) {
    int64_t sampled = 0;
    for (int32_t p = 0; p < pages; p += kSampled, sampled += kCodePage)
      std::copy_n(keys + int64_t{p} * kCodePage, kCodePage, to.scratch + sampled);
    const int32_t least = Histogram(to.scratch, sampled).best((wanted + wanted / 2) / kSampled + 32).key;
    const int64_t found = collect(keys, n, least, to.scratch);
    if (found >= wanted) {
      const Histogram histogram(to.scratch, found);
      exact = histogram.best(to.exact), read = histogram.best(wanted);
      return;
    }
  }
  const Histogram histogram(keys, n);
  const int64_t count = to.top_p > 0 ? histogram.fewest(to.top_p, to.elsewhere, to.exact) : to.exact;
  exact = histogram.best(count), read = histogram.best(count + to.coded);
}

// In two passes over what is ever less, without branches on what the keys are.
void choose_tokens(const uint16_t* keys, int32_t pages, const ChosenTokens& to) {
  Threshold exact, read;
  find_thresholds(keys, pages, to, exact, read);
  int32_t num_exact = 0, num_coded = 0, touched = 0;
  for (int32_t p = 0; p < pages; ++p) {
    uint32_t above, equal;
    compare(keys + p * kCodePage, read.key, &above, &equal);
    const uint32_t any = above | first_of(equal, read.at_it);
    to.left[p] = static_cast<uint16_t>(~any);
    to.touched[touched] = p;
    touched += any != 0;
  }
  for (int32_t i = 0; i < touched; ++i) {
    const int32_t p = to.touched[i];
    uint32_t above, equal;
    compare(keys + p * kCodePage, exact.key, &above, &equal);
    const uint32_t any = static_cast<uint16_t>(~to.left[p]), whole = above | first_of(equal, exact.at_it);
    append(to.exact_tokens, num_exact, p * kCodePage, whole);
    append(to.coded_tokens, num_coded, p * kCodePage, any & ~whole);
  }
  *to.num_exact = num_exact;
  *to.num_coded = num_coded;
  *to.num_touched = touched;
}
