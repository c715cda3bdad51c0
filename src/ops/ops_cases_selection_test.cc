#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "ops/ops_cases.h"

namespace tinyserve::ops {
namespace {

enum Kind : uint64_t { kKeys = 11, kValues, kQueries, kMap, kMean };

// Nearly Gaussian, of variance 1.
float normal(uint64_t stream, uint64_t index) {
  float sum = 0;
  for (uint64_t i = 0; i < 12; ++i) sum += uniform(stream, 12 * index + i) / 2;
  return sum;
}

// The axes of a head: rows of an orthogonal matrix (a product of reflections).
std::vector<double> rotation(int32_t d, uint64_t stream) {
  std::vector<double> r(d * d);
  for (int32_t i = 0; i < d; ++i) r[i * d + i] = 1;
  for (int32_t n = 0; n < 4; ++n) {
    std::vector<double> v(d);
    double norm = 0;
    for (int32_t i = 0; i < d; ++i) v[i] = normal(stream, n * d + i), norm += v[i] * v[i];
    for (int32_t row = 0; row < d; ++row) {
      double dot = 0;
      for (int32_t i = 0; i < d; ++i) dot += r[row * d + i] * v[i];
      for (int32_t i = 0; i < d; ++i) r[row * d + i] -= 2 * dot / norm * v[i];
    }
  }
  return r;
}

// Deviation of keys along axis x.
double deviation(int32_t x, int32_t d) { return 3 * std::exp(-3.0 * x / d); }

HeadBits bits_of(int32_t d, int32_t head) {
  const int32_t coarse = coarse_units(d), fine = d / 4;
  HeadBits b;
  b.coarse4 = static_cast<uint8_t>(head % 2 == 0 ? coarse / 3 : 0);
  b.coarse2 = static_cast<uint8_t>(coarse - 2 * b.coarse4);
  b.fine4 = static_cast<uint8_t>(head % 3 == 0 ? std::max<int32_t>(b.coarse4, fine / 4) : b.coarse4);
  b.fine2 = static_cast<uint8_t>(fine - 2 * b.fine4);
  return b;
}

template <class T>
std::vector<uint8_t> bytes_of(const std::vector<T>& v) {
  std::vector<uint8_t> bytes(v.size() * sizeof(T));
  std::memcpy(bytes.data(), v.data(), bytes.size());
  return bytes;
}

std::vector<uint8_t> narrow(const std::vector<float>& values, DType dtype) {
  if (dtype == DType::kF32) return bytes_of(values);
  std::vector<BFloat16> out;
  for (const float v : values) out.push_back(to_bfloat16(v));
  return bytes_of(out);
}

}  // namespace

SelectionProblem::Result SelectionProblem::run(Ops& ops) const {
  const int32_t d = head_dim, group = heads / kv_heads, logical = (length + kCodePage - 1) / kCodePage;
  const int32_t num_pages = logical + 5;
  const int64_t width = int64_t{heads} * d;
  std::vector<int32_t> table(num_pages);
  std::iota(table.begin(), table.end(), 0);
  for (int32_t i = num_pages - 1; i > 0; --i)
    std::swap(table[i], table[static_cast<int32_t>((uniform(page_seed, i) + 1) * 0.5 * i)]);

  std::vector<HeadBits> bits;
  std::vector<float> mean, to_axes, from_axes, coarse_error, fine_error;
  KvLayer cache{.dtype = dtype, .num_pages = num_pages, .kv_heads = kv_heads, .page_size = kCodePage, .head_dim = d};
  std::vector<float> k(cache.page_elements() * num_pages), v(k.size()), q(positions.size() * width);
  for (int32_t h = 0; h < kv_heads; ++h) {
    const std::vector<double> r = rotation(d, (uint64_t{kMap} << 32) + h);
    bits.push_back(bits_of(d, h));
    for (int32_t i = 0; i < d; ++i) mean.push_back(2 * uniform(kMean, h * d + i));
    for (int32_t x = 0; x < d; ++x) {
      const auto error = [&](int32_t b) { return b == 4 ? kDistortion4 : b == 2 ? kDistortion2 : kDistortion0; };
      coarse_error.push_back(error(bits[h].coarse(x / 4)));
      fine_error.push_back(error(bits[h].fine(x / 4)));
      for (int32_t i = 0; i < d; ++i) {
        to_axes.push_back(static_cast<float>(r[x * d + i] / deviation(x, d)));
        from_axes.push_back(static_cast<float>(r[x * d + i] * deviation(x, d)));
      }
    }
    for (int32_t p = 0; p < length; ++p) {
      const int64_t at = ((int64_t{table[p / kCodePage]} * kv_heads + h) * kCodePage + p % kCodePage) * d;
      for (int32_t i = 0; i < d; ++i) k[at + i] = mean[h * d + i], v[at + i] = uniform(kValues, (int64_t{p} * kv_heads + h) * d + i);
      for (int32_t x = 0; x < d; ++x) {
        const double u = deviation(x, d) * normal(kKeys, (int64_t{p} * kv_heads + h) * d + x);
        for (int32_t i = 0; i < d; ++i) k[at + i] += static_cast<float>(u * r[x * d + i]);
      }
      if (marked_ends)
        std::fill_n(v.begin() + at, 16, p < kCodePage || p / kCodePage >= length / kCodePage - 1 ? 1.0f : 0.0f);
    }
  }
  std::vector<int32_t> cu(positions.size() + 1), lens, seq_table, query_positions;
  std::vector<SparseRow> rows;
  for (size_t t = 0; t < positions.size(); ++t) {
    for (int64_t i = 0; i < width; ++i) q[t * width + i] = spread * normal(kQueries, positions[t] * width + i) / std::sqrt(group);
    cu[t + 1] = static_cast<int32_t>(t + 1);  // each query a sequence of its own, of the same pages
    lens.push_back(positions[t] + 1);
    seq_table.insert(seq_table.end(), table.begin(), table.end());
    rows.push_back({.row = static_cast<int32_t>(t),
                    .seq = static_cast<int32_t>(t),
                    .position = positions[t],
                    .exact = exact,
                    .coded = coded,
                    .top_p = top_p,
                    .audit = audit * (t + 1)});
  }

  OnBackend<HeadBits> on_bits(ops, bits);
  OnBackend<float> on_mean(ops, mean), on_to(ops, to_axes), on_from(ops, from_axes), on_coarse(ops, coarse_error), on_fine(ops, fine_error);
  const SelectionMap map{on_bits.get(), on_mean.get(), on_to.get(), on_from.get(), on_coarse.get(), on_fine.get()};
  OnBackend<uint8_t> on_k(ops, narrow(k, dtype)), on_v(ops, narrow(v, dtype));
  cache.k = reinterpret_cast<std::byte*>(on_k.get());
  cache.v = reinterpret_cast<std::byte*>(on_v.get());
  const int64_t blocks = int64_t{num_pages} * kv_heads;
  OnBackend<uint8_t> coarse(ops, std::vector<uint8_t>(blocks * coarse_bytes(d), 0xA5));
  OnBackend<uint8_t> fine(ops, std::vector<uint8_t>(blocks * fine_bytes(d), 0xA5));
  OnBackend<uint8_t> means(ops, std::vector<uint8_t>(blocks * mean_bytes(d), 0xA5));
  OnBackend<uint64_t> values(ops, std::vector<uint64_t>(blocks * value_bytes(d) / 8, 0xA5));
  cache.codes = {coarse.get(), fine.get(), means.get(), value_codes ? values.get() : nullptr};
  const std::vector<int32_t> full(table.begin(), table.begin() + length / kCodePage);
  ops.encode_pages({.cache = cache, .map = map, .pages = full});

  OnBackend<float> on_q(ops, q), out(ops, std::vector<float>(q.size(), 12345.0f)), dense(ops, q);
  std::vector<int64_t> slots(positions.size());
  const BatchLayout batch = ops.begin_step({.num_seqs = static_cast<int32_t>(positions.size()),
                                            .num_tokens = static_cast<int32_t>(positions.size()),
                                            .cu_query_lens = cu.data(),
                                            .kv_lens = lens.data(),
                                            .page_table = seq_table.data(),
                                            .page_table_stride = num_pages,
                                            .positions = positions.data(),
                                            .slots = slots.data()});
  Result result;
  result.stats.resize(positions.size() * kv_heads);
  const float scale = 1 / std::sqrt(static_cast<float>(d));
  ops.sparse_attention({.q = on_q.get(), .q_stride = width, .num_heads = heads, .scale = scale, .cache = cache, .map = map, .rows = rows,
                        .sinks = sinks, .recent = recent, .fine_divisor = fine_divisor, .out = out.get(), .out_stride = width,
                        .stats = result.stats.data()},
                       batch);
  ops.attention({.q = on_q.get(), .q_stride = width, .num_heads = heads, .scale = scale, .cache = cache, .out = dense.get(), .out_stride = width},
                batch);
  result.rows = out.read();
  result.dense = dense.read();
  const std::vector<uint8_t> all[] = {coarse.read(), fine.read(), means.read(), bytes_of(values.read())};
  for (const std::vector<uint8_t>& part : all) {
    const int64_t bytes = static_cast<int64_t>(part.size()) / num_pages;
    for (const int32_t page : full) result.codes.insert(result.codes.end(), part.begin() + page * bytes, part.begin() + (page + 1) * bytes);
  }
  return result;
}

std::vector<SelectionProblem> selection_problems() {
  std::vector<SelectionProblem> list;
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    const std::string type = dtype == DType::kBF16 ? "_bf16" : "_f32";
    const auto add = [&](SelectionProblem p) {
      p.dtype = dtype;
      p.name += type;
      list.push_back(std::move(p));
    };
    add({.name = "many_rows", .length = 600, .positions = {40, 47, 48, 63, 64, 500, 575, 576, 598, 599}});
    for (const int32_t d : {16, 32, 48, 80, 112, 128, 256})
      add({.name = "head_dim_" + std::to_string(d), .heads = 4, .head_dim = d, .length = 330, .positions = {329}});
    for (const int32_t group : {1, 2, 4, 5, 7, 8, 16})
      add({.name = "group_" + std::to_string(group), .heads = 2 * group, .length = 400, .positions = {390}});
    add({.name = "peaked", .length = 900, .positions = {777, 899}, .spread = 5});
    add({.name = "flat", .length = 900, .positions = {899}, .spread = 0.1f});
    add({.name = "nothing_exact", .length = 500, .positions = {499}, .exact = 0, .coded = 0});
    add({.name = "only_coded", .length = 500, .positions = {499}, .exact = 0, .coded = 200});
    add({.name = "exact_values", .length = 500, .positions = {499}, .value_codes = false});
    add({.name = "more_than_there_is", .length = 500, .positions = {20, 499}, .exact = 5000, .coded = 5000});
    add({.name = "all_fine", .length = 500, .positions = {499}, .fine_divisor = 1});
    add({.name = "no_sinks", .length = 500, .positions = {499}, .sinks = 0, .recent = 0});
    add({.name = "wide_ends", .length = 500, .positions = {499}, .sinks = 4, .recent = 8});
    add({.name = "sampled", .heads = 3, .kv_heads = 1, .head_dim = 16, .length = 17000, .positions = {16999}});
    add({.name = "top_p", .length = 900, .positions = {777, 899}, .exact = 200, .spread = 3, .top_p = 0.5f});
    add({.name = "long", .length = 2500, .positions = {2499}, .exact = 64, .coded = 256});
  }
  return list;
}

}  // namespace tinyserve::ops
