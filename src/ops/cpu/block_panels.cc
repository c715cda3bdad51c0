#include "ops/cpu/block_panels.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/thread_pool.h"

namespace tinyserve::ops::linear {
namespace {

// The codes of eight groups of a panel, four k's in a word.
using Words = uint32_t[kBlockGroups][8][kPanelWidth];

constexpr uint32_t kEveryByte = 0x01010101u;

// Words of `quads` quads whose `bits` bits from `shift` on share the words of one plane row.
void pack_row(const uint32_t (*quads)[kPanelWidth], int count, int bits, int shift, std::byte*& to) {
  const uint32_t mask = ((1u << bits) - 1) * kEveryByte;
  uint32_t row[kPanelWidth] = {};
  for (int q = 0; q < count; ++q)
    for (int64_t n = 0; n < kPanelWidth; ++n) row[n] |= (quads[q][n] >> shift & mask) << (q * bits);
  std::memcpy(to, row, sizeof row);
  to += sizeof row;
}

void pack_plane(const uint32_t (*quads)[kPanelWidth], int bits, int shift, std::byte*& to) {
  const int together = 8 / bits;
  for (int q = 0; q < 8; q += together) pack_row(quads + q, together, bits, shift, to);
}

void pack_codes(const uint32_t (*quads)[kPanelWidth], int bits, std::byte*& to) {
  if (bits == 8) {
    std::memcpy(to, quads, 8 * 4 * kPanelWidth);
    to += 8 * 4 * kPanelWidth;
    return;
  }
  int shift = 0;
  for (const int plane : {4, 2, 1})
    if (bits - shift >= plane) {
      pack_plane(quads, plane, shift, to);
      shift += plane;
    }
}

template <class T, class Get>
void pack_numbers(const BlockParts* rows, Get&& get, std::byte*& to) {
  for (int64_t n = 0; n < kPanelWidth; ++n) {
    const T value = get(rows[n]);
    std::memcpy(to + n * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
  }
  to += kPanelWidth * sizeof(T);
}

// One panel of `rows` outputs, whose blocks begin at `from`.
void pack_panel(BlockFormat format, const std::byte* from, int64_t rows, int64_t groups, std::byte* to) {
  const BlockTraits traits = block_traits(format);
  const BlockLayout layout = block_layout(format);
  const int64_t block_groups = layout.values / kGroup, row_bytes = groups / block_groups * layout.bytes;
  const int parts = static_cast<int>(kGroup) / traits.part;
  Words words;
  BlockParts blocks[kPanelWidth];
  if (rows < kPanelWidth) {
    std::memset(words, 0, sizeof words);
    std::memset(blocks, 0, sizeof blocks);
  }
  for (int64_t b = 0; b < groups / block_groups; ++b) {
    for (int64_t n = 0; n < rows; ++n) {
      take_apart(format, from + n * row_bytes + b * layout.bytes, blocks[n]);
      for (int64_t q = 0; q < block_groups * 8; ++q) std::memcpy(&words[q / 8][q % 8][n], blocks[n].codes + 4 * q, 4);
    }
    if (traits.has_parts) {
      pack_numbers<Float16>(
          blocks, [](const BlockParts& p) { return p.d; }, to);
      if (traits.has_offset)
        pack_numbers<Float16>(
            blocks, [](const BlockParts& p) { return p.m; }, to);
    }
    for (int64_t g = 0; g < block_groups; ++g) {
      pack_codes(words[g], traits.bits, to);
      if (!traits.has_parts) {
        pack_numbers<Float16>(
            blocks, [](const BlockParts& p) { return p.d; }, to);
        if (traits.has_offset)
          pack_numbers<Float16>(
              blocks, [](const BlockParts& p) { return p.m; }, to);
        continue;
      }
      const int64_t first = g * parts;
      for (int64_t i = first; i < first + parts; ++i)
        pack_numbers<int8_t>(
            blocks, [=](const BlockParts& p) { return p.scales[i]; }, to);
      for (int64_t i = first; traits.has_offset && i < first + parts; ++i)
        pack_numbers<int8_t>(
            blocks, [=](const BlockParts& p) { return p.offsets[i]; }, to);
    }
  }
}

const BlockWeight::Part& part_of(const BlockWeight& weight, int64_t panel) {
  size_t i = 0;
  while (i + 1 < weight.parts.size() && weight.parts[i + 1].first_panel <= panel) ++i;
  return weight.parts[i];
}

}  // namespace

const BlockKernels& block_kernels(const Kernels& like) {
  const std::vector<const Kernels*>& all = available_kernels();
  const std::vector<const BlockKernels*> blocks = available_block_kernels();
  if (&like == all.front()) return *blocks.front();
  const auto from_end = static_cast<size_t>(all.end() - std::find(all.begin(), all.end(), &like));
  return *blocks[blocks.size() - std::min(from_end, blocks.size())];
}

std::unique_ptr<BlockWeight> pack_blocks(ThreadPool& pool, std::span<const WeightSource> parts) {
  TS_CHECK(!parts.empty(), "a weight needs at least one part");
  auto weight = std::make_unique<BlockWeight>();
  weight->format = WeightFormat::kBlocks;
  weight->in_features = parts[0].view.shape[1];
  weight->groups = weight->in_features / kGroup;
  size_t bytes = 0;
  for (const WeightSource& part : parts) {
    TS_CHECK(part.view.blocks && !part.transposed && part.view.shape[1] == weight->in_features,
             "parts of a weight of blocks are blocks and equally wide");
    const int64_t out = part.view.shape[0], panels = (out + kPanelWidth - 1) / kPanelWidth;
    weight->parts.push_back({*part.view.blocks, weight->panels, weight->out_features, out, bytes});
    bytes += static_cast<size_t>(panels * block_panel_bytes(block_traits(*part.view.blocks), weight->groups));
    weight->panels += panels;
    weight->out_features += out;
  }
  weight->data = AlignedBuffer(bytes);
  weight->size_bytes = bytes;
  pool.parallel_for(weight->panels, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) {
      const BlockWeight::Part& part = part_of(*weight, p);
      const TensorView& view = parts[static_cast<size_t>(&part - weight->parts.data())].view;
      const BlockLayout layout = block_layout(part.format);
      const int64_t first = (p - part.first_panel) * kPanelWidth;
      const int64_t panel_bytes = block_panel_bytes(block_traits(part.format), weight->groups);
      pack_panel(part.format, view.data + first * (weight->in_features / layout.values) * layout.bytes,
                 std::min(kPanelWidth, part.out_features - first), weight->groups,
                 weight->data.data() + part.at + (p - part.first_panel) * panel_bytes);
    }
  });
  return weight;
}

void run_block_panels(const BlockKernels& blocks, const Kernels& kernels, const LinearArgs& a,
                      const BlockWeight& weight, const std::byte* x, int64_t begin, int64_t end, int64_t tile_rows,
                      float* sums, std::byte* unpacked) {
  const int64_t row_bytes = weight.groups * blocks.x_group_bytes;
  for (int64_t p = begin; p < end; ++p) {
    const BlockWeight::Part& part = part_of(weight, p);
    const BlockTraits traits = block_traits(part.format);
    const BlockKernels::Format& format = blocks.formats[static_cast<int>(part.format)];
    const int64_t within = p - part.first_panel, n = part.first_output + within * kPanelWidth;
    const std::byte* panel = weight.data.data() + part.at + within * block_panel_bytes(traits, weight.groups);
    for (int64_t row = 0, rows; row < a.rows; row += rows) {
      rows = std::min(tile_rows, a.rows - row);
      const std::byte* x_rows = x + row * row_bytes;
      if (rows <= blocks.fused_rows) {
        format.multiply({panel, weight.groups, x_rows, row_bytes, rows, sums, true, nullptr});
      } else {
        for (int64_t g = 0; g < weight.groups; g += kBlockGroups) {
          const int64_t groups = std::min(kBlockGroups, weight.groups - g);
          format.unpack(panel + block_group_at(traits, g) - block_header_bytes(traits), groups, unpacked);
          format.multiply_unpacked(
              {unpacked, groups, x_rows + g * blocks.x_group_bytes, row_bytes, rows, sums, g == 0, nullptr});
        }
      }
      kernels.store({sums, rows, std::min(kPanelWidth, part.out_features - within * kPanelWidth),
                     a.bias ? a.bias + n : nullptr, a.y + row * a.y_stride + n, a.y_stride, a.accumulate});
    }
  }
}

}  // namespace tinyserve::ops::linear
