#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "ops/ops_cases.h"

namespace tinyserve::ops {
namespace {

constexpr int32_t kPage = 16;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

enum Kind : uint64_t { kQ = 1, kK, kV };

uint64_t stream_of(Kind kind, int32_t seq, int32_t position) {
  return (uint64_t{kind} << 56) | (static_cast<uint64_t>(seq) << 32) | static_cast<uint32_t>(position);
}

float rounded(float v, DType dtype) { return dtype == DType::kF32 ? v : to_float(to_bfloat16(v)); }

// What is in the cache for one position: the query of the same position is not needed to know it.
float cached(const AttentionProblem& p, Kind kind, int32_t seq, int32_t position, int64_t i) {
  const float v = uniform(stream_of(kind, seq, position), static_cast<uint64_t>(i));
  return rounded(kind == kK ? p.spread * v : v, p.dtype);
}
float query(const AttentionProblem& p, int32_t seq, int32_t position, int64_t i) {
  return p.spread * uniform(stream_of(kQ, seq, position), static_cast<uint64_t>(i));
}

int32_t first_visible(const AttentionProblem& p, int32_t position) {
  return p.window > 0 ? std::max(0, position - p.window + 1) : 0;
}

}  // namespace

float AttentionProblem::scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }

int64_t AttentionProblem::num_tokens() const {
  int64_t n = 0;
  for (const Seq& s : seqs) n += s.query_len;
  return n;
}

std::vector<float> AttentionProblem::run(Ops& ops) const {
  const int64_t tokens = num_tokens(), width = int64_t{heads} * head_dim;
  int32_t stride = 1, used = 0;
  for (const Seq& s : seqs) {
    stride = std::max(stride, (s.kv_len + kPage - 1) / kPage + 1);
    used += (s.kv_len + kPage - 1) / kPage;
  }
  // Physical pages in an order that has nothing to do with the logical one, a third of them unused.
  const int32_t num_pages = used + used / 2 + 3;
  std::vector<int32_t> pages(num_pages);
  std::iota(pages.begin(), pages.end(), 0);
  for (int32_t i = num_pages - 1; i > 0; --i)
    std::swap(pages[i], pages[static_cast<int32_t>((uniform(page_seed, i) + 1) * 0.5 * i)]);

  KvLayer cache;
  cache.dtype = dtype;
  cache.num_pages = num_pages;
  cache.kv_heads = kv_heads;
  cache.page_size = kPage;
  cache.head_dim = head_dim;
  const int64_t elements = cache.page_elements() * num_pages;
  std::vector<float> k(elements, kNaN), v(elements, kNaN);
  // Columns between and after the rows belong to others: q_stride and out_stride are wider than the rows.
  const int64_t q_stride = width + 24, out_stride = width + 8;
  std::vector<float> q(tokens * q_stride, kNaN);
  std::vector<int32_t> cu{0}, lens, positions, table(seqs.size() * stride, -1);
  std::vector<int64_t> slots;
  size_t next_page = 0;
  for (size_t s = 0; s < seqs.size(); ++s) {
    const Seq& seq = seqs[s];
    const int32_t first_query = seq.kv_len - seq.query_len, from = first_visible(*this, first_query);
    lens.push_back(seq.kv_len);
    for (int32_t logical = from / kPage; logical * kPage < seq.kv_len; ++logical)  // pages before it were given back
      table[s * stride + logical] = pages[next_page++];
    const auto slot = [&](int32_t position) {
      return int64_t{table[s * stride + position / kPage]} * kPage + position % kPage;
    };
    for (int32_t position = from; position < seq.kv_len; ++position)
      for (int32_t h = 0; h < kv_heads; ++h)
        for (int32_t i = 0; i < head_dim; ++i) {
          const int64_t number = slot(position) / kPage;
          const int64_t at = ((number * kv_heads + h) * kPage + position % kPage) * head_dim + i;
          k[at] = cached(*this, kK, seq.id, position, int64_t{h} * head_dim + i);
          v[at] = cached(*this, kV, seq.id, position, int64_t{h} * head_dim + i);
        }
    for (int32_t position = first_query; position < seq.kv_len; ++position) {
      const int64_t t = static_cast<int64_t>(positions.size());
      for (int64_t i = 0; i < width; ++i) q[t * q_stride + i] = query(*this, seq.id, position, i);
      positions.push_back(position);
      slots.push_back(slot(position));
    }
    cu.push_back(static_cast<int32_t>(positions.size()));
  }

  const auto narrow = [&](const std::vector<float>& values) {
    std::vector<std::byte> bytes(values.size() * dtype_bytes(dtype));
    for (size_t i = 0; i < values.size(); ++i) {
      const BFloat16 b = to_bfloat16(values[i]);
      if (dtype == DType::kF32)
        std::memcpy(bytes.data() + 4 * i, &values[i], 4);
      else
        std::memcpy(bytes.data() + 2 * i, &b, 2);
    }
    return bytes;
  };
  OnBackend<std::byte> k_memory(ops, narrow(k)), v_memory(ops, narrow(v));
  cache.k = k_memory.bytes();
  cache.v = v_memory.bytes();
  OnBackend<float> q_memory(ops, q), out(ops, std::vector<float>(tokens * out_stride, 12345.0f));

  BatchLayout batch;
  batch.num_seqs = static_cast<int32_t>(seqs.size());
  batch.num_tokens = static_cast<int32_t>(tokens);
  batch.cu_query_lens = cu.data();
  batch.kv_lens = lens.data();
  batch.page_table = table.data();
  batch.page_table_stride = stride;
  batch.positions = positions.data();
  batch.slots = slots.data();
  AttentionArgs args;
  args.q = q_memory.get();
  args.q_stride = q_stride;
  args.num_heads = heads;
  args.scale = scale();
  args.window = window;
  args.softcap = softcap;
  args.cache = cache;
  args.out = out.get();
  args.out_stride = out_stride;
  ops.attention(args, ops.begin_step(batch));

  const std::vector<float> all = out.read();
  std::vector<float> rows;
  for (int64_t t = 0; t < tokens; ++t) {
    rows.insert(rows.end(), all.begin() + t * out_stride, all.begin() + t * out_stride + width);
    for (int64_t i = width; i < out_stride; ++i) TS_CHECK(all[t * out_stride + i] == 12345.0f, "written beyond a row");
  }
  return rows;
}

// Rounding moves each q_i and each unnormalised probability independently by a relative error of at most 2^-9,
// uniformly: variance 2^-18 / 3. To first order the output of channel c moves by
//   sum_i dq_i g_i,  g_i = scale sum_j p_j (v_jc - out_c) k_ji s'_j   (s' is the soft cap's slope, at most 1), and
//   sum_j p_j e_j (v_jc - out_c).
// The bound is 6 standard deviations of their sum (one element in 5e8 is beyond, were they Gaussian; these sums are
// bounded and the inputs fixed), plus what F32 arithmetic in another order may differ: a score by a few units of 2^-24
// of its partial sums, which changes its probability by as much; the soft cap multiplies an absolute error of tanh of
// 4e-7 (the backends' plus ref's); sums of up to some hundred positions per chain by some 16 units, cancelling among
// chains.
std::vector<float> AttentionProblem::bounds(const std::vector<float>& ref) const {
  const double variance = dtype == DType::kBF16 ? 0x1p-18 / 3 : 0.0;
  std::vector<float> bounds;
  std::vector<double> p, q(head_dim), g(head_dim);
  size_t at = 0;
  for (const Seq& seq : seqs)
    for (int32_t position = seq.kv_len - seq.query_len; position < seq.kv_len; ++position) {
      const int32_t first = first_visible(*this, position), n = position - first + 1;
      const auto row = [&](const std::vector<float>& values, int32_t j, int32_t kv) {
        return values.data() + (int64_t{j} * kv_heads + kv) * head_dim;
      };
      std::vector<float> k, v;  // [n, kv_heads, head_dim]
      for (int32_t j = 0; j < n; ++j)
        for (int64_t i = 0; i < int64_t{kv_heads} * head_dim; ++i) {
          k.push_back(cached(*this, kK, seq.id, first + j, i));
          v.push_back(cached(*this, kV, seq.id, first + j, i));
        }
      for (int32_t h = 0; h < heads; ++h) {
        const int32_t kv = h / (heads / kv_heads);
        for (int32_t i = 0; i < head_dim; ++i)
          q[i] = scale() * query(*this, seq.id, position, int64_t{h} * head_dim + i);
        p.assign(n, 0);
        double total = 0, largest = -INFINITY, score = 0;
        for (int32_t j = 0; j < n; ++j) {
          for (int32_t i = 0; i < head_dim; ++i) p[j] += q[i] * row(k, j, kv)[i];
          score = std::max(score, std::abs(p[j]));
          if (softcap > 0) p[j] = softcap * std::tanh(p[j] / softcap);
          largest = std::max(largest, p[j]);
        }
        for (double& x : p) total += x = std::exp(x - largest);
        for (double& x : p) x /= total;
        for (int32_t c = 0; c < head_dim; ++c) {
          const double out = ref[at++];
          std::fill(g.begin(), g.end(), 0.0);
          double sum = 0, spread_of_values = 0, size_of_values = 0;
          for (int32_t j = 0; j < n; ++j) {
            const double w = p[j] * (row(v, j, kv)[c] - out);
            sum += w * w * variance;
            spread_of_values += std::abs(w);
            size_of_values += p[j] * std::abs(row(v, j, kv)[c]);
            if (variance > 0 && p[j] > 1e-7)
              for (int32_t i = 0; i < head_dim; ++i) g[i] += w * row(k, j, kv)[i];
          }
          for (int32_t i = 0; i < head_dim; ++i) sum += q[i] * g[i] * q[i] * g[i] * variance;
          const double f32 =
              0x1p-24 * (spread_of_values * (4 * score + 8) + size_of_values * 16) + 4e-7 * softcap * spread_of_values;
          bounds.push_back(static_cast<float>(6 * std::sqrt(sum) + f32));
        }
      }
    }
  return bounds;
}

std::vector<AttentionProblem> attention_problems() {
  std::vector<AttentionProblem> list;
  const auto add = [&](AttentionProblem p) { list.push_back(std::move(p)); };
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    const std::string type = dtype == DType::kBF16 ? "_bf16" : "_f32";
    for (const int32_t len : {1, 2, 15, 16, 17, 63, 64, 65, 100, 1000, 1024, 1025, 5000})
      add({.name = "decode_" + std::to_string(len) + type, .heads = 6, .dtype = dtype, .seqs = {{1, len, 1}}});
    for (const int32_t d : {2, 6, 8, 10, 16, 24, 32, 40, 48, 72, 80, 96, 112, 128, 160, 192, 256})
      add({.name = "head_dim_" + std::to_string(d) + type,
           .head_dim = d,
           .dtype = dtype,
           .seqs = {{1, 130, 1}, {2, 70, 9}}});
    for (const int32_t group : {1, 2, 3, 4, 5, 6, 7, 8, 13, 16})
      add({.name = "group_" + std::to_string(group) + type,
           .heads = 2 * group,
           .head_dim = 16,
           .dtype = dtype,
           .seqs = {{1, 200, 1}, {2, 90, 11}}});
    for (const int32_t window : {1, 5, 16, 64, 100, 1500})
      add({.name = "window_" + std::to_string(window) + type,
           .head_dim = 32,
           .dtype = dtype,
           .window = window,
           .seqs = {{1, 2200, 1}, {2, 300, 150}, {3, 90, 90}}});
    add({.name = "softcap" + type,
         .head_dim = 32,
         .dtype = dtype,
         .softcap = 2.5f,
         .spread = 3,
         .seqs = {{1, 150, 1}, {2, 90, 40}}});
    add({.name = "softcap_window" + type,
         .head_dim = 32,
         .dtype = dtype,
         .window = 40,
         .softcap = 50,
         .seqs = {{1, 150, 1}, {2, 90, 40}}});
    add({.name = "prefill" + type, .heads = 6, .head_dim = 64, .dtype = dtype, .seqs = {{1, 150, 150}}});
    add({.name = "prefill_after_prefix" + type, .heads = 2, .kv_heads = 1, .dtype = dtype, .seqs = {{1, 1300, 60}}});
    add({.name = "mixed" + type,
         .heads = 6,
         .head_dim = 64,
         .dtype = dtype,
         .seqs = {{1, 700, 1}, {2, 40, 40}, {3, 16, 1}, {4, 333, 33}, {5, 1, 1}, {6, 2100, 1}}});
    add({.name = "idle_sequence" + type, .head_dim = 16, .dtype = dtype, .seqs = {{1, 30, 1}, {2, 40, 0}, {3, 50, 2}}});
    // One probability is nearly 1, others are 1e-10 and less: the running maximum must be followed.
    add({.name = "peaked" + type, .head_dim = 32, .dtype = dtype, .spread = 8, .seqs = {{1, 1100, 1}, {2, 100, 30}}});
  }
  return list;
}

}  // namespace tinyserve::ops
