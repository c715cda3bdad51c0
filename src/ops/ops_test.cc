// Every backend against ref on the one list of cases, and what the contract says beyond values: rows do not depend on
// batch, chunks or threads.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/thread_pool.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/ops.h"
#include "ops/ops_cases.h"

namespace tinyserve::ops {
namespace {

// A backend with its pool, reserved for the cases.
struct Backend {
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Ops> ops;
};

// "ref", "cuda", or "cpu-LEVEL" for an instruction set. Null where the machine lacks it.
std::unique_ptr<Backend> make_backend(const std::string& name, int threads) {
  auto backend = std::make_unique<Backend>();
  backend->pool = std::make_unique<ThreadPool>(threads);
  if (name.starts_with("cpu-")) {
    const auto isa = static_cast<cpu::Isa>(name.back() - '0');
    if (isa > cpu::detect_isa()) return nullptr;
    backend->ops = make_cpu_ops(*backend->pool, {}, isa);
  } else {
    try {
      backend->ops = make_ops(name, *backend->pool);
    } catch (const InputError&) {
      return nullptr;  // no device, or not built
    }
  }
  backend->ops->reserve(case_limits());
  return backend;
}

std::string cpu_name(cpu::Isa isa) { return "cpu-" + std::to_string(static_cast<int>(isa)); }

std::vector<std::string> backend_names() {
  std::vector<std::string> names{cpu_name(cpu::Isa::kAvx2), cpu_name(cpu::Isa::kAvx512), cpu_name(cpu::Isa::kAvx512Bf16)};
#ifdef TINYSERVE_CUDA
  names.push_back("cuda");
#endif
  return names;
}

std::string printable(const std::string& backend) {
  return backend.starts_with("cpu-") ? std::array{"avx2", "avx512", "avx512bf16"}[backend.back() - '0'] : backend.c_str();
}

const std::vector<OpCase>& cases() {
  static const std::vector<OpCase> list = op_cases();
  return list;
}

class OpsTest : public testing::TestWithParam<std::string> {
 protected:
  // One per backend and thread count, kept: construction is slow on a GPU.
  static Backend* backend(const std::string& name, int threads = 2) {
    static std::map<std::pair<std::string, int>, std::unique_ptr<Backend>> kept;
    auto [it, fresh] = kept.try_emplace({name, threads});
    if (fresh) it->second = make_backend(name, threads);
    return it->second.get();
  }
};

// The worst excess over the bounds in `got`, as text; empty when there is none.
std::string excess(const std::vector<float>& got, const std::vector<float>& want, const std::vector<float>& bounds) {
  if (got.size() != want.size()) return "wrong size";
  double worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(double{got[i]} - want[i]);
    const double ratio = std::isnan(error) || (error > 0 && bounds[i] == 0) ? INFINITY : error > 0 ? error / bounds[i] : 0;
    if (ratio > worst) worst = ratio, at = i;
  }
  if (worst <= 1) return "";
  return "element " + std::to_string(at) + ": " + std::to_string(got[at]) + " against " + std::to_string(want[at]) +
         ", bound " + std::to_string(bounds[at]) + ", error " + std::to_string(worst) + " times that";
}

TEST_P(OpsTest, AgreesWithRefOnEveryCase) {
  Backend* candidate = backend(GetParam());
  if (!candidate) GTEST_SKIP() << "not on this machine";
  Backend* ref = backend("ref");
  for (const OpCase& c : cases()) {
    const std::vector<float> want = c.run(*ref->ops), got = c.run(*candidate->ops);
    EXPECT_EQ(excess(got, want, c.bounds(want)), "") << c.name;
  }
}

TEST_P(OpsTest, ThreadsDoNotChangeABit) {
  Backend* one = backend(GetParam(), 1);
  if (!one) GTEST_SKIP() << "not on this machine";
  for (const int threads : {2, 5}) {
    Backend* many = backend(GetParam(), threads);
    for (const OpCase& c : cases()) {
      const std::vector<float> a = c.run(*one->ops), b = c.run(*many->ops);
      EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << c.name << ", " << threads << " threads";
    }
  }
}

// Every row of a long sequence: by decode, by prefill in chunks of odd sizes, whole, with others in the batch, and with
// pages elsewhere. All bit for bit the same.
TEST_P(OpsTest, AttentionRowsDependOnTheirSequenceAlone) {
  Backend* candidate = backend(GetParam());
  if (!candidate) GTEST_SKIP() << "not on this machine";
  for (AttentionProblem p : {
           AttentionProblem{.name = "bf16", .heads = 6, .head_dim = 64},
           AttentionProblem{.name = "f32", .heads = 6, .head_dim = 64, .dtype = DType::kF32},
           AttentionProblem{.name = "windowed", .heads = 8, .kv_heads = 1, .head_dim = 40, .window = 100},
           AttentionProblem{.name = "capped", .heads = 7, .kv_heads = 7, .head_dim = 24, .softcap = 5},
       }) {
    constexpr int32_t kLen = 1200, kFrom = 700;  // rows [kFrom, kLen), beyond a split (1024)
    const int64_t width = int64_t{p.heads} * p.head_dim;
    p.seqs = {{1, kLen, kLen - kFrom}};
    const std::vector<float> whole = p.run(*candidate->ops);
    const auto same = [&](const std::vector<float>& got, int64_t got_row, int32_t position, int32_t rows) {
      return std::memcmp(got.data() + got_row * width, whole.data() + (position - kFrom) * width,
                         rows * width * sizeof(float)) == 0;
    };
    for (const int32_t position : {700, 703, 704, 767, 768, 1000, 1023, 1024, 1025, 1199}) {
      p.seqs = {{1, position + 1, 1}};
      EXPECT_TRUE(same(p.run(*candidate->ops), 0, position, 1)) << p.name << ": decode of " << position;
    }
    for (const int32_t chunk : {1, 3, 17, 64, 129, 333}) {
      for (int32_t at = kFrom; at < kLen; at += chunk * (chunk < 17 ? 23 : 1)) {  // of the small ones, a sample
        const int32_t end = std::min(kLen, at + chunk);
        p.seqs = {{1, end, end - at}};
        p.page_seed = static_cast<uint64_t>(chunk);
        EXPECT_TRUE(same(p.run(*candidate->ops), 0, at, end - at)) << p.name << ": chunk " << at << " to " << end;
      }
    }
    p.seqs = {{7, 3000, 1}, {8, 50, 50}, {1, 1101, 1}, {9, 1, 1}, {1, 901, 101}, {10, 333, 100}};
    const std::vector<float> mixed = p.run(*candidate->ops);
    EXPECT_TRUE(same(mixed, 51, 1100, 1)) << p.name << ": decode among others";
    EXPECT_TRUE(same(mixed, 53, 800, 101)) << p.name << ": prefill among others";
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, OpsTest, testing::ValuesIn(backend_names()),
                         [](const auto& info) { return printable(info.param); });

// The oracle against what can be said without computing it the same way.
class RefTest : public testing::Test {
 protected:
  ThreadPool pool{1};
  std::unique_ptr<Ops> ops = make_ops("ref", pool);
};

TEST_F(RefTest, NormsHaveUnitSizeAndZeroMean) {
  std::vector<float> x{1, -2, 3, 4, -5, 6}, ones(6, 1), y(6);
  ops->rms_norm(x.data(), 6, 1, 6, ones.data(), 0, y.data(), 6);
  double squares = 0;
  for (int i = 0; i < 6; ++i) {
    squares += y[i] * y[i];
    EXPECT_NEAR(y[i] / y[0], x[i] / x[0], 1e-6);
  }
  EXPECT_NEAR(squares, 6, 1e-5);
  ops->layer_norm(x.data(), 6, 1, 6, ones.data(), ones.data(), 0, y.data(), 6);
  double sum = 0;
  squares = 0;
  for (const float v : y) sum += v - 1, squares += (v - 1) * (v - 1);
  EXPECT_NEAR(sum, 0, 1e-6);
  EXPECT_NEAR(squares, 6, 1e-5);
}

TEST_F(RefTest, ActivationsAtKnownPoints) {
  const float x[] = {0, 1, -1, 20, -20};
  const std::pair<Activation, std::array<float, 5>> known[] = {
      {Activation::kSilu, {0, 0.731058579f, -0.268941421f, 20, -4.12230723e-8f}},
      {Activation::kGelu, {0, 0.841344746f, -0.158655254f, 20, 0}},
      {Activation::kGeluTanh, {0, 0.841191991f, -0.158808009f, 20, 0}},
      {Activation::kRelu, {0, 1, 0, 20, 0}},
  };
  for (const auto& [act, want] : known) {
    std::array<float, 5> y{};
    std::copy(std::begin(x), std::end(x), y.begin());
    ops->activation(act, y.data(), 5, 1, 5);
    for (int i = 0; i < 5; ++i) EXPECT_NEAR(y[i], want[i], 1e-6) << static_cast<int>(act) << " of " << x[i];
  }
}

TEST_F(RefTest, RotationTurnsPairsAndKeepsLength) {
  std::vector<float> qkv{1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8};  // one head each, head_dim 4
  const float angle = 0.5f, cosines[] = {std::cos(angle), 1}, sines[] = {std::sin(angle), 0};
  std::vector<float> k(16 * 4), v(16 * 4);
  AppendArgs a;
  a.qkv = qkv.data();
  a.qkv_stride = 12;
  a.num_heads = 1;
  a.cos = cosines;
  a.sin = sines;
  a.rotary_dim = 4;
  a.cache = {reinterpret_cast<std::byte*>(k.data()), reinterpret_cast<std::byte*>(v.data()), DType::kF32, 1, 1, 16, 4};
  BatchLayout batch;
  batch.num_tokens = 1;
  const int64_t slot = 3;
  batch.slots = &slot;
  ops->append_kv(a, batch);
  const float want[] = {1 * cosines[0] - 3 * sines[0], 2, 3 * cosines[0] + 1 * sines[0], 4};
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(qkv[i], want[i], 1e-6);
    EXPECT_NEAR(k[3 * 4 + i], want[i], 1e-6);
    EXPECT_EQ(v[3 * 4 + i], 5.0f + static_cast<float>(i));
    EXPECT_EQ(k[4 * 4 + i], 0);
  }
}

// softmax is invariant to a shift, uniform for equal keys, and picks the value of a key far ahead.
TEST_F(RefTest, AttentionInClosedForm) {
  constexpr int32_t kLen = 20, kDim = 2;
  std::vector<float> k(32 * kDim), v(32 * kDim), q{10, 0}, out(kDim);
  const std::vector<int32_t> table{1, 0}, cu{0, 1}, lens{kLen}, positions{kLen - 1};
  const auto at = [&](int32_t position) { return (table[position / 16] * 16 + position % 16) * kDim; };
  AttentionArgs a;
  a.q = q.data();
  a.q_stride = kDim;
  a.num_heads = 1;
  a.scale = 1;
  a.cache = {reinterpret_cast<std::byte*>(k.data()), reinterpret_cast<std::byte*>(v.data()), DType::kF32, 2, 1, 16, kDim};
  a.out = out.data();
  a.out_stride = kDim;
  BatchLayout batch;
  batch.num_seqs = batch.num_tokens = 1;
  batch.cu_query_lens = cu.data();
  batch.kv_lens = lens.data();
  batch.page_table = table.data();
  batch.page_table_stride = 2;
  batch.positions = positions.data();
  for (int32_t p = 0; p < kLen; ++p) k[at(p)] = 1, v[at(p)] = static_cast<float>(p), v[at(p) + 1] = 1;
  ops->attention(a, batch);
  EXPECT_NEAR(out[0], (kLen - 1) / 2.0, 1e-6);  // the mean of 0..19
  EXPECT_NEAR(out[1], 1, 1e-6);
  a.window = 4;
  ops->attention(a, batch);
  EXPECT_NEAR(out[0], 17.5, 1e-6);  // the mean of 16..19
  a.window = 0;
  k[at(7)] = 6;  // 50 ahead of the others
  ops->attention(a, batch);
  EXPECT_NEAR(out[0], 7, 1e-6);
  a.softcap = 1e-3f;  // flattens what was peaked
  ops->attention(a, batch);
  EXPECT_NEAR(out[0], (kLen - 1) / 2.0, 1e-2);
}

}  // namespace
}  // namespace tinyserve::ops
