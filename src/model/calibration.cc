#include "model/calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "kv/kv_storage.h"
#include "model/rope.h"
#include "select/statistics_collector.h"

namespace tinyserve {
namespace {

constexpr int32_t kStep = 512, kPage = 16, kLeast = 64;

void check_finite(const SelectionMaps& maps) {
  for (const auto& heads : maps.layers)
    for (const HeadMap& h : heads)
      for (const auto* part : {&h.mean, &h.to_axes, &h.from_axes, &h.coarse_error, &h.fine_error})
        for (const float x : *part)
          if (!std::isfinite(x)) throw InputError("the model computes keys or queries that are no numbers: its weights are broken");
}

}  // namespace

SelectionMaps calibrate(Model& model, ops::Ops& ops, std::span<const int32_t> tokens, int32_t context,
                        const std::function<void(int32_t)>& progress) {
  const ModelConfig& c = model.config();
  const std::vector<bool> selectable = model.selectable_layers();
  if (!ops.has_selection() || !ops.on_host()) throw InputError(fmt::format("the backend '{}' has no kernels for selection", ops.name()));
  if (!ops::has_codes(c.head_dim)) throw InputError(fmt::format("selection needs heads of 16 to 256 channels, a multiple of 16; this model's have {}", c.head_dim));
  if (std::find(selectable.begin(), selectable.end(), true) == selectable.end())
    throw InputError("no layer of this model can be selected from: all have windows or soft caps");
  if (static_cast<int32_t>(tokens.size()) < kLeast) throw InputError(fmt::format("{} tokens are too few to fit selection to: at least {}", tokens.size(), kLeast));

  context = std::min({context, c.max_positions, static_cast<int32_t>(tokens.size())});
  KvStorage storage(ops, model.kv_shape(), kPage, (context + kPage - 1) / kPage);
  model.reserve(kStep, 1, 1, context);
  std::vector<int32_t> table((context + kPage - 1) / kPage), positions(kStep);
  std::vector<int64_t> slots(kStep);
  std::iota(table.begin(), table.end(), 0);
  const auto logits = ops.allocate(sizeof(float) * static_cast<size_t>(c.vocab_size));
  KeyStatistics statistics(c.num_layers, c.num_heads, c.num_kv_heads, c.head_dim);
  // A text as long as the model's longest context has keys of all positions by itself.
  const Rope* rope = context < c.max_positions ? model.rope() : nullptr;
  StatisticsCollector collector(statistics, c.num_heads, c.num_kv_heads, c.head_dim,
                                rope ? Turning{rope->inverse_frequencies, c.max_positions} : Turning{});
  for (size_t start = 0; start + kLeast <= tokens.size(); start += static_cast<size_t>(context)) {
    const std::span<const int32_t> text = tokens.subspan(start, std::min<size_t>(tokens.size() - start, static_cast<size_t>(context)));
    for (int32_t begin = 0; begin < static_cast<int32_t>(text.size()); begin += kStep) {
      const int32_t end = std::min(static_cast<int32_t>(text.size()), begin + kStep), cu[] = {0, end - begin};
      std::iota(positions.begin(), positions.end(), begin);
      std::iota(slots.begin(), slots.end(), int64_t{begin});
      Step step{.token_ids = text.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)), .selector = &collector};
      step.layout = {.num_seqs = 1,
                     .num_tokens = end - begin,
                     .cu_query_lens = cu,
                     .kv_lens = &end,
                     .page_table = table.data(),
                     .page_table_stride = static_cast<int32_t>(table.size()),
                     .positions = positions.data(),
                     .slots = slots.data()};
      collector.next_rows(begin, static_cast<int64_t>(start) + begin);
      model.forward(step, storage.layers(), logits->as<float>());
      if (progress) progress(end - begin);
    }
  }
  SelectionMaps maps = SelectionMaps::fit(statistics, selectable);
  check_finite(maps);
  return maps;
}

}  // namespace tinyserve
