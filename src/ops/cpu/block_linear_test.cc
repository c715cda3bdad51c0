// linear() with weights in GGUF's blocks: every format on every instruction set against the dequantised weights.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "ops/cpu/block_panels.h"
#include "ops/cpu/linear.h"
#include "ops/ref/ref_ops.h"

namespace tinyserve::ops {
namespace {

std::vector<float> random_values(int64_t n, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = normal(generator);
  return v;
}

// [out, in] of random blocks at an odd address; their d and m are between 2^-10 and 2^-6 in size.
struct Source {
  std::vector<std::byte> bytes;
  WeightSource part;

  Source(BlockFormat format, int64_t out, int64_t in, uint32_t seed) {
    const BlockLayout layout = block_layout(format);
    const int64_t blocks = out * in / layout.values;
    std::mt19937 random(seed);
    bytes.resize(static_cast<size_t>(1 + blocks * layout.bytes));
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    for (int64_t b = 0; b < blocks; ++b)
      for (const int at : halves(format)) {
        const auto half = static_cast<uint16_t>((random() & 0x8000u) | (5 + random() % 4) << 10 | (random() & 1023u));
        std::memcpy(bytes.data() + 1 + b * layout.bytes + at, &half, 2);
      }
    part.view = {.data = bytes.data() + 1, .shape = {out, in}, .blocks = format};
  }
  Source(const Source&) = delete;

  // Where a block has its halves.
  static std::vector<int> halves(BlockFormat format) {
    switch (format) {
      case BlockFormat::kQ4_0:
      case BlockFormat::kQ5_0:
      case BlockFormat::kQ8_0:
        return {0};
      case BlockFormat::kQ2K:
        return {80, 82};
      case BlockFormat::kQ3K:
        return {108};
      case BlockFormat::kQ6K:
        return {208};
      default:
        return {0, 2};
    }
  }
};

// |scale| * code + |offset| of every number: what the terms of a sum are at most, times |x|.
std::vector<float> magnitudes(const TensorView& view) {
  const BlockLayout layout = block_layout(*view.blocks);
  const BlockTraits traits = block_traits(*view.blocks);
  std::vector<float> out;
  for (int64_t b = 0; b < view.size() / layout.values; ++b) {
    BlockParts parts;
    take_apart(*view.blocks, view.data + b * layout.bytes, parts);
    for (int i = 0; i < layout.values; ++i) {
      const int part = i / traits.part;
      float m = std::abs(to_float(parts.d) * static_cast<float>(traits.has_parts ? parts.scales[part] : 1)) *
                static_cast<float>(std::abs(parts.codes[i] - traits.zero));
      if (traits.has_offset)
        m += std::abs(to_float(parts.m) * static_cast<float>(traits.has_parts ? parts.offsets[part] : 1));
      out.push_back(m);
    }
  }
  return out;
}

struct Problem {
  int64_t rows, in;
  std::vector<std::pair<BlockFormat, int64_t>> parts;
  bool bias = false, accumulate = false;
};

class BlockLinearTest : public ::testing::TestWithParam<size_t> {
 protected:
  const linear::Kernels& kernels() { return *linear::available_kernels()[GetParam()]; }

  std::vector<float> run(CpuLinear& cpu, const PackedWeight& weight, const std::vector<float>& x, int64_t rows) {
    std::vector<float> y(static_cast<size_t>(rows * weight.out_features));
    cpu.run({x.data(), weight.in_features, rows, &weight, nullptr, y.data(), weight.out_features, false});
    return y;
  }

  void check(const Problem& p, CpuLinear& cpu) {
    std::vector<std::unique_ptr<Source>> sources;
    std::vector<WeightSource> parts;
    std::vector<float> w, size;
    int64_t out = 0, stored = 0;
    for (const auto& [format, rows] : p.parts) {
      sources.push_back(std::make_unique<Source>(format, rows, p.in, static_cast<uint32_t>(out + p.in)));
      parts.push_back(sources.back()->part);
      const TensorView& view = parts.back().view;
      std::vector<float> values(static_cast<size_t>(view.size()));
      view.read(0, view.size(), values.data());
      w.insert(w.end(), values.begin(), values.end());
      values = magnitudes(view);
      size.insert(size.end(), values.begin(), values.end());
      out += rows;
      stored += static_cast<int64_t>(view.size_bytes()) + 64 * p.in * 34 / 32;  // what padding may add
    }
    const auto weight = cpu.pack_weight(parts, WeightFormat::kBlocks);
    EXPECT_EQ(weight->out_features, out);
    EXPECT_EQ(weight->in_features, p.in);
    EXPECT_LT(static_cast<int64_t>(weight->size_bytes), stored * 6 / 5);
    const int64_t x_stride = p.in + 3, y_stride = out + 5;
    const std::vector<float> x = random_values(p.rows * x_stride, 7), before = random_values(p.rows * y_stride, 8);
    const std::vector<float> bias = random_values(out, 9);
    std::vector<float> y = before;
    cpu.run(
        {x.data(), x_stride, p.rows, weight.get(), p.bias ? bias.data() : nullptr, y.data(), y_stride, p.accumulate});

    for (int64_t r = 0; r < p.rows; ++r) {
      const float* row = &x[r * x_stride];
      std::vector<double> half_step(static_cast<size_t>(p.in / linear::kGroup));
      for (int64_t i = 0; i < p.in; ++i) {
        double& h = half_step[i / linear::kGroup];
        h = std::max(h, std::abs(double{row[i]}) / 253.0);
      }
      for (int64_t o = 0; o < y_stride; ++o) {
        const size_t at = static_cast<size_t>(r * y_stride + o);
        if (o >= out) {
          ASSERT_EQ(y[at], before[at]) << "wrote past the row's end";
          continue;
        }
        // Inputs are rounded by half a step of their group: that much of every weight. Beside it, F32 sums of n terms.
        double expected = (p.bias ? bias[o] : 0.0) + (p.accumulate ? before[at] : 0.0), rounding = 0, magnitude = 0;
        for (int64_t i = 0; i < p.in; ++i) {
          expected += double{row[i]} * w[o * p.in + i];
          rounding += half_step[i / linear::kGroup] * std::abs(w[o * p.in + i]);
          magnitude += std::abs(double{row[i]}) * size[o * p.in + i];
        }
        const double bound = rounding + static_cast<double>(p.in + 8) * 0x1p-24 * (magnitude + rounding) +
                             4 * 0x1p-24 * (std::abs(expected) + std::abs(before[at]) + std::abs(bias[o]));
        ASSERT_NEAR(y[at], expected, bound) << "row " << r << " output " << o;
      }
    }
  }

  ThreadPool pool_{2};
};

std::vector<BlockFormat> formats() {
  std::vector<BlockFormat> all;
  for (int f = 0; f < kNumBlockFormats; ++f) all.push_back(static_cast<BlockFormat>(f));
  return all;
}

TEST_P(BlockLinearTest, AgreesWithTheDequantisedWeights) {
  CpuLinear cpu(pool_, {}, kernels());
  cpu.reserve({.max_tokens = 70});
  for (const BlockFormat format : formats()) {
    SCOPED_TRACE(block_layout(format).name);
    const bool small = block_layout(format).values == 32;
    for (const int64_t rows : {1, 2, 3, 4, 5, 7, 12, 70}) {
      check({rows, small ? 96 : 256, {{format, 70}}, rows % 2 == 0, rows % 3 == 0}, cpu);
      if (HasFatalFailure()) return;
    }
    check({2, small ? 864 : 1024, {{format, 64}}}, cpu);
  }
}

TEST_P(BlockLinearTest, FusesPartsOfDifferentFormats) {
  CpuLinear cpu(pool_, {}, kernels());
  cpu.reserve({.max_tokens = 16});
  using enum BlockFormat;
  for (const int64_t rows : {1, 9}) {
    check({rows, 256, {{kQ5_0, 128}, {kQ4K, 64}, {kQ6K, 64}}, true}, cpu);
    check({rows, 512, {{kQ8_0, 3}, {kQ2K, 70}, {kQ3K, 1}}, false, true}, cpu);
  }
}

// Whatever the batch and the number of threads, the same bits.
TEST_P(BlockLinearTest, RowsDoNotDependOnTheBatchOrTheThreads) {
  constexpr int64_t kIn = 768, kOut = 150, kMost = 300;
  const std::vector<float> x = random_values(kMost * kIn, 11);
  for (const BlockFormat format : formats()) {
    const Source source(format, kOut, kIn, 5);
    std::vector<float> reference;
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      CpuLinear cpu(pool, {.batch_invariant = threads == 1}, kernels());
      cpu.reserve({.max_tokens = kMost});
      const auto weight = cpu.pack_weight({&source.part, 1}, WeightFormat::kBlocks);
      if (reference.empty())
        for (int64_t r = 0; r < kMost; ++r) {
          const auto y = run(cpu, *weight, {x.begin() + r * kIn, x.begin() + (r + 1) * kIn}, 1);
          reference.insert(reference.end(), y.begin(), y.end());
        }
      for (const int64_t rows : {2, 3, 4, 5, 6, 7, 13, 64, 257, 300}) {
        const auto y = run(cpu, *weight, x, rows);
        ASSERT_EQ(std::memcmp(y.data(), reference.data(), y.size() * sizeof(float)), 0)
            << block_layout(format).name << ", " << threads << " threads, " << rows << " rows";
      }
    }
  }
}

TEST_P(BlockLinearTest, NonFiniteInputsStayInTheirRow) {
  constexpr int64_t kIn = 256, kOut = 70, kRows = 7;
  for (const BlockFormat format : formats()) {
    const Source source(format, kOut, kIn, 5);
    CpuLinear cpu(pool_, {}, kernels());
    cpu.reserve({.max_tokens = kRows});
    const auto weight = cpu.pack_weight({&source.part, 1}, WeightFormat::kBlocks);
    std::vector<float> x = random_values(kRows * kIn, 3);
    const auto clean = run(cpu, *weight, x, kRows);
    x[1 * kIn + 33] = std::numeric_limits<float>::quiet_NaN();
    x[3 * kIn + 255] = std::numeric_limits<float>::infinity();
    x[5 * kIn + 0] = -std::numeric_limits<float>::infinity();
    const auto y = run(cpu, *weight, x, kRows);
    for (int64_t r = 0; r < kRows; ++r)
      for (int64_t o = 0; o < kOut; ++o) {
        if (r % 2 == 0)
          EXPECT_EQ(y[r * kOut + o], clean[r * kOut + o]);
        else
          EXPECT_FALSE(std::isfinite(y[r * kOut + o])) << r << " " << o;
      }
  }
}

std::string test_name(const ::testing::TestParamInfo<size_t>& info) {
  std::string name = linear::available_kernels()[info.param]->name;
  std::erase_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
  return name;
}

INSTANTIATE_TEST_SUITE_P(Kernels, BlockLinearTest, ::testing::Range<size_t>(0, linear::available_kernels().size()),
                         test_name);

}  // namespace
}  // namespace tinyserve::ops
