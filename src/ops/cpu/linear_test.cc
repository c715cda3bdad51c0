#include "ops/cpu/linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "ops/cpu/linear_kernels.h"
#include "ops/int8_format.h"
#include "ops/ref/ref_ops.h"

namespace tinyserve::ops {
namespace {

std::vector<float> random_values(int64_t n, uint32_t seed, float scale = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = normal(generator);
  return v;
}

uint16_t to_half(float f) {  // normal range only
  const uint32_t u = std::bit_cast<uint32_t>(f), sign = u >> 16 & 0x8000u;
  const int exponent = static_cast<int>(u >> 23 & 255u) - 112;
  if (exponent <= 0) return static_cast<uint16_t>(sign);
  return static_cast<uint16_t>(sign | static_cast<uint32_t>(exponent) << 10 | (u >> 13 & 1023u));
}

// A tensor in some dtype, at an address that is not aligned.
struct Source {
  std::vector<std::byte> bytes;
  WeightSource part;

  Source(int64_t out, int64_t in, DType dtype, bool transposed, uint32_t seed) {
    const std::vector<float> values = random_values(out * in, seed, 0.1f);
    const size_t size = dtype_bytes(dtype);
    bytes.resize(values.size() * size + 1);
    for (size_t i = 0; i < values.size(); ++i) {
      std::byte* to = bytes.data() + 1 + i * size;
      const uint16_t narrow = dtype == DType::kF16 ? to_half(values[i]) : to_bfloat16(values[i]).bits;
      std::memcpy(to, dtype == DType::kF32 ? static_cast<const void*>(&values[i]) : &narrow, size);
    }
    part.view = {bytes.data() + 1, dtype, transposed ? Shape{in, out} : Shape{out, in}};
    part.transposed = transposed;
  }
  Source(const Source&) = delete;
};

// What the weights are after rounding to the format, [out, in]; the oracle's own packing is checked against it.
std::vector<float> rounded(const std::vector<const Source*>& sources, int64_t in, WeightFormat format) {
  std::vector<float> w;
  for (const Source* s : sources) {
    std::vector<float> raw(static_cast<size_t>(s->part.view.size()));
    s->part.view.read(0, s->part.view.size(), raw.data());
    const int64_t out = s->part.view.size() / in;
    for (int64_t o = 0; o < out; ++o)
      for (int64_t i = 0; i < in; ++i) w.push_back(raw[s->part.transposed ? i * out + o : o * in + i]);
  }
  for (size_t g = 0; g < w.size();) {
    const size_t n = std::min<size_t>(kInt8Group, in - g % in);
    const float scale = to_float(int8_scale(&w[g], static_cast<int64_t>(n)));
    for (size_t i = g; i < g + n; ++i) {
      if (format == WeightFormat::kBF16) w[i] = to_float(to_bfloat16(w[i]));
      if (format == WeightFormat::kInt8) w[i] = static_cast<float>(int8_code(w[i], scale)) * scale;
    }
    g += n;
  }
  return w;
}

// Bound on |y - oracle| for one output. Sums of n terms in F32, any order: n u sum|x w| with u = 2^-24, and as much
// again for products rounded before they are added. x in BF16: 2^-8 relative each (half that plus flushed subnormals).
// x in INT8: half a step of its group, max|x| / 254, and a little for the scale's own rounding.
double tolerance(const float* x, const float* w, int64_t in, WeightFormat format) {
  double magnitude = 0, rounding = 0;
  for (int64_t g = 0; g < in; g += kInt8Group) {
    const int64_t end = std::min(in, g + kInt8Group);
    double largest = 0;
    for (int64_t i = g; i < end; ++i) largest = std::max(largest, std::abs(double{x[i]}));
    for (int64_t i = g; i < end; ++i) {
      magnitude += std::abs(double{x[i]} * w[i]);
      if (format == WeightFormat::kBF16) rounding += std::abs(double{x[i]} * w[i]) * 0x1p-8;
      if (format == WeightFormat::kInt8) rounding += largest / 253.0 * std::abs(w[i]);
    }
  }
  return rounding + static_cast<double>(2 * in + 4) * 0x1p-24 * (magnitude + rounding) + 1e-30;
}

struct Problem {
  int64_t rows, in;
  std::vector<int64_t> outs;  // parts
  DType dtype = DType::kF32;
  bool transposed = false, bias = false, accumulate = false;
};

class LinearTest : public ::testing::TestWithParam<std::tuple<size_t, WeightFormat>> {
 protected:
  const linear::Kernels& kernels() { return *linear::available_kernels()[std::get<0>(GetParam())]; }
  WeightFormat format() { return std::get<1>(GetParam()); }

  std::vector<float> run(CpuLinear& cpu, const PackedWeight& weight, const std::vector<float>& x, int64_t x_stride,
                         int64_t rows, const float* bias, std::vector<float> y, int64_t y_stride, bool accumulate) {
    cpu.run({x.data(), x_stride, rows, &weight, bias, y.data(), y_stride, accumulate});
    return y;
  }

  void check(const Problem& p, CpuLinear& cpu) {
    std::vector<std::unique_ptr<Source>> sources;
    std::vector<WeightSource> parts;
    std::vector<const Source*> views;
    int64_t out = 0;
    for (int64_t o : p.outs) {
      sources.push_back(std::make_unique<Source>(o, p.in, p.dtype, p.transposed, static_cast<uint32_t>(o + p.in)));
      parts.push_back(sources.back()->part);
      views.push_back(sources.back().get());
      out += o;
    }
    const auto weight = cpu.pack_weight(parts, format());
    EXPECT_EQ(weight->out_features, out);
    EXPECT_EQ(weight->in_features, p.in);
    const int64_t x_stride = p.in + 3, y_stride = out + 5;
    const std::vector<float> x = random_values(p.rows * x_stride, 7), before = random_values(p.rows * y_stride, 8);
    const std::vector<float> bias = random_values(out, 9);
    const float* b = p.bias ? bias.data() : nullptr;
    const std::vector<float> y = run(cpu, *weight, x, x_stride, p.rows, b, before, y_stride, p.accumulate);

    const std::vector<float> w = rounded(views, p.in, format());
    std::vector<float> expected = before;
    const auto oracle = make_ref_ops(pool_, {});
    const auto oracle_weight = oracle->pack_weight(parts, format());
    oracle->linear({x.data(), x_stride, p.rows, oracle_weight.get(), b, expected.data(), y_stride, p.accumulate});
    for (int64_t r = 0; r < p.rows; ++r)
      for (int64_t o = 0; o < y_stride; ++o) {
        const size_t at = static_cast<size_t>(r * y_stride + o);
        if (o >= out) {
          ASSERT_EQ(y[at], before[at]) << "wrote past the row's end";
          continue;
        }
        const double bound = tolerance(&x[r * x_stride], &w[o * p.in], p.in, format()) +
                             4 * 0x1p-24 * (std::abs(expected[at]) + std::abs(before[at]) + std::abs(bias[o]));
        ASSERT_NEAR(y[at], expected[at], bound) << "row " << r << " output " << o;
      }
  }

  ThreadPool pool_{2};
};

TEST_P(LinearTest, AgreesWithTheOracle) {
  CpuLinear cpu(pool_, {}, kernels());
  cpu.reserve({.max_tokens = 700});
  const Problem problems[] = {
      {1, 64, {64}},
      {1, 1, {1}},
      {2, 2, {3}},
      {1, 33, {65}, DType::kBF16},
      {3, 31, {63}, DType::kF16},
      {4, 130, {200}, DType::kF32, false, true},
      {5, 127, {129}, DType::kF32, false, false, true},
      {7, 256, {128}, DType::kBF16, false, true, true},
      {6, 100, {64, 7, 130}, DType::kBF16},
      {9, 96, {96, 32}, DType::kF16, false, true},
      {13, 65, {50}, DType::kF32, true, true},
      {33, 384, {1152}, DType::kBF16},
      {8, 70, {33, 40}, DType::kBF16, true, false, true},
      {130, 300, {190}, DType::kF32, false, true, true},
      {513, 48, {70}, DType::kBF16, false, true},
      {700, 40, {80}, DType::kBF16, false, true},
      {19, 2100, {130}, DType::kBF16, false, true},
      {1, 5632, {128}, DType::kBF16},
  };
  for (const Problem& p : problems) {
    SCOPED_TRACE(::testing::Message() << p.rows << " x " << p.in << " -> " << p.outs[0] << " of " << p.outs.size());
    check(p, cpu);
    if (HasFatalFailure()) return;
  }
}

TEST_P(LinearTest, EveryRowCountUpTo40) {
  CpuLinear cpu(pool_, {}, kernels());
  cpu.reserve({.max_tokens = 64});
  for (int64_t rows = 1; rows <= 40; ++rows) check({rows, 96, {72}, DType::kF32, false, true}, cpu);
}

// The heart of batch invariance: whatever the batch and the number of threads, the same bits.
TEST_P(LinearTest, RowsDoNotDependOnTheBatchOrTheThreads) {
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{70, 100}, {2100, 260}, {384, 640}}) {
    const Source source(out, in, DType::kF32, false, 5);
    const int64_t most = 600;
    const std::vector<float> x = random_values(most * in, 11);
    std::vector<float> reference;
    for (int threads : {1, 2, 3}) {
      ThreadPool pool(threads);
      CpuLinear cpu(pool, {}, kernels());
      cpu.reserve({.max_tokens = most});
      const auto weight = cpu.pack_weight({&source.part, 1}, format());
      if (reference.empty())
        for (int64_t r = 0; r < most; ++r) {
          const auto y = run(cpu, *weight, {x.begin() + r * in, x.begin() + (r + 1) * in}, in, 1, nullptr,
                             std::vector<float>(out), out, false);
          reference.insert(reference.end(), y.begin(), y.end());
        }
      for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 17, 31, 64, 97, 128, 257, 600}) {
        const auto y = run(cpu, *weight, x, in, rows, nullptr, std::vector<float>(rows * out), out, false);
        ASSERT_EQ(std::memcmp(y.data(), reference.data(), y.size() * sizeof(float)), 0)
            << threads << " threads, " << rows << " rows, " << in << " -> " << out;
      }
    }
  }
}

// Large products go through oneDNN where it has kernels; odd rows and widths beside it.
TEST_P(LinearTest, WithoutBatchInvariance) {
  CpuLinear cpu(pool_, {.batch_invariant = false}, kernels());
  cpu.reserve({.max_tokens = 700});
  for (const Problem& p : {Problem{130, 300, {190}, DType::kF32, false, true, true}, Problem{64, 64, {64}},
                           Problem{513, 48, {70}, DType::kBF16, false, true},
                           Problem{300, 1100, {130}, DType::kBF16, false, true}, Problem{5, 70, {30}}})
    check(p, cpu);
}

TEST_P(LinearTest, NonFiniteInputsStayInTheirRow) {
  const int64_t in = 80, out = 70, rows = 7;
  const Source source(out, in, DType::kF32, false, 5);
  CpuLinear cpu(pool_, {}, kernels());
  cpu.reserve({.max_tokens = rows});
  const auto weight = cpu.pack_weight({&source.part, 1}, format());
  std::vector<float> x = random_values(rows * in, 3);
  const auto clean = run(cpu, *weight, x, in, rows, nullptr, std::vector<float>(rows * out), out, false);
  x[1 * in + 33] = std::numeric_limits<float>::quiet_NaN();
  x[3 * in + 79] = std::numeric_limits<float>::infinity();
  x[5 * in + 0] = -std::numeric_limits<float>::infinity();
  const auto y = run(cpu, *weight, x, in, rows, nullptr, std::vector<float>(rows * out), out, false);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < out; ++o) {
      if (r % 2 == 0)
        EXPECT_EQ(y[r * out + o], clean[r * out + o]);
      else
        EXPECT_FALSE(std::isfinite(y[r * out + o])) << r << " " << o;
    }
}

TEST_P(LinearTest, ExtremeInputsAndWeights) {
  const int64_t in = 64, out = 64;
  const float values[] = {0.0f,
                          -0.0f,
                          1e-45f,
                          -1e-40f,
                          1e-38f,
                          3e38f,
                          -3e38f,
                          std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()};
  std::vector<float> w(out * in), x(2 * in), y(2 * out);
  for (size_t i = 0; i < w.size(); ++i) w[i] = values[i * 7 % std::size(values)];
  for (size_t i = 0; i < x.size(); ++i) x[i] = values[i * 5 % std::size(values)];
  const WeightSource part{{reinterpret_cast<const std::byte*>(w.data()), DType::kF32, {out, in}}};
  CpuLinear cpu(pool_, {}, kernels());
  cpu.reserve({.max_tokens = 2});
  const auto weight = cpu.pack_weight({&part, 1}, format());
  cpu.run({x.data(), in, 2, weight.get(), nullptr, y.data(), out, false});
  for (float v : y) EXPECT_FALSE(std::isfinite(v));
  // All zeros but for subnormals: nothing to divide by.
  std::fill(x.begin(), x.end(), 1e-45f);
  std::fill(w.begin(), w.end(), 1.0f);
  const auto ones = cpu.pack_weight({&part, 1}, format());
  cpu.run({x.data(), in, 2, ones.get(), nullptr, y.data(), out, false});
  for (float v : y) EXPECT_NEAR(v, 0.0f, 1e-40f);
}

std::string test_name(const ::testing::TestParamInfo<std::tuple<size_t, WeightFormat>>& info) {
  std::string name = linear::available_kernels()[std::get<0>(info.param)]->name;
  std::erase_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
  constexpr const char* kFormats[] = {"F32", "BF16", "INT8"};
  return name + "_" + kFormats[static_cast<int>(std::get<1>(info.param))];
}

INSTANTIATE_TEST_SUITE_P(Kernels, LinearTest,
                         ::testing::Combine(::testing::Range<size_t>(0, linear::available_kernels().size()),
                                            ::testing::Values(WeightFormat::kF32, WeightFormat::kBF16,
                                                              WeightFormat::kInt8)),
                         test_name);

}  // namespace
}  // namespace tinyserve::ops
