#include "ops/ops_cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/block_parts.h"

namespace tinyserve::ops {
namespace {

std::vector<float> uniforms(uint64_t stream, int64_t n, float scale = 1) {
  std::vector<float> values(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) values[i] = scale * uniform(stream, static_cast<uint64_t>(i));
  return values;
}

// Bounds of absolute + relative * |ref|.
std::function<std::vector<float>(const std::vector<float>&)> within(float absolute, float relative) {
  return [=](const std::vector<float>& ref) {
    std::vector<float> bounds(ref.size());
    for (size_t i = 0; i < ref.size(); ++i) bounds[i] = absolute + relative * std::abs(ref[i]);
    return bounds;
  };
}
const auto kExact = within(0, 0);

std::vector<std::byte> encode(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * dtype_bytes(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kF32) {
      std::memcpy(bytes.data() + 4 * i, &values[i], 4);
      continue;
    }
    uint16_t bits = to_bfloat16(values[i]).bits;
    if (dtype == DType::kF16) {  // values in (-1, 1): sign, exponent, ten bits of mantissa, truncated
      const uint32_t u = std::bit_cast<uint32_t>(values[i]);
      const int exponent = static_cast<int>((u >> 23) & 255) - 127 + 15;
      bits = static_cast<uint16_t>((u >> 16 & 0x8000) | (exponent > 0 ? exponent << 10 | (u >> 13 & 1023) : 0));
    }
    std::memcpy(bytes.data() + 2 * i, &bits, 2);
  }
  return bytes;
}

void add_embed(std::vector<OpCase>& cases) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (const int64_t width : {1, 7, 64, 100, 1031})
      for (const bool accumulate : {false, true})
        cases.push_back({"embed_" + std::string(dtype_name(dtype)) + "_" + std::to_string(width) + (accumulate ? "_add" : ""),
                         [=](Ops& ops) {
                           constexpr int64_t kVocab = 50;
                           const auto bytes = encode(uniforms(1, kVocab * width), dtype);
                           // Checkpoints put tensors at any address: start at an odd one.
                           std::vector<std::byte> odd(bytes.size() + 1);
                           std::copy(bytes.begin(), bytes.end(), odd.begin() + 1);
                           std::unique_ptr<Memory> owner;
                           const TensorView table = ops.place({odd.data() + 1, dtype, {kVocab, width}}, owner);
                           const std::vector<int32_t> ids{3, 0, 49, 3, 17, 20, 21};
                           OnBackend<float> out(ops, uniforms(2, static_cast<int64_t>(ids.size()) * (width + 3)));
                           ops.embed(table, ids, 1.7f, accumulate, out.get(), width + 3);
                           return out.read();
                         },
                         within(1.2e-7f, 1.2e-7f)});  // one rounding apart: fused multiply-add or not, 2^-23 x 1.7
}

// [rows, width] of random blocks whose d and m are between 2^-11 and 2^-7.
std::vector<std::byte> random_blocks(BlockFormat format, int64_t rows, int64_t width, uint64_t stream) {
  const BlockLayout layout = block_layout(format);
  const int64_t blocks = rows * width / layout.values;
  std::vector<std::byte> bytes(static_cast<size_t>(blocks * layout.bytes));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(127.99f * (1 + uniform(stream, i)));
  // Halves are first or last in a block, two where there is an offset.
  const bool last = format == BlockFormat::kQ2K || format == BlockFormat::kQ3K || format == BlockFormat::kQ6K;
  const int halves = block_traits(format).has_offset ? 2 : 1;
  for (int64_t b = 0; b < blocks; ++b)
    for (int h = 0; h < halves; ++h) {
      const int64_t at = b * layout.bytes + (last ? layout.bytes - 2 * (h + 1) : 2 * h);
      bytes[at + 1] = (bytes[at + 1] & std::byte{0x8f}) | std::byte{0x10};  // exponents 4 to 7 of 31
    }
  return bytes;
}

void add_blocks(std::vector<OpCase>& cases) {
  for (int f = 0; f < kNumBlockFormats; ++f) {
    const auto format = static_cast<BlockFormat>(f);
    const std::string name(block_layout(format).name);
    cases.push_back({"embed_" + name,
                     [=](Ops& ops) {
                       const int64_t width = 2 * block_layout(format).values;
                       const std::vector<int32_t> ids{3, 0, 8, 3};
                       OnBackend<float> out(ops, uniforms(2, static_cast<int64_t>(ids.size()) * (width + 3)));
                       const auto bytes = random_blocks(format, 9, width, 17);
                       const TensorView blocks{.data = bytes.data(), .shape = {9, width}, .blocks = format};
                       std::vector<float> values(static_cast<size_t>(9 * width));
                       blocks.read(0, 9 * width, values.data());
                       const TensorView numbers{reinterpret_cast<const std::byte*>(values.data()), DType::kF32, {9, width}};
                       std::unique_ptr<Memory> owner;
                       const TensorView table = ops.on_host() ? blocks : ops.place(numbers, owner);
                       ops.embed(table, ids, 1.7f, true, out.get(), width + 3);
                       return out.read();
                     },
                     within(1.2e-7f, 1.2e-7f)});  // one rounding apart, of values below 1
    for (const int64_t rows : {1, 3, 20})
      cases.push_back({"linear_" + name + "_" + std::to_string(rows),
                       [=](Ops& ops) {
                         constexpr int64_t kIn = 512, kOut = 100;
                         const auto bytes = random_blocks(format, kOut, kIn, 18);
                         const WeightSource part{{.data = bytes.data(), .shape = {kOut, kIn}, .blocks = format}};
                         const auto weight = ops.pack_weight({&part, 1}, WeightFormat::kBlocks);
                         OnBackend<float> x(ops, uniforms(19, rows * kIn)), y(ops, std::vector<float>(rows * kOut));
                         ops.linear({x.get(), kIn, rows, weight.get(), nullptr, y.get(), kOut, false});
                         return y.read();
                       },
                       // Inputs in (-1, 1) are rounded to steps of 1/127, or they and the weights to 8 bits of their size
                       // (BF16): errors below 1/254 (1/128) of every weight, which add up in any direction. Six standard
                       // deviations of 512 of them, 1/254/sqrt(3) each, and of weights that are 2^-7 x 32 x 127 at most.
                       [=](const std::vector<float>& ref) {
                         double squares = 0;
                         for (const float v : ref) squares += double{v} * v / static_cast<double>(ref.size());
                         // y has sqrt(512/3) |w| in root mean square, its error sqrt(512/3)/254 |w|: 1/254 of it.
                         return std::vector<float>(ref.size(), static_cast<float>(6 * std::sqrt(squares) / 128));
                       }});
  }
}

void add_norms(std::vector<OpCase>& cases) {
  for (const int64_t width : {1, 3, 16, 63, 64, 384, 1000, 4096})
    for (const bool in_place : {false, true}) {
      const std::string suffix = std::to_string(width) + (in_place ? "_in_place" : "");
      const int64_t rows = 5, stride = width + 5;
      const auto run = [=](Ops& ops, bool layer, bool bias) {
        auto values = uniforms(3, rows * stride, 3);
        for (float& v : values) v += layer ? 0.5f : 0.0f;
        OnBackend<float> x(ops, values), w(ops, uniforms(4, width)), b(ops, uniforms(5, width));
        OnBackend<float> out(ops, std::vector<float>(static_cast<size_t>(rows * stride)));
        float* to = in_place ? x.get() : out.get();
        if (layer) ops.layer_norm(x.get(), stride, rows, width, w.get(), bias ? b.get() : nullptr, 1e-5f, to, stride);
        else ops.rms_norm(x.get(), stride, rows, width, w.get(), 1e-6f, to, stride);
        return in_place ? x.read() : out.read();
      };
      // A sum of n squares of one sign in F32, at least 4 chains: relative error below sqrt(n) 2^-24 << 4e-6.
      cases.push_back({"rms_norm_" + suffix, [=](Ops& ops) { return run(ops, false, false); }, within(1e-6f, 4e-6f)});
      // The mean is subtracted: absolute errors of 2^-24 x 4 (x - mean at most 6) are divided by the deviation (about 1.7;
      // width 1 has none: then eps is all, 1/sqrt(1e-5) = 316 magnifies, but x - mean is exactly 0).
      for (const bool bias : {false, true})
        cases.push_back({std::string("layer_norm_") + (bias ? "bias_" : "") + suffix,
                         [=](Ops& ops) { return run(ops, true, bias); }, within(4e-6f, 4e-6f)});
    }
}

void add_activations(std::vector<OpCase>& cases) {
  const std::pair<Activation, const char*> kinds[] = {{Activation::kSilu, "silu"},
                                                      {Activation::kGelu, "gelu"},
                                                      {Activation::kGeluTanh, "gelu_tanh"},
                                                      {Activation::kRelu, "relu"}};
  for (const auto& [act, name] : kinds)
    for (const int64_t width : {1, 5, 64, 1000, 9001}) {
      // Every magnitude from 2^-20 to 100, both signs.
      const auto inputs = [](uint64_t stream, int64_t n) {
        auto x = uniforms(stream, n);
        for (int64_t i = 0; i < n; ++i) x[i] *= std::exp2(13.3f * (uniform(stream + 100, i) + 1) - 20);
        return x;
      };
      const int64_t rows = width > 5000 ? 2 : 9, stride = width + 7;
      // vector_math: sigmoid and the normal distribution function are within 2e-7, and 3e-7 of erfc is halved. The ref's own
      // F32 arithmetic (1 + tanh, 1 + erf) adds 1.2e-7. Times |x|, which is |ref| or, for negative x, 5 at most where the
      // result is not negligible (beyond, e^-|x| shrinks both).
      const auto bounds = within(2.5e-6f, 5e-7f);
      cases.push_back({std::string("activation_") + name + "_" + std::to_string(width),
                       [=, act = act](Ops& ops) {
                         OnBackend<float> x(ops, inputs(6, rows * stride));
                         ops.activation(act, x.get(), stride, rows, width);
                         return x.read();
                       },
                       bounds});
      cases.push_back({std::string("gated_") + name + "_" + std::to_string(width),
                       [=, act = act](Ops& ops) {
                         auto values = inputs(7, rows * (2 * width + 7));
                         for (int64_t r = 0; r < rows; ++r)  // gates in (-1, 1), so that the bounds stay the same
                           for (int64_t i = 0; i < width; ++i)
                             values[r * (2 * width + 7) + width + i] = uniform(8, r * width + i);
                         OnBackend<float> x(ops, values);
                         OnBackend<float> out(ops, std::vector<float>(static_cast<size_t>(rows * stride), -1));
                         ops.gated_activation(act, x.get(), 2 * width + 7, rows, width, out.get(), stride);
                         return out.read();
                       },
                       bounds});
    }
}

void add_elementwise(std::vector<OpCase>& cases) {
  for (const int64_t width : {1, 13, 64, 5000, 50021}) {
    const int64_t rows = width > 10000 ? 1 : 7, stride = width + 9;
    cases.push_back({"add_" + std::to_string(width),
                     [=](Ops& ops) {
                       OnBackend<float> x(ops, uniforms(9, rows * stride)), y(ops, uniforms(10, rows * (stride + 2)));
                       ops.add(x.get(), stride, y.get(), stride + 2, rows, width);
                       return x.read();
                     },
                     kExact});
    cases.push_back({"softcap_" + std::to_string(width),
                     [=](Ops& ops) {
                       OnBackend<float> x(ops, uniforms(11, rows * stride, 120));
                       ops.softcap(30.0f, x.get(), stride, rows, width);
                       return x.read();
                     },
                     within(30 * 4e-7f, 2e-7f)});  // cap times tanh's 3e-7, and two roundings
  }
}

struct AppendShape {
  const char* name;
  int32_t heads, kv_heads, head_dim, rotary_dim, tokens;
  bool norms;
  DType dtype;
};

std::vector<float> run_append(Ops& ops, const AppendShape& s) {
  constexpr int32_t kPages = 40, kPage = 16;
  const int64_t width = int64_t{s.heads + 2 * s.kv_heads} * s.head_dim, stride = width + 5, half = s.rotary_dim / 2;
  auto values = uniforms(12, s.tokens * stride, 4);
  // Ties of BF16's rounding: 1 + 2^-8 goes down to even, 1 + 3 x 2^-8 up to even. In a value head, which nothing changes.
  values[width - 1] = 1.00390625f;
  values[width - 2] = 1.01171875f;
  OnBackend<float> qkv(ops, values), q_norm(ops, uniforms(13, s.head_dim)), k_norm(ops, uniforms(14, s.head_dim));
  std::vector<float> cosines(s.tokens * half), sines(s.tokens * half);
  for (int64_t i = 0; i < s.tokens * half; ++i) {
    cosines[i] = std::cos(0.37f * static_cast<float>(i));
    sines[i] = std::sin(0.37f * static_cast<float>(i));
  }
  OnBackend<float> cos_memory(ops, cosines), sin_memory(ops, sines);
  KvLayer cache;
  cache.dtype = s.dtype;
  cache.num_pages = kPages;
  cache.kv_heads = s.kv_heads;
  cache.page_size = kPage;
  cache.head_dim = s.head_dim;
  const size_t bytes = static_cast<size_t>(cache.page_elements()) * kPages * dtype_bytes(s.dtype);
  OnBackend<std::byte> k(ops, std::vector<std::byte>(bytes)), v(ops, std::vector<std::byte>(bytes));
  cache.k = k.bytes();
  cache.v = v.bytes();
  std::vector<int64_t> slots;
  for (int32_t t = 0; t < s.tokens; ++t) slots.push_back((t * 37 + 11) % (kPages * kPage));
  // attention's arrays are not read by append_kv, but backends that upload the batch do read them.
  std::vector<int32_t> cu{0, s.tokens}, lens{s.tokens}, table(kPages), positions(s.tokens);
  for (int32_t i = 0; i < kPages; ++i) table[i] = i;
  for (int32_t t = 0; t < s.tokens; ++t) positions[t] = t;
  BatchLayout batch;
  batch.num_seqs = 1;
  batch.num_tokens = s.tokens;
  batch.cu_query_lens = cu.data();
  batch.kv_lens = lens.data();
  batch.page_table = table.data();
  batch.page_table_stride = kPages;
  batch.positions = positions.data();
  batch.slots = slots.data();
  AppendArgs args;
  args.qkv = qkv.get();
  args.qkv_stride = stride;
  args.num_heads = s.heads;
  if (s.norms) {
    args.q_norm = q_norm.get();
    args.k_norm = k_norm.get();
    args.norm_eps = 1e-6f;
  }
  if (half > 0) {
    args.cos = cos_memory.get();
    args.sin = sin_memory.get();
    args.rotary_dim = s.rotary_dim;
  }
  args.cache = cache;
  ops.append_kv(args, ops.begin_step(batch));

  const std::vector<float> after = qkv.read();
  std::vector<float> out;
  for (int32_t t = 0; t < s.tokens; ++t)  // q is an output; k and v in qkv are left in any state
    out.insert(out.end(), after.begin() + t * stride, after.begin() + t * stride + s.heads * s.head_dim);
  for (const auto& memory : {k.read(), v.read()})
    for (size_t i = 0; i < memory.size() / dtype_bytes(s.dtype); ++i) {
      float f = 0;
      BFloat16 b{};
      if (s.dtype == DType::kF32) std::memcpy(&f, memory.data() + 4 * i, 4);
      else std::memcpy(&b, memory.data() + 2 * i, 2);
      out.push_back(s.dtype == DType::kF32 ? f : to_float(b));
    }
  return out;
}

void add_append(std::vector<OpCase>& cases) {
  const AppendShape shapes[] = {
      {"plain_bf16", 6, 2, 64, 0, 5, false, DType::kBF16},    {"plain_f32", 6, 2, 64, 0, 5, false, DType::kF32},
      {"rope_bf16", 6, 2, 64, 64, 3, false, DType::kBF16},    {"rope_f32", 4, 4, 80, 80, 17, false, DType::kF32},
      {"partial_rope_f32", 4, 1, 80, 20, 1, false, DType::kF32}, {"norm_rope_bf16", 8, 2, 128, 128, 33, true, DType::kBF16},
      {"norm_rope_f32", 8, 2, 96, 96, 300, true, DType::kF32}, {"small_bf16", 2, 1, 6, 6, 4, true, DType::kBF16},
  };
  for (const AppendShape& s : shapes) {
    const bool rounds = s.dtype == DType::kBF16 && (s.norms || s.rotary_dim > 0);
    // Rotation and norm: a few roundings of values up to 4 (|k_norm| <= 1, |x| / rms <= sqrt(head_dim)). Where K was
    // computed before it is rounded to BF16, a value on the edge may go to the neighbour, 2^-7 of it away.
    cases.push_back({std::string("append_") + s.name, [=](Ops& ops) { return run_append(ops, s); },
                     !s.norms && s.rotary_dim == 0 ? kExact : within(4e-6f, rounds ? 0x1p-7f : 2e-6f)});
  }
}

void add_copy_pages(std::vector<OpCase>& cases) {
  for (const DType dtype : {DType::kBF16, DType::kF32})
    cases.push_back({"copy_pages_" + std::string(dtype_name(dtype)),
                     [=](Ops& ops) {
                       KvLayer cache;
                       cache.dtype = dtype;
                       cache.num_pages = 9;
                       cache.kv_heads = 3;
                       cache.head_dim = 24;
                       const size_t n = static_cast<size_t>(cache.page_elements() * cache.num_pages);
                       OnBackend<std::byte> k(ops, encode(uniforms(15, n), dtype)), v(ops, encode(uniforms(16, n), dtype));
                       cache.k = k.bytes();
                       cache.v = v.bytes();
                       const std::vector<std::pair<int32_t, int32_t>> pairs{{0, 8}, {3, 4}, {0, 1}};
                       ops.copy_pages(cache, pairs);
                       std::vector<float> out;
                       for (const auto& memory : {k.read(), v.read()})
                         for (const std::byte b : memory) out.push_back(static_cast<float>(b));
                       return out;
                     },
                     kExact});
}

void add_selection(std::vector<OpCase>& cases) {
  // Both choose the same tokens but where a key lies on the edge of its 1/32 nat: a token that is read in another grade, or a page
  // that is not fine, moves a row by up to 0.006. Beyond that a backend may round q to BF16, which moves a logit of 20 by up to
  // 0.04, and sums in F32. Values are below 1.
  for (const SelectionProblem& p : selection_problems())
    cases.push_back({"sparse_attention_" + p.name, [p](Ops& ops) { return p.run(ops).rows; },
                     within(1e-2f, 0)});
}

}  // namespace

float uniform(uint64_t stream, uint64_t index) {
  uint64_t z = stream * 0x9e3779b97f4a7c15ull + index + 0x632be59bd9b4e019ull;  // splitmix64, twice mixed
  for (int i = 0; i < 2; ++i) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
  }
  return (static_cast<float>(z >> 40) + 0.5f) * 0x1p-23f - 1.0f;
}

Limits case_limits() {
  Limits limits;
  limits.max_tokens = 1024;
  limits.max_seqs = 64;
  limits.max_context = 20480;
  limits.max_width = 60000;
  limits.max_heads = 32;
  limits.max_head_dim = 256;
  return limits;
}

std::vector<OpCase> op_cases() {
  std::vector<OpCase> cases;
  add_embed(cases);
  add_blocks(cases);
  add_norms(cases);
  add_activations(cases);
  add_elementwise(cases);
  add_append(cases);
  add_copy_pages(cases);
  add_selection(cases);
  for (const AttentionProblem& p : attention_problems())
    cases.push_back({"attention_" + p.name, [p](Ops& ops) { return p.run(ops); },
                     [p](const std::vector<float>& ref) { return p.bounds(ref); }});
  return cases;
}

}  // namespace tinyserve::ops
