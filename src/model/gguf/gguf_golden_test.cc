// Models from GGUF files: logits against transformers' (tests/golden/gguf/make_models.py), and what a loader must
// refuse.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>

#include "base/error.h"
#include "model/checkpoint.h"
#include "model/gguf/gguf_config.h"
#include "model/gguf/gguf_names.h"
#include "model/gguf/gguf_test_util.h"
#include "model/model_test_util.h"
#include "model/rope.h"

namespace tinyserve {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

fs::path folder() { return repository() / "tests/golden/gguf"; }

std::map<std::string, std::vector<float>> read_golden(const std::string& name) {
  const fs::path path = folder() / (name + ".safetensors");
  const MappedFile file(path);
  std::map<std::string, std::vector<float>> tensors;
  for (const SafetensorsEntry& e : parse_safetensors(file.bytes(), path.string())) {
    const TensorView view{.data = file.bytes().data() + e.begin, .dtype = DType::kF32, .shape = e.shape};
    tensors[e.name].resize(static_cast<size_t>(view.size()));
    view.read(0, view.size(), tensors[e.name].data());
  }
  return tensors;
}

struct Case {
  std::string name, backend;
  bool keep_blocks = true;
  DType dtype = DType::kF32;
  double tolerance = 0;  // rms of the difference over the logits' standard deviation
};
void PrintTo(const Case& c, std::ostream* os) { *os << c.name << " on " << c.backend << " in " << dtype_name(c.dtype); }

class GgufGolden : public testing::TestWithParam<Case> {};

TEST_P(GgufGolden, LogitsEqualTransformers) {
  const Case& c = GetParam();
  auto golden = read_golden(c.name);
  const std::vector<int32_t> tokens(golden["tokens"].begin(), golden["tokens"].end());
  TestModel model(folder() / (c.name + ".gguf"), c.backend, {.dtype = c.dtype, .keep_blocks = c.keep_blocks});
  std::vector<int32_t> all(tokens.size());
  std::iota(all.begin(), all.end(), 0);
  const auto logits = model.step({{0, 0, tokens, all}});
  const std::vector<float>& expected = golden["logits"];
  const size_t width = expected.size() / tokens.size();
  double squares = 0, spread = 0;
  for (size_t r = 0; r < tokens.size(); ++r) {
    double mean = 0;
    for (size_t i = 0; i < width; ++i) mean += expected[r * width + i] / static_cast<double>(width);
    for (size_t i = 0; i < width; ++i) {
      const double difference = logits[r][i] - expected[r * width + i], deviation = expected[r * width + i] - mean;
      squares += difference * difference;
      spread += deviation * deviation;
    }
  }
  EXPECT_LT(std::sqrt(squares / spread), c.tolerance);
}

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const char* name : {"llama", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2"}) {
    out.push_back({.name = name, .backend = "ref", .tolerance = 2e-5});  // sums in another order than torch's
    out.push_back({.name = name, .backend = "cpu", .keep_blocks = false, .tolerance = 2e-5});
    out.push_back({.name = name, .backend = "cpu", .tolerance = 0.05});  // 8 bits of each input
    out.push_back({.name = name, .backend = "cpu", .keep_blocks = false, .dtype = DType::kBF16, .tolerance = 0.05});
  }
  return out;
}
INSTANTIATE_TEST_SUITE_P(Families, GgufGolden, testing::ValuesIn(cases()), [](const auto& info) {
  return info.param.name + "_" + info.param.backend + "_" + std::string(dtype_name(info.param.dtype)) +
         (info.param.keep_blocks ? "_blocks" : "");
});

TEST(GgufNames, AreThoseOfCheckpoints) {
  EXPECT_EQ(checkpoint_name("llama", "token_embd.weight"), "model.embed_tokens.weight");
  EXPECT_EQ(checkpoint_name("qwen2", "blk.13.attn_q.bias"), "model.layers.13.self_attn.q_proj.bias");
  EXPECT_EQ(checkpoint_name("llama", "blk.0.ffn_norm.weight"), "model.layers.0.post_attention_layernorm.weight");
  EXPECT_EQ(checkpoint_name("gemma2", "blk.0.ffn_norm.weight"), "model.layers.0.pre_feedforward_layernorm.weight");
  EXPECT_EQ(checkpoint_name("gpt2", "blk.2.attn_qkv.weight"), "transformer.h.2.attn.c_attn.weight");
  EXPECT_EQ(checkpoint_name("gpt2", "output.weight"), "lm_head.weight");
  for (const char* unknown : {"blk.0.strange.weight", "blk.", "blk.7", "strange", "blk.0.attn_q", ""})
    EXPECT_EQ(checkpoint_name("llama", unknown), unknown);
}

class GgufLoading : public testing::Test {
 protected:
  void SetUp() override {
    path_ = fs::temp_directory_path() / ("gguf_loading_" + std::to_string(::getpid()) + ".gguf");
  }
  void TearDown() override { fs::remove(path_); }

  // A llama with one layer of width 32, whose tensors are zeros.
  static GgufBuilder model(const std::string& without = "", uint32_t layers = 1) {
    GgufBuilder b;
    b.text("general.architecture", "llama").u32("llama.embedding_length", 32).u32("llama.feed_forward_length", 32);
    b.u32("llama.block_count", layers).u32("llama.attention.head_count", 2).u32("llama.context_length", 128);
    b.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    const auto add = [&](const std::string& name, const Shape& shape, size_t bytes, uint32_t type = 0) {
      if (name != without) b.tensor(name, shape, type, std::string(bytes, '\0'));
    };
    add("token_embd.weight", {8, 32}, 8 * 34, 8);
    add("output_norm.weight", {32}, 128);
    for (const char* name : {"attn_norm", "ffn_norm"}) add(std::string("blk.0.") + name + ".weight", {32}, 128);
    for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"})
      add(std::string("blk.0.") + name + ".weight", {32, 32}, 32 * 18, 2);
    return b;
  }
  std::string error(const GgufBuilder& b) {
    std::ofstream(path_, std::ios::binary) << b.build();
    try {
      TestModel model(path_, "ref", {.dtype = DType::kF32});
    } catch (const InputError& e) {
      return e.what();
    }
    return "no error";
  }
  fs::path path_;
};

TEST_F(GgufLoading, NamesWhatIsWrong) {
  EXPECT_EQ(error(model()), "no error");
  EXPECT_THAT(error(model("blk.0.attn_v.weight")),
              AllOf(HasSubstr(path_.string()), HasSubstr("has no tensor 'model.layers.0.self_attn.v_proj.weight'"),
                    HasSubstr("the metadata asks for")));
  EXPECT_THAT(error(model("token_embd.weight")), HasSubstr("tensor 'token_embd.weight' is missing"));
  EXPECT_THAT(error(model("", 2)), HasSubstr("has no tensor 'model.layers.1."));
  EXPECT_THAT(error(model("", 100'000)), HasSubstr("'llama.block_count' must be from 1 to 4096, but is 100000"));
  EXPECT_THAT(
      error(model().tensor("blk.0.odd.weight", {1}, 0, "1234")),
      HasSubstr("tensor 'blk.0.odd.weight' is in the checkpoint, but the metadata describes a model without it"));
  EXPECT_THAT(error(model("output_norm.weight").tensor("output_norm.weight", {64}, 0, std::string(256, '\0'))),
              HasSubstr("tensor 'output_norm.weight' has shape [64], the metadata asks for [32]"));
  EXPECT_THAT(
      error(model("blk.0.attn_v.weight").tensor("blk.0.attn_v.weight", {32, 32}, 20, std::string(32 * 18, '\0'))),
      AllOf(HasSubstr("tensor 'blk.0.attn_v.weight' has dtype 'IQ4_NL'"), HasSubstr("Q2_K to Q6_K can be read")));
  EXPECT_THAT(error(GgufBuilder()), HasSubstr("'general.architecture' is missing"));
  EXPECT_THAT(error(GgufBuilder().text("general.architecture", "mamba")),
              HasSubstr("'general.architecture' is 'mamba', which is not computed; these are: llama, qwen2"));
}

TEST_F(GgufLoading, RefusesWhatIsNotComputed) {
  EXPECT_THAT(error(model().u32("llama.expert_count", 8)),
              HasSubstr("'llama.expert_count' is set, but what it asks for is not computed"));
  EXPECT_THAT(error(model().u32("llama.attention.sliding_window", 8)), HasSubstr("'llama.attention.sliding_window'"));
  EXPECT_THAT(error(model().u32("llama.rope.dimension_count", 8)),
              HasSubstr("'llama.rope.dimension_count' must be from 16 to 16, but is 8"));
  EXPECT_THAT(error(model().u32("llama.attention.value_length", 8)), HasSubstr("'llama.attention.value_length'"));
  EXPECT_THAT(error(model().text("llama.rope.scaling.type", "longrope").f32("llama.rope.scaling.factor", 2)),
              HasSubstr("'llama.rope.scaling.type' is 'longrope'"));
  EXPECT_THAT(error(model().u32("llama.attention.head_count_kv", 3)),
              HasSubstr("'llama.attention.head_count_kv' is 3, which does not divide the 2 query heads"));
}

TEST_F(GgufLoading, DividesFrequenciesByTheFactorsOfTheFile) {
  std::string factors;
  for (int i = 0; i < 8; ++i) factors += GgufBuilder::number(1.0f + static_cast<float>(i));
  std::ofstream(path_, std::ios::binary) << model().tensor("rope_freqs.weight", {8}, 0, factors).build();
  GgufConfig read = read_gguf_config(GgufModel(path_));
  const ConfigReader config(std::move(read.json), path_.string(), std::move(read.keys));
  const Rope rope = read_rope(config, 16, 128);
  for (size_t i = 0; i < 8; ++i)
    EXPECT_DOUBLE_EQ(rope.inverse_frequencies[i],
                     std::pow(10000.0, -static_cast<double>(i) / 8) / (1.0 + static_cast<double>(i)));
  EXPECT_EQ(rope.max_positions, 128);
  EXPECT_THAT(error(model().tensor("rope_freqs.weight", {8}, 0, std::string(32, '\0'))),
              HasSubstr("'rope_freqs.weight' must hold numbers from"));
  EXPECT_THAT(error(model().tensor("rope_freqs.weight", {7}, 0, factors.substr(0, 28))),
              HasSubstr("'rope_freqs.weight' are 7; heads of 16 need 8"));
}

}  // namespace
}  // namespace tinyserve
