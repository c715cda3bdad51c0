#include "tensor/block_format.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "tensor/block_parts.h"
#include "tensor/dtype.h"

namespace tinyserve {
namespace {

// The numbers that the `gguf` package's dequantize() gives for random blocks: tests/golden/gguf/make_block_goldens.py.
class Goldens {
 public:
  Goldens() : file_(TINYSERVE_SOURCE_DIR "/tests/golden/gguf/blocks.bin"), at_(file_.bytes().data()) {}

  std::string name() {
    char text[9] = {};
    take(text, 8);
    return text;
  }
  uint32_t number() {
    uint32_t n;
    take(&n, 4);
    return n;
  }
  template <class T>
  std::vector<T> array(size_t count) {
    std::vector<T> out(count);
    take(out.data(), count * sizeof(T));
    return out;
  }
  bool at_end() const { return at_ == file_.bytes().data() + file_.bytes().size(); }

 private:
  void take(void* to, size_t size) {
    ASSERT_LE(size, static_cast<size_t>(file_.bytes().data() + file_.bytes().size() - at_));
    std::memcpy(to, at_, size);
    at_ += size;
  }
  MappedFile file_;
  const std::byte* at_;
};

TEST(BlockFormat, EqualsTheGgufPackageBitForBit) {
  Goldens goldens;
  for (int f = 0; f < kNumBlockFormats; ++f) {
    const auto format = static_cast<BlockFormat>(f);
    const BlockLayout layout = block_layout(format);
    SCOPED_TRACE(layout.name);
    ASSERT_EQ(goldens.name(), layout.name);
    const uint32_t count = goldens.number();
    ASSERT_EQ(goldens.number(), static_cast<uint32_t>(layout.bytes));
    ASSERT_EQ(goldens.number(), static_cast<uint32_t>(layout.values));
    const auto blocks = goldens.array<std::byte>(count * static_cast<size_t>(layout.bytes));
    const auto expected = goldens.array<float>(count * static_cast<size_t>(layout.values));
    std::vector<float> values(expected.size());
    dequantize(format, blocks.data(), count, values.data());
    size_t finite = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      finite += std::isfinite(expected[i]);
      if (std::isnan(expected[i]))  // which of NaN's patterns is the processor's affair
        EXPECT_TRUE(std::isnan(values[i])) << i;
      else
        ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(expected[i]))
            << i << ": " << values[i] << " != " << expected[i];
    }
    EXPECT_GT(finite, values.size() / 2);
  }
  EXPECT_TRUE(goldens.at_end());
}

TEST(BlockFormat, ReadsUnalignedBlocksOneByOneAsTogether) {
  for (int f = 0; f < kNumBlockFormats; ++f) {
    const auto format = static_cast<BlockFormat>(f);
    const BlockLayout layout = block_layout(format);
    const auto bytes = static_cast<size_t>(layout.bytes), numbers = static_cast<size_t>(layout.values);
    std::vector<std::byte> blocks(3 * bytes + 1);
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<std::byte>(i * 37 % 120);  // finite scales
    std::vector<float> together(3 * numbers), one(numbers);
    dequantize(format, blocks.data() + 1, 3, together.data());
    for (size_t b = 0; b < 3; ++b) {
      dequantize(format, blocks.data() + 1 + b * bytes, 1, one.data());
      EXPECT_EQ(std::memcmp(one.data(), together.data() + b * numbers, numbers * sizeof(float)), 0) << layout.name;
    }
  }
}

// What take_apart() finds makes the same numbers, bit for bit where they are numbers.
TEST(BlockFormat, PartsMakeTheSameNumbers) {
  Goldens goldens;
  for (int f = 0; f < kNumBlockFormats; ++f) {
    const auto format = static_cast<BlockFormat>(f);
    const BlockLayout layout = block_layout(format);
    const BlockTraits traits = block_traits(format);
    SCOPED_TRACE(goldens.name());
    const uint32_t count = goldens.number();
    goldens.number();
    goldens.number();
    const auto blocks = goldens.array<std::byte>(count * static_cast<size_t>(layout.bytes));
    const auto expected = goldens.array<float>(count * static_cast<size_t>(layout.values));
    for (uint32_t b = 0; b < count; ++b) {
      BlockParts parts;
      take_apart(format, blocks.data() + b * static_cast<size_t>(layout.bytes), parts);
      for (int i = 0; i < layout.values; ++i) {
        ASSERT_LT(parts.codes[i], 1 << traits.bits);
        const int part = i / traits.part;
        const float scale = to_float(parts.d) * static_cast<float>(traits.has_parts ? parts.scales[part] : 1);
        float value = scale * static_cast<float>(parts.codes[i] - traits.zero);
        if (traits.has_offset) {
          const float offset = to_float(parts.m) * static_cast<float>(traits.has_parts ? parts.offsets[part] : 1);
          value = value - offset;
        }
        const float want = expected[b * static_cast<size_t>(layout.values) + static_cast<size_t>(i)];
        if (std::isfinite(want)) ASSERT_EQ(value, want) << "block " << b << ", number " << i;
      }
    }
  }
}

}  // namespace
}  // namespace tinyserve
