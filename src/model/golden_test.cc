// Logits of every family against transformers' (tests/golden/models/make_golden.py), for every backend, as one prefill,
// in odd chunks, and token by token; then what must hold between runs of our own.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "model/model_test_util.h"

namespace tinyserve {
namespace {

namespace fs = std::filesystem;

const fs::path kGoldenFolder = golden_folder();
const fs::path kBundled = bundled_folder();
constexpr int32_t kPrompt = 96;

struct Golden {
  std::vector<int32_t> tokens;     // prompt and the greedily picked tokens
  std::vector<int32_t> positions;  // of the rows
  std::vector<int32_t> columns;    // vocabulary entries
  std::vector<float> logits;       // [positions, columns]
};

Golden read_golden(const fs::path& path) {
  const MappedFile file(path);
  std::map<std::string, std::vector<float>> tensors;
  for (const SafetensorsEntry& e : parse_safetensors(file.bytes(), path.string())) {
    const TensorView view{.data = file.bytes().data() + e.begin, .dtype = DType::kF32, .shape = e.shape};
    std::vector<float>& values = tensors[e.name];
    values.resize(static_cast<size_t>(view.size()));
    view.read(0, view.size(), values.data());
  }
  const auto whole = [&](const char* name) {
    return std::vector<int32_t>(tensors.at(name).begin(), tensors.at(name).end());
  };
  return {whole("tokens"), whole("positions"), whole("columns"), tensors.at("logits")};
}

struct Difference {
  double largest = 0;  // |ours - golden|
  double rms = 0;
};

// Relative to the spread of the logits: the standard deviation of the golden values of a row. (Values themselves pass
// through zero; their common offset does not matter to softmax.)
Difference compare(const Golden& golden, const std::map<int32_t, std::vector<float>>& rows) {
  Difference d;
  const size_t width = golden.columns.size();
  double squares = 0;
  for (size_t r = 0; r < golden.positions.size(); ++r) {
    const float* expected = golden.logits.data() + r * width;
    const double mean = std::accumulate(expected, expected + width, 0.0) / width;
    double variance = 0;
    for (size_t i = 0; i < width; ++i) variance += (expected[i] - mean) * (expected[i] - mean) / width;
    const std::vector<float>& actual = rows.at(golden.positions[r]);
    for (size_t i = 0; i < width; ++i) {
      const double error = (actual[golden.columns[i]] - expected[i]) / std::sqrt(variance);
      d.largest = std::isfinite(error) ? std::max(d.largest, std::abs(error)) : INFINITY;
      squares += error * error;
    }
  }
  d.rms = std::sqrt(squares / (golden.positions.size() * width));
  return d;
}

std::vector<int32_t> slice(const std::vector<int32_t>& v, int32_t begin, int32_t end) {
  return {v.begin() + begin, v.begin() + end};
}
std::vector<int32_t> iota(int32_t n) {
  std::vector<int32_t> v(n);
  std::iota(v.begin(), v.end(), 0);
  return v;
}

using Rows = std::map<int32_t, std::vector<float>>;  // position -> logits

// Feeds tokens[0, n) of one sequence in chunks of the given sizes (the last size repeats); all rows wanted.
Rows run(TestModel& model, const std::vector<int32_t>& tokens, const std::vector<int32_t>& sizes, int32_t seq = 0) {
  Rows rows;
  size_t which = 0;
  for (int32_t at = 0; at < static_cast<int32_t>(tokens.size());) {
    const int32_t size = std::min(sizes[std::min(which++, sizes.size() - 1)], static_cast<int32_t>(tokens.size()) - at);
    const auto logits = model.step({{seq, at, slice(tokens, at, at + size), iota(size)}});
    for (int32_t i = 0; i < size; ++i) rows[at + i] = logits[static_cast<size_t>(i)];
    at += size;
  }
  return rows;
}

struct Case {
  std::string backend;
  std::string name;
};
void PrintTo(const Case& c, std::ostream* os) { *os << c.backend << "/" << c.name; }

const std::vector<std::string> kBackends = {
    "ref",
    "cpu",
#ifdef TINYSERVE_CUDA
    "cuda",
#endif
};

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const std::string& backend : kBackends)
    for (const char* name :
         {"llama-biases", "llama-linear", "llama-llama3", "llama-yarn", "llama-yarn-mscale", "mistral", "qwen2",
          "qwen3", "gpt2", "gpt2-scaled", "opt", "opt-no-final-norm", "opt-post-norm", "gemma2", "gemma3"})
      out.push_back({backend, name});
  return out;
}

class GoldenTest : public testing::TestWithParam<Case> {
 protected:
  fs::path folder() const { return kGoldenFolder / GetParam().name; }
  Golden golden() const { return read_golden(folder() / "golden.safetensors"); }
};
INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, testing::ValuesIn(cases()), [](const auto& info) {
  std::string name = info.param.backend + "_" + info.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// F32 throughout: only the order of sums and the accuracy of exp, tanh and cos differ, a few 1e-6 in all.
constexpr double kF32Tolerance = 1e-4;

TEST_P(GoldenTest, F32OnePrefill) {
  TestModel model(folder(), GetParam().backend, {.dtype = DType::kF32});
  const Golden g = golden();
  const Difference d = compare(g, run(model, g.tokens, {static_cast<int32_t>(g.tokens.size())}));
  EXPECT_LT(d.largest, kF32Tolerance);
  RecordProperty("largest", std::to_string(d.largest));
}

TEST_P(GoldenTest, F32OddChunks) {
  TestModel model(folder(), GetParam().backend, {.dtype = DType::kF32});
  const Golden g = golden();
  EXPECT_LT(compare(g, run(model, g.tokens, {5, 17, 1, 31, 7})).largest, kF32Tolerance);
}

TEST_P(GoldenTest, F32TokenByToken) {
  TestModel model(folder(), GetParam().backend, {.dtype = DType::kF32});
  const Golden g = golden();
  EXPECT_LT(compare(g, run(model, g.tokens, {1})).largest, kF32Tolerance);
}

TEST_P(GoldenTest, F32PrefillThenDecode) {
  TestModel model(folder(), GetParam().backend, {.dtype = DType::kF32});
  const Golden g = golden();
  EXPECT_LT(compare(g, run(model, g.tokens, {kPrompt, 1})).largest, kF32Tolerance);
}

// A rounding to BF16 moves a normal value by 0.0017 of its size in root mean square; one to INT8 in groups of 32 by
// 2.39 / 127 / sqrt(12) = 0.0054 (2.39 standard deviations: the largest of 32, in root mean square). A layer rounds the
// inputs and the weights of four products, K and V, and (where a backend does) q and the probabilities: about 12
// independent errors in each layer and 2 in the head, which add up as squares. Attention turns a relative error of its
// scores into an absolute one of its weights, larger by their spread.
double rounding_tolerance(double unit, int32_t num_layers, double score_spread) {
  return score_spread * unit * std::sqrt(12.0 * num_layers + 2);
}
constexpr double kBf16Unit = 0.0017, kInt8Unit = 0.0054;
// q and k of the random models are 1.5 times normal; YaRN multiplies both by 1.14.
double score_spread(const std::string& name) { return name.starts_with("llama-yarn") ? 2.25 * 1.3 : 2.25; }
// The largest of some 5000 roughly normal errors, next to their root mean square.
constexpr double kLargestToRms = 6;

void expect_rounded(const Difference& d, double tolerance) {
  EXPECT_LT(d.rms, tolerance);
  EXPECT_LT(d.largest, kLargestToRms * tolerance);
  EXPECT_GT(d.rms, 1e-5) << "nothing was rounded";
  testing::Test::RecordProperty("rms", std::to_string(d.rms));
  testing::Test::RecordProperty("rms_limit", std::to_string(tolerance));
  testing::Test::RecordProperty("largest", std::to_string(d.largest));
}

TEST_P(GoldenTest, Bf16) {
  TestModel model(folder(), GetParam().backend, {.dtype = DType::kBF16});
  const Golden g = golden();
  const double tolerance =
      rounding_tolerance(kBf16Unit, model.model().config().num_layers, score_spread(GetParam().name));
  expect_rounded(compare(g, run(model, g.tokens, {static_cast<int32_t>(g.tokens.size())})), tolerance);
  expect_rounded(compare(g, run(model, g.tokens, {29, 67, 1}, 1)), tolerance);
}

TEST_P(GoldenTest, Int8Weights) {
  TestModel model(folder(), GetParam().backend, {.dtype = DType::kBF16, .int8_weights = true});
  const Golden g = golden();
  const double tolerance =
      rounding_tolerance(kInt8Unit, model.model().config().num_layers, score_spread(GetParam().name));
  expect_rounded(compare(g, run(model, g.tokens, {static_cast<int32_t>(g.tokens.size())})), tolerance);
  expect_rounded(compare(g, run(model, g.tokens, {29, 67, 1}, 1)), tolerance);
}

// --- runs against each other -----------------------------------------------------------------------------------------

void expect_same(const std::vector<float>& a, const std::vector<float>& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << what;
}

// One sequence decodes, one prefills in the middle of its prompt, one begins, one wants no logits: each as if alone, to
// the last bit, because backends are batch invariant by default.
TEST_P(GoldenTest, MixedBatchEqualsSeparateRuns) {
  for (const ModelOptions& options : {ModelOptions{.dtype = DType::kF32}, ModelOptions{.dtype = DType::kBF16},
                                      ModelOptions{.dtype = DType::kBF16, .int8_weights = true}}) {
    const std::vector<int32_t> t = golden().tokens;
    TestModel alone(folder(), GetParam().backend, options);
    const Rows expected = run(alone, t, {static_cast<int32_t>(t.size())});

    TestModel mixed(folder(), GetParam().backend, options);
    mixed.step({{0, 0, slice(t, 0, 70), {}}, {1, 0, slice(t, 0, 37), {}}});
    const auto rows = mixed.step({{0, 70, slice(t, 70, 71), {0}},
                                  {2, 0, slice(t, 0, 9), {}},
                                  {1, 37, slice(t, 37, 60), {20, 21, 22}},
                                  {3, 0, slice(t, 0, 3), iota(3)}});
    const int32_t positions[] = {70, 57, 58, 59, 0, 1, 2};
    ASSERT_EQ(rows.size(), 7u);
    for (size_t r = 0; r < rows.size(); ++r)
      expect_same(rows[r], expected.at(positions[r]), "row " + std::to_string(r));
    // The sequence without logits has its K and V all the same, in the last layer too.
    expect_same(mixed.step({{2, 9, slice(t, 9, 10), {0}}})[0], expected.at(9), "after a chunk without logits");
  }
}

// Whichever rows are asked for, they are the same rows.
TEST_P(GoldenTest, AnyChoiceOfLogitRows) {
  const std::vector<int32_t> t = golden().tokens;
  TestModel model(folder(), GetParam().backend, {.dtype = DType::kBF16});
  const Rows expected = run(model, t, {static_cast<int32_t>(t.size())});
  for (const std::vector<int32_t>& wanted :
       {std::vector<int32_t>{103}, {102, 103}, {0}, {0, 103}, {3, 50, 51}, {0, 1, 2, 102}, {}}) {
    const auto rows = model.step({{1, 0, t, wanted}});
    ASSERT_EQ(rows.size(), wanted.size());
    for (size_t r = 0; r < wanted.size(); ++r) expect_same(rows[r], expected.at(wanted[r]), std::to_string(wanted[r]));
  }
}

// --- the tests above can fail ----------------------------------------------------------------------------------------

struct Change {
  const char* model;
  const char* patch;  // JSON merge patch of config.json
};

// A setting that is read but not computed would pass unnoticed if the golden model did not depend on it.
TEST(GoldenModels, DependOnEverySetting) {
  const Change kChanges[] = {
      {"llama-biases", R"({"rope_theta":11000})"},
      {"llama-biases", R"({"rms_norm_eps":1e-3})"},
      {"llama-biases", R"({"hidden_act":"gelu"})"},
      {"llama-linear", R"({"rope_scaling":{"factor":4.1}})"},
      {"llama-linear", R"({"rope_scaling":null})"},
      {"llama-llama3", R"({"rope_parameters":{"factor":9}})"},
      {"llama-llama3", R"({"rope_parameters":{"low_freq_factor":1.2}})"},
      {"llama-llama3", R"({"rope_parameters":{"high_freq_factor":3.5}})"},
      {"llama-llama3", R"({"rope_parameters":{"original_max_position_embeddings":48}})"},
      {"llama-yarn", R"({"rope_parameters":{"factor":4.4}})"},
      {"llama-yarn", R"({"rope_parameters":{"attention_factor":1.2}})"},
      {"llama-yarn", R"({"rope_parameters":{"rope_theta":12000}})"},
      {"llama-yarn", R"({"rope_parameters":{"original_max_position_embeddings":64}})"},
      {"llama-yarn-mscale", R"({"rope_scaling":{"mscale":1.4}})"},
      {"llama-yarn-mscale", R"({"rope_scaling":{"mscale_all_dim":0.6}})"},
      {"llama-yarn-mscale", R"({"rope_scaling":{"beta_fast":5}})"},
      {"llama-yarn-mscale", R"({"rope_scaling":{"beta_slow":1.1}})"},
      {"llama-yarn-mscale", R"({"rope_scaling":{"truncate":true}})"},
      {"mistral", R"({"sliding_window":31})"},
      {"mistral", R"({"sliding_window":33})"},
      {"qwen2", R"({"sliding_window":31})"},
      {"qwen2", R"({"max_window_layers":0})"},
      {"qwen2", R"({"use_sliding_window":false})"},
      {"qwen2", R"({"layer_types":["sliding_attention","full_attention"]})"},
      {"qwen3", R"({"rms_norm_eps":1e-3})"},
      {"gpt2", R"({"activation_function":"relu"})"},
      {"gpt2", R"({"layer_norm_epsilon":1e-2})"},
      {"gpt2", R"({"scale_attn_weights":false})"},
      {"gpt2-scaled", R"({"scale_attn_by_inverse_layer_idx":false})"},
      {"opt", R"({"activation_function":"gelu"})"},
      {"opt-post-norm", R"({"activation_function":"gelu"})"},
      {"gemma2", R"({"attn_logit_softcapping":5.5})"},
      {"gemma2", R"({"attn_logit_softcapping":null})"},
      {"gemma2", R"({"final_logit_softcapping":3.3})"},
      {"gemma2", R"({"query_pre_attn_scalar":26})"},
      {"gemma2", R"({"sliding_window":33})"},
      {"gemma2", R"({"layer_types":["full_attention","sliding_attention"]})"},
      {"gemma2", R"({"hidden_activation":"silu"})"},
  };
  for (const Change& change : kChanges) {
    const fs::path source = kGoldenFolder / change.model;
    const Golden g = read_golden(source / "golden.safetensors");
    TempFolder folder;
    for (const fs::directory_entry& file : fs::directory_iterator(source))
      fs::create_symlink(file.path(), folder.path() / file.path().filename());
    Json config = Json::parse(read_text_file(source / "config.json"));
    config.merge_patch(Json::parse(change.patch));
    fs::remove(folder.path() / "config.json");
    folder.write("config.json", config.dump());
    TestModel model(folder.path(), "ref", {.dtype = DType::kF32}, 1);
    EXPECT_GT(compare(g, run(model, g.tokens, {kPrompt, 1})).largest, 10 * kF32Tolerance)
        << change.model << change.patch;
  }
}

// transformers uses a head that the checkpoint has, even where the configuration says that it is tied.
TEST(GoldenModels, HeadInTheCheckpointWinsOverTying) {
  TempFolder folder;
  const fs::path source = kGoldenFolder / "llama-biases";
  fs::create_symlink(source / "model.safetensors", folder.path() / "model.safetensors");
  Json config = Json::parse(read_text_file(source / "config.json"));
  config["tie_word_embeddings"] = true;
  folder.write("config.json", config.dump());
  const Golden g = read_golden(source / "golden.safetensors");
  TestModel model(folder.path(), "ref", {.dtype = DType::kF32}, 1);
  EXPECT_LT(compare(g, run(model, g.tokens, {kPrompt, 1})).largest, kF32Tolerance);
}

// --- the bundled model -----------------------------------------------------------------------------------------------

// The bundled model as trained: BF16 weights computed in F32, a choice of logits.
class BundledTest : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Backends, BundledTest, testing::ValuesIn(kBackends));

TEST_P(BundledTest, F32MatchesTransformers) {
  TestModel model(kBundled, GetParam(), {.dtype = DType::kF32}, 1);
  EXPECT_EQ(model.model().config().num_parameters, 15735168);
  const Golden g = read_golden(kGoldenFolder / "bundled.safetensors");
  EXPECT_LT(compare(g, run(model, g.tokens, {50, 46, 1})).largest, kF32Tolerance);
}

// On cpu alone: eight layers in plain loops take their time.
TEST(BundledModel, Bf16AndInt8StayWithinTheirRounding) {
  const Golden g = read_golden(kGoldenFolder / "bundled.safetensors");
  for (const bool int8_weights : {false, true}) {
    TestModel model(kBundled, "cpu", {.dtype = DType::kBF16, .int8_weights = int8_weights}, 1);
    const double unit = int8_weights ? kInt8Unit : kBf16Unit;
    expect_rounded(compare(g, run(model, g.tokens, {60, 36, 1})),
                   rounding_tolerance(unit, model.model().config().num_layers, 2));
  }
}

}  // namespace
}  // namespace tinyserve
