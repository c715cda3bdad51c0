// What ops_test.cc cannot say by comparing backends: the codes, their layout, and sparse attention against dense and against a
// simulation in F64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/thread_pool.h"
#include "ops/ops_cases.h"
#include "ops/ref/ref_codes.h"

namespace tinyserve::ops {
namespace {

TEST(SelectionCodes, AreNestedAndAsGoodAsTheySay) {
  double error2 = 0, error4 = 0, mass = 0;
  int32_t before = 0;
  for (int32_t i = -6000; i <= 6000; ++i) {
    const float u = static_cast<float>(i) / 1000 + 0.0005f;
    const int32_t code = code_of(u);
    EXPECT_GE(code, before);  // ascending with u
    before = code;
    EXPECT_EQ(code, 15 - code_of(-u));
    EXPECT_EQ(code >> 2, (u > 0 ? 2 : 1) + (std::abs(u) > 0.92f ? (u > 0 ? 1 : -1) : 0));
    const double p = std::exp(-double{u} * u / 2);
    mass += p;
    error2 += p * std::pow(u - kLevels2[code >> 2] * double{kLevelStep}, 2);
    error4 += p * std::pow(u - kLevels4[code] * double{kLevelStep}, 2);
  }
  EXPECT_NEAR(error2 / mass, kDistortion2, 2e-3);
  EXPECT_NEAR(error4 / mass, kDistortion4, 2e-4);
}

TEST(SelectionCodes, LieWhereTheHeaderSays) {
  constexpr int32_t d = 32;  // 8 groups, 3 coarse units, 5 fine ones
  static_assert(coarse_units(d) == 3 && fine_units(d) == 5);
  const HeadBits bits{.coarse4 = 1, .coarse2 = 1, .fine4 = 3, .fine2 = 2};
  std::vector<float> u(16 * d, 0.1f);  // code 8
  u[3 * d + 2] = -3;                   // group 0, axis 2: code 0
  u[3 * d + 5] = 1.0f;                 // group 1, axis 1: code 12
  u[5 * d + 7] = 0.5f;                 // group 1, axis 3: code 10
  u[6 * d + 9] = 3;                    // group 2, axis 1: code 15
  u[7 * d + 12] = -0.5f;               // group 3, axis 0: code 5, upper bits 1
  std::vector<uint8_t> coarse(coarse_bytes(d)), fine(fine_bytes(d));
  ref::write_key_codes(bits, d, u.data(), coarse.data(), fine.data());
  EXPECT_EQ(coarse[0], 0x88);
  EXPECT_EQ(coarse[2 * 3], 0x88);
  EXPECT_EQ(coarse[2 * 3 + 1], 0x80);
  EXPECT_EQ(coarse[32 + 3], 0b10'10'11'10);
  EXPECT_EQ(coarse[32 + 5], 0b10'10'10'10);
  EXPECT_EQ(fine[3], 0);             // lower bits of group 1
  EXPECT_EQ(fine[5], 0b10'00'00'00);
  EXPECT_EQ(fine[16 + 2 * 6], 0xF8); // group 2, whole
  EXPECT_EQ(fine[16 + 2 * 6 + 1], 0x88);
  EXPECT_EQ(fine[48 + 7], 0b10'10'10'01);  // group 3, upper bits
  EXPECT_EQ(fine[64 + 0], 0b10'10'10'10);  // group 4
}

TEST(SelectionCodes, ComeBackInBothGrades) {
  for (const int32_t d : {16, 48, 64, 80, 128, 256})
    for (int32_t c4 = 0; 2 * c4 <= coarse_units(d); ++c4) {
      const int32_t c2 = coarse_units(d) - 2 * c4;
      for (int32_t f4 = c4; 2 * f4 <= d / 4; ++f4) {
        const int32_t f2 = d / 4 - 2 * f4;
        if (f4 + f2 < c4 + c2) break;
        const HeadBits bits{static_cast<uint8_t>(c4), static_cast<uint8_t>(c2), static_cast<uint8_t>(f4), static_cast<uint8_t>(f2)};
        std::vector<float> u(16 * d);
        for (size_t i = 0; i < u.size(); ++i) u[i] = 3 * uniform(d, i);
        std::vector<uint8_t> coarse(coarse_bytes(d)), fine(fine_bytes(d));
        ref::write_key_codes(bits, d, u.data(), coarse.data(), fine.data());
        std::vector<int8_t> low(16 * d), high(16 * d);
        ref::read_key_codes(bits, d, coarse.data(), nullptr, low.data());
        ref::read_key_codes(bits, d, coarse.data(), fine.data(), high.data());
        const auto level = [](int32_t b, float x) { return b == 4 ? kLevels4[code_of(x)] : b == 2 ? kLevels2[code_of(x) >> 2] : int8_t{0}; };
        for (int32_t i = 0; i < 16 * d; ++i) {
          ASSERT_EQ(low[i], level(bits.coarse(i % d / 4), u[i])) << d << " " << c4 << " " << f4;
          ASSERT_EQ(high[i], level(bits.fine(i % d / 4), u[i])) << d << " " << c4 << " " << f4;
        }
      }
    }
}

TEST(SelectionCodes, ValuesAndMeansAreWithinHalfAStep) {
  constexpr int32_t d = 48;
  std::vector<float> x(d), got(d);
  for (int32_t i = 0; i < d; ++i) x[i] = (i < 16 ? 100.0f : i < 32 ? 1e-3f : 0.0f) * uniform(5, i);
  const auto worst = [&](int32_t block) {
    float size = 0, error = 0;
    for (int32_t i = 16 * block; i < 16 * block + 16; ++i) size = std::max(size, std::abs(x[i])), error = std::max(error, std::abs(x[i] - got[i]));
    return size > 0 ? error / size : error;
  };
  std::vector<uint64_t> words(d / 16);
  ref::write_value(d, x.data(), words.data());
  ref::read_value(d, words.data(), got.data());
  for (int32_t b = 0; b < 3; ++b) EXPECT_LE(worst(b), 0.5f / 3.5f + 0.01f) << b;  // the scale is BF16
  std::vector<uint8_t> bytes(mean_bytes(d));
  ref::write_mean(d, x.data(), bytes.data());
  ref::read_mean(d, bytes.data(), got.data());
  for (int32_t b = 0; b < 3; ++b) EXPECT_LE(worst(b), 0.5f / 7.5f + 0.01f) << b;
}

class SparseAttention : public testing::TestWithParam<std::string> {
 protected:
  ThreadPool pool{2};
  std::unique_ptr<Ops> ops = [this] {
    auto made = make_ops(GetParam(), pool);
    made->reserve(case_limits());
    return made;
  }();
};

double relative_error(const std::vector<float>& got, const std::vector<float>& want) {
  double error = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) error += std::pow(double{got[i]} - want[i], 2), size += double{want[i]} * want[i];
  return std::sqrt(error / size);
}

TEST_P(SparseAttention, WithRoomForEverythingIsDense) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    SelectionProblem p{.dtype = dtype, .positions = {3, 15, 16, 40, 640, 999}, .exact = 1000, .fine_divisor = 1};
    const SelectionProblem::Result r = p.run(*ops);
    EXPECT_LT(relative_error(r.rows, r.dense), dtype == DType::kF32 ? 1e-5 : 1e-2);
    for (const SparseStats& s : r.stats) EXPECT_NEAR(s.exact_share, 1, 1e-5);
  }
}

TEST_P(SparseAttention, IsNearDenseAndEachGradeBringsItNearer) {
  SelectionProblem p{.length = 2000, .positions = {1900, 1999}, .exact = 64, .coded = 256, .fine_divisor = 1, .spread = 4};
  const auto error = [&] {
    const SelectionProblem::Result r = p.run(*ops);
    return relative_error(r.rows, r.dense);
  };
  const double all = error();
  EXPECT_LT(all, 0.3);  // values have no mean here, so what is estimated is lost
  p.coded = 0;
  const double exact = error();
  EXPECT_LT(all, exact);
  p.exact = 0;
  EXPECT_LT(exact, error());
}

TEST_P(SparseAttention, CountsWhatItRead) {
  SelectionProblem p{.positions = {999}, .exact = 32, .coded = 64};
  // 62 full pages: 1 sink, 1 recent, 60 in the middle, all fine and none negligible; 8 tokens of the unfinished page.
  p.fine_divisor = 1;
  const float want = 60 * (96 + 40 + 160) + (32 + 16 + 16 + 8) * 2 * 128 + 64 * 32;
  for (const SparseStats& s : p.run(*ops).stats) {
    EXPECT_EQ(s.bytes, want);
    EXPECT_NEAR(s.exact_share + s.coded_share + s.estimated_share, 1, 1e-4);
    EXPECT_GT(s.exact_share, 0.05);
    EXPECT_GT(s.coded_share, 0.05);
    EXPECT_GT(s.estimated_share, 0.05);
  }
}

// The same rows alone, and with pages elsewhere: bit for bit.
TEST_P(SparseAttention, RowsDoNotDependOnOthersNorOnPlaces) {
  SelectionProblem p{.positions = {500, 640, 999}};
  const std::vector<float> together = p.run(*ops).rows;
  const int64_t width = int64_t{p.heads} * p.head_dim;
  for (size_t i = 0; i < 3; ++i) {
    SelectionProblem one = p;
    one.positions = {p.positions[i]};
    const std::vector<float> alone = one.run(*ops).rows;
    EXPECT_EQ(0, std::memcmp(alone.data(), together.data() + i * width, width * sizeof(float))) << i;
  }
}

// Against a simulation in F64 that never sees a packed bit: keys whose axes are the channels themselves.
void compare_with_simulation(Ops& ops, float top_p, double bound) {
  constexpr int32_t d = 32, heads = 3, length = 16 * 40 + 5, coded = 60, divisor = 8;
  int32_t exact = top_p > 0 ? 80 : 20;
  const HeadBits bits{.coarse4 = 1, .coarse2 = 1, .fine4 = 2, .fine2 = 4};
  std::vector<float> sd(d), mean(d), to(d * d), from(d * d), coarse_error(d), fine_error(d);
  for (int32_t a = 0; a < d; ++a) {
    sd[a] = 3 * std::exp(-0.1f * static_cast<float>(a)), mean[a] = uniform(1, a);
    to[a * d + a] = 1 / sd[a], from[a * d + a] = sd[a];
    coarse_error[a] = bits.coarse(a / 4) ? 0.1f : 1, fine_error[a] = bits.fine(a / 4) ? 0.05f : 1;
  }
  std::vector<float> k(48 * 16 * d), v(k.size()), q(heads * d);
  for (int32_t i = 0; i < length * d; ++i) k[i] = mean[i % d] + 1.5f * sd[i % d] * uniform(2, i), v[i] = uniform(3, i) + 0.3f;
  for (int32_t i = 0; i < heads * d; ++i) q[i] = 3 * uniform(4, i);

  // The simulation.
  constexpr int32_t begin = 16, middle = 38 * 16;
  std::vector<std::vector<double>> x(heads, std::vector<double>(length));
  const auto score = [&](int32_t p, bool fine) {
    for (int32_t h = 0; h < heads; ++h) {
      double most = 0, sum = 0, variance = 0, shift = 0;
      for (int32_t a = 0; a < 24; ++a) most = std::max(most, std::abs(q[h * d + a] * double{sd[a]}));
      for (int32_t a = 0; a < d; ++a) {
        const int32_t b = fine ? bits.fine(a / 4) : bits.coarse(a / 4), code = code_of((k[p * d + a] - mean[a]) / sd[a]);
        const double c = q[h * d + a] * double{sd[a]}, level = b == 4 ? kLevels4[code] : b == 2 ? kLevels2[code >> 2] : 0;
        sum += std::nearbyint(c / most * 127) * level;
        variance += c * c * (fine ? fine_error : coarse_error)[a];
        shift += q[h * d + a] * double{mean[a]};
      }
      x[h][p] = sum * most / 127 * kLevelStep + shift + variance / 2;
    }
  };
  const auto keys = [&] {
    std::vector<double> best(length, -1e9);
    for (int32_t h = 0; h < heads; ++h) {
      double sum = 0;
      for (int32_t p = begin; p < begin + middle; ++p) sum += std::exp(x[h][p]);
      for (int32_t p = begin; p < begin + middle; ++p) best[p] = std::max(best[p], std::floor(32 * (x[h][p] - std::log(sum))));
    }
    return best;
  };
  for (int32_t p = begin; p < begin + middle; ++p) score(p, false);
  std::vector<double> best = keys();
  std::vector<double> falling(best.begin() + begin, best.begin() + begin + middle);
  std::sort(falling.rbegin(), falling.rend());
  std::vector<int32_t> pages;
  for (int32_t page = 1; page <= 38; ++page)
    if (*std::max_element(best.begin() + 16 * page, best.begin() + 16 * page + 16) >= falling[(middle + divisor - 1) / divisor - 1]) pages.push_back(page);
  ASSERT_LT(pages.size(), 38u);
  std::vector<int32_t> tokens;
  for (const int32_t page : pages)
    for (int32_t t = 0; t < 16; ++t) score(16 * page + t, true), tokens.push_back(16 * page + t);
  best = keys();
  std::stable_sort(tokens.begin(), tokens.end(), [&](int32_t a, int32_t b) { return best[a] > best[b]; });
  const int32_t at_most = exact;
  if (top_p > 0) {
    double all = 0, have = 0;
    for (const int32_t t : tokens) all += std::exp(best[t] / 32);
    for (int32_t page = 1; page <= 38; ++page) {
      if (std::find(pages.begin(), pages.end(), page) != pages.end()) continue;
      double most = 0;
      for (int32_t h = 0; h < heads; ++h) {
        double sum = 0, here = 0;
        for (int32_t p = begin; p < begin + middle; ++p)
          sum += std::exp(x[h][p]), here += p / 16 == page ? std::exp(x[h][p]) : 0;
        most = std::max(most, here / sum);
      }
      all += most;
    }
    for (exact = 0; exact < at_most && have < top_p * all; ++exact) have += std::exp(best[tokens[exact]] / 32);
    ASSERT_GT(exact, 1);
    ASSERT_LT(exact, at_most);
  }
  std::vector<int> how(length);  // 0 exact, 1 coded, 2 estimated
  std::fill(how.begin() + begin, how.begin() + begin + middle, 2);
  for (int32_t i = 0; i < exact + coded; ++i) how[tokens[i]] = i < exact ? 0 : 1;
  int32_t left_out = 0;  // pages whose unread tokens do not count: they are dropped by giving them no weight
  for (int32_t page = 1; page <= 38; ++page) {
    double most = 0;
    for (int32_t h = 0; h < heads; ++h) {
      double all = 0, unread = 0;
      for (int32_t p = begin; p < begin + middle; ++p) all += std::exp(x[h][p]);
      for (int32_t p = 16 * page; p < 16 * page + 16; ++p) unread += how[p] == 2 ? std::exp(x[h][p]) : 0;
      most = std::max(most, unread / all);
    }
    if (most >= kNegligible) continue;
    ++left_out;
    for (int32_t p = 16 * page; p < 16 * page + 16; ++p)
      for (int32_t h = 0; h < heads && how[p] == 2; ++h) x[h][p] = -1e9;
  }
  ASSERT_GT(left_out, 0);
  std::vector<double> want(heads * d);
  for (int32_t h = 0; h < heads; ++h) {
    double total = 0;
    for (int32_t p = 0; p < length; ++p) {
      double logit = x[h][p];
      if (how[p] == 0) logit = 0;
      for (int32_t i = 0; i < d && how[p] == 0; ++i) logit += double{q[h * d + i]} * k[p * d + i];
      const double w = std::exp(logit);
      total += w;
      for (int32_t i = 0; i < d; ++i) {
        const int32_t from_token = p / 16 * 16, block = i / 16 * 16;
        double value = v[p * d + i], m[16] = {}, size = 0;
        if (how[p] == 1)
          for (int32_t j = 0; j < 16; ++j) size = std::max(size, std::abs(double{v[p * d + block + j]}) / 3.5);
        if (how[p] == 2) {
          for (int32_t j = 0; j < 16; ++j) {
            for (int32_t t = 0; t < 16; ++t) m[j] += v[(from_token + t) * d + block + j] / 16.0;
            size = std::max(size, std::abs(m[j]) / 7.5);
          }
          value = m[i - block];
        }
        size = to_float(to_bfloat16(static_cast<float>(size)));
        const double half = how[p] == 1 ? 3.5 : 7.5;
        if (how[p] > 0) value = (std::clamp(std::nearbyint(value / size + half), 0.0, 2 * half) - half) * size;
        want[h * d + i] += w * value;
      }
    }
    for (int32_t i = 0; i < d; ++i) want[h * d + i] /= total;
  }

  KvLayer cache{reinterpret_cast<std::byte*>(k.data()), reinterpret_cast<std::byte*>(v.data()), DType::kF32, 48, 1, 16, d};
  std::vector<uint8_t> coarse(48 * coarse_bytes(d)), fine(48 * fine_bytes(d)), means(48 * mean_bytes(d));
  std::vector<uint64_t> values(48 * value_bytes(d) / 8);
  cache.codes = {coarse.data(), fine.data(), means.data(), values.data()};
  const SelectionMap map{&bits, mean.data(), to.data(), from.data(), coarse_error.data(), fine_error.data()};
  std::vector<int32_t> table(48);
  std::iota(table.begin(), table.end(), 0);
  ops.encode_pages({.cache = cache, .map = map, .pages = std::span(table).first(40)});
  const int32_t cu[] = {0, 1}, last = length - 1;
  const SparseRow row{.position = last, .exact = at_most, .coded = coded, .top_p = top_p};
  SparseStats stats;
  std::vector<float> got(heads * d);
  ops.sparse_attention({.q = q.data(),
                        .q_stride = heads * d,
                        .num_heads = heads,
                        .scale = 1,
                        .cache = cache,
                        .map = map,
                        .rows = {&row, 1},
                        .fine_divisor = divisor,
                        .out = got.data(),
                        .out_stride = heads * d,
                        .stats = &stats},
                       {.num_seqs = 1,
                        .num_tokens = 1,
                        .cu_query_lens = cu,
                        .kv_lens = &length,
                        .page_table = table.data(),
                        .page_table_stride = 48,
                        .positions = &last});
  for (int32_t i = 0; i < heads * d; ++i) EXPECT_NEAR(got[i], want[i], bound) << i;
  EXPECT_EQ(stats.bytes, 38 * coarse_bytes(d) + static_cast<int32_t>(pages.size()) * fine_bytes(d) +
                             (38 - left_out) * mean_bytes(d) + (length - middle + exact) * 2 * 4 * d +
                             coded * value_token_bytes(d));
}

TEST_P(SparseAttention, IsWhatASimulationSays) {
  // The cpu backend rounds the weights of coded and mean values to BF16: each term moves by up to 2^-9 of itself,
  // values are below 1.3.
  for (const float top_p : {0.0f, 0.007f, 0.01f, 0.014f})
    compare_with_simulation(*ops, top_p, GetParam() == "ref" ? 1e-4 : 2e-3);
}

TEST_P(SparseAttention, TopPOnlyTakesAway) {
  SelectionProblem p{.positions = {640, 999}, .exact = 100};
  const SelectionProblem::Result fixed = p.run(*ops);
  p.top_p = 1;  // more than the tokens of fine pages have
  const SelectionProblem::Result whole = p.run(*ops);
  EXPECT_EQ(0, std::memcmp(fixed.rows.data(), whole.rows.data(), fixed.rows.size() * sizeof(float)));
  float before = fixed.stats[2].bytes;
  for (const float share : {0.3f, 0.1f, 0.01f}) {
    p.top_p = share;
    const float bytes = p.run(*ops).stats[2].bytes;
    EXPECT_LE(bytes, before);
    before = bytes;
  }
  EXPECT_LT(before, fixed.stats[2].bytes);
}

INSTANTIATE_TEST_SUITE_P(Backends, SparseAttention, testing::Values("ref", "cpu"), [](const auto& i) { return i.param; });

// A backend's codes are ref's but where u is on the edge of a cell.
TEST(SelectionCodes, OfTheCpuAreThoseOfRef) {
  ThreadPool pool{2};
  const auto ref = make_ops("ref", pool), cpu = make_ops("cpu", pool);
  cpu->reserve(case_limits());
  for (const SelectionProblem& p : selection_problems()) {
    if (p.length > 400) continue;  // every head dimension, and little else
    const std::vector<uint8_t> want = p.run(*ref).codes, got = p.run(*cpu).codes;
    ASSERT_EQ(want.size(), got.size());
    int64_t differ = 0;
    for (size_t i = 0; i < want.size(); ++i) differ += want[i] != got[i];
    EXPECT_LE(differ, 2 + static_cast<int64_t>(want.size()) / 10000) << p.name;
  }
}

TEST(SelectionCodes, AreCopiedWithTheirPage) {
  ThreadPool pool{2};
  for (const char* name : {"ref", "cpu"}) {
    const auto ops = make_ops(name, pool);
    constexpr int32_t d = 32, heads = 3, pages = 4;
    std::vector<float> k(pages * heads * 16 * d), v(k.size());
    std::vector<uint8_t> coarse(pages * heads * coarse_bytes(d)), fine(pages * heads * fine_bytes(d)), mean(pages * heads * mean_bytes(d));
    std::vector<uint64_t> values(pages * heads * value_bytes(d) / 8);
    std::iota(coarse.begin(), coarse.end(), uint8_t{0}), std::iota(fine.begin(), fine.end(), uint8_t{0});
    std::iota(mean.begin(), mean.end(), uint8_t{0}), std::iota(values.begin(), values.end(), 0u);
    KvLayer cache{reinterpret_cast<std::byte*>(k.data()), reinterpret_cast<std::byte*>(v.data()), DType::kF32, pages, heads, 16, d};
    cache.codes = {coarse.data(), fine.data(), mean.data(), values.data()};
    const std::pair<int32_t, int32_t> pair{1, 3};
    ops->copy_pages(cache, {&pair, 1});
    const auto copied = [&](const auto& x) { return std::equal(x.begin() + x.size() / 4, x.begin() + x.size() / 2, x.begin() + 3 * (x.size() / 4)); };
    EXPECT_TRUE(copied(coarse) && copied(fine) && copied(mean) && copied(values));
    EXPECT_EQ(values[0], 0u);
  }
}

}  // namespace
}  // namespace tinyserve::ops
