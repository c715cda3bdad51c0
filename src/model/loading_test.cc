// Folders that cannot be loaded: each must be an InputError that names the file and the tensor or field at fault.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "model/checkpoint.h"
#include "model/model_test_util.h"

namespace tinyserve {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

const fs::path kGoldenFolder = golden_folder();

std::string safetensors(const Json& header, size_t data_bytes) {
  const std::string text = header.dump();
  std::string file(8 + text.size() + data_bytes, '\0');
  const uint64_t length = text.size();
  std::memcpy(file.data(), &length, 8);
  std::memcpy(file.data() + 8, text.data(), text.size());
  return file;
}

Json f32_tensor(std::vector<int64_t> shape, size_t begin) {
  size_t bytes = 4;
  for (const int64_t d : shape) bytes *= static_cast<size_t>(d);
  return {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, begin + bytes}}};
}

std::string error_of(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const InputError& e) {
    return e.what();
  }
  return "no error";
}

// A copy of a golden model whose files can be changed.
class EditableModel {
 public:
  explicit EditableModel(const std::string& name) {
    for (const fs::directory_entry& file : fs::directory_iterator(kGoldenFolder / name))
      if (file.path().filename() != "golden.safetensors") fs::copy_file(file, folder_.path() / file.path().filename());
    config = Json::parse(read_text_file(folder_.path() / "config.json"));
  }
  const fs::path& path() const { return folder_.path(); }
  void load(const ModelOptions& options = {.dtype = DType::kF32}) const {
    folder_.write("config.json", config.dump());
    const TestModel model(folder_.path(), "ref", options, 1, 32);
  }
  std::string load_error() const {
    return error_of([&] { load(); });
  }
  void write(const std::string& file, std::string_view content) const { folder_.write(file, content); }
  std::string read(const std::string& file) const { return read_text_file(folder_.path() / file); }

  /// Applies `edit` to the safetensors header (and keeps the data).
  void edit_header(const std::function<void(Json&)>& edit) const {
    const std::string old = read("model.safetensors");
    uint64_t length = 0;
    std::memcpy(&length, old.data(), 8);
    Json header = Json::parse(old.substr(8, length));
    edit(header);
    const std::string text = header.dump();
    const uint64_t new_length = text.size();
    std::string file(8, '\0');
    std::memcpy(file.data(), &new_length, 8);
    folder_.write("model.safetensors", file + text + old.substr(8 + length));
  }

  Json config;

 private:
  TempFolder folder_;
};

// --- checkpoints -----------------------------------------------------------------------------------------------------

TEST(Checkpoint, ReadsShardsThroughTheIndex) {
  TempFolder folder;
  folder.write("one.safetensors", safetensors({{"a", f32_tensor({2, 3}, 0)}}, 24));
  folder.write("two.safetensors",
               safetensors({{"b", f32_tensor({4}, 0)}, {"not in the index", f32_tensor({1}, 16)}}, 20));
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  Checkpoint checkpoint(folder.path());
  EXPECT_TRUE(checkpoint.has("a"));
  EXPECT_FALSE(checkpoint.has("not in the index"));
  EXPECT_EQ(checkpoint.size_bytes(), 40u);
  EXPECT_EQ(checkpoint.tensor("a", {2, 3}).size(), 6);
  EXPECT_THAT(checkpoint.unread(), testing::ElementsAre("b"));
  EXPECT_THAT(checkpoint.file_of("b"), HasSubstr("two.safetensors"));
}

TEST(Checkpoint, NamesTensorAndFileForWrongShapeDtypeAndMissing) {
  TempFolder folder;
  Json header = {{"a", f32_tensor({2, 3}, 0)}, {"q", {{"dtype", "I32"}, {"shape", {1}}, {"data_offsets", {24, 28}}}}};
  folder.write("model.safetensors", safetensors(header, 28));
  Checkpoint checkpoint(folder.path());
  EXPECT_THAT(error_of([&] {
                checkpoint.tensor("a", {3, 2});
              }),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("'a'"), HasSubstr("[2, 3]"), HasSubstr("[3, 2]")));
  EXPECT_THAT(error_of([&] { checkpoint.tensor("q", {1}); }),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("'q'"), HasSubstr("I32"), HasSubstr("BF16")));
  EXPECT_THAT(error_of([&] { checkpoint.tensor("z", {1}); }),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("no tensor 'z'")));
}

TEST(Checkpoint, RejectsFoldersWithoutOne) {
  TempFolder folder;
  EXPECT_THAT(error_of([&] { Checkpoint c(folder.path()); }), HasSubstr("model.safetensors.index.json"));
  folder.write("pytorch_model.bin", "x");
  EXPECT_THAT(error_of([&] { Checkpoint c(folder.path()); }), HasSubstr("convert"));
  EXPECT_THAT(error_of([&] { Checkpoint c("/nonexistent/folder"); }), HasSubstr("/nonexistent/folder"));
}

TEST(Checkpoint, RejectsZeroSizeFilesAndFoldersInTheirPlace) {
  TempFolder folder;
  folder.write("model.safetensors", "");
  EXPECT_THAT(error_of([&] { Checkpoint c(folder.path()); }),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("empty")));
  fs::remove(folder.path() / "model.safetensors");
  fs::create_directory(folder.path() / "model.safetensors");
  EXPECT_THAT(error_of([&] { Checkpoint c(folder.path()); }), HasSubstr("not a regular file"));
}

TEST(Checkpoint, RejectsIndexesThatPointElsewhere) {
  TempFolder folder;
  for (const char* shard : {"../../etc/passwd", "/etc/passwd", "sub/file.safetensors", "..", ".", "", "a\\b"}) {
    folder.write("model.safetensors.index.json", Json{{"weight_map", {{"w", shard}}}}.dump());
    EXPECT_THAT(error_of([&] { Checkpoint c(folder.path()); }),
                AllOf(HasSubstr("index.json"), HasSubstr("'w'"), HasSubstr("not a file name")))
        << shard;
  }
}

TEST(Checkpoint, RejectsIndexesThatDoNotFitTheFiles) {
  TempFolder folder;
  folder.write("one.safetensors", safetensors({{"a", f32_tensor({1}, 0)}}, 4));
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors","b":"gone.safetensors"}})");
  EXPECT_THAT(error_of([&] { Checkpoint c(folder.path()); }),
              AllOf(HasSubstr("'gone.safetensors'"), HasSubstr("'b'"), HasSubstr("missing")));
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors"}})");
  EXPECT_THAT(error_of([&] { Checkpoint c(folder.path()); }),
              AllOf(HasSubstr("one.safetensors"), HasSubstr("no tensor 'b'")));
  for (const char* index : {"", "[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{}})", R"({"weight_map":{"a":1}})",
                            R"({"weight_map":{"a":null}})", "{\"weight_map\":"}) {
    folder.write("model.safetensors.index.json", index);
    EXPECT_THAT(error_of([&] { Checkpoint c(folder.path()); }), HasSubstr("index.json")) << index;
  }
}

TEST(Checkpoint, NamesTheShardWithABadHeader) {
  TempFolder folder;
  folder.write("one.safetensors", std::string(20, '\xff'));
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors"}})");
  EXPECT_THAT(error_of([&] { Checkpoint c(folder.path()); }), AllOf(HasSubstr("one.safetensors"), HasSubstr("limit")));
}

// --- whole models ----------------------------------------------------------------------------------------------------

TEST(Loading, EveryTensorIsNeeded) {
  const EditableModel intact("qwen3");
  std::vector<std::string> names;
  intact.edit_header([&](Json& header) {
    for (const auto& [name, value] : header.items())
      if (name != "__metadata__") names.push_back(name);
  });
  ASSERT_GT(names.size(), 20u);
  intact.load();  // re-written as it was
  for (const std::string& name : names) {
    const EditableModel model("qwen3");
    model.edit_header([&](Json& header) {
      header["renamed"] = header[name];
      header.erase(name);
    });
    EXPECT_THAT(model.load_error(), AllOf(HasSubstr("model.safetensors"), HasSubstr("'" + name + "'"))) << name;
  }
}

TEST(Loading, EveryShapeIsChecked) {
  const EditableModel intact("gemma2");
  std::vector<std::string> names;
  intact.edit_header([&](Json& header) {
    for (const auto& [name, value] : header.items())
      if (name != "__metadata__") names.push_back(name);
  });
  for (const std::string& name : names) {
    const EditableModel model("gemma2");
    model.edit_header([&](Json& header) {
      Json& shape = header[name]["shape"];  // the same number of elements, otherwise arranged
      if (shape.size() == 1)
        shape.push_back(1);
      else
        shape = {shape[0].get<int64_t>() * 2, shape[1].get<int64_t>() / 2};
    });
    EXPECT_THAT(model.load_error(),
                AllOf(HasSubstr("model.safetensors"), HasSubstr("'" + name + "'"), HasSubstr("shape")))
        << name;
  }
}

TEST(Loading, TruncatedFileNamesATensor) {
  const EditableModel model("llama-linear");
  const std::string whole = model.read("model.safetensors");
  for (const size_t keep : {whole.size() - 1, whole.size() / 2, size_t{100}, size_t{8}, size_t{3}, size_t{0}}) {
    model.write("model.safetensors", std::string_view(whole).substr(0, keep));
    EXPECT_THAT(model.load_error(), AllOf(HasSubstr("model.safetensors"), HasSubstr("truncated"))) << keep;
  }
}

TEST(Loading, TensorsBeyondTheConfigurationAreAnError) {
  EditableModel layers("llama-linear");
  layers.config["num_hidden_layers"] = 1;
  EXPECT_THAT(layers.load_error(), AllOf(HasSubstr("model.safetensors"), HasSubstr("'model.layers.1.")));
  EditableModel biases("llama-biases");
  biases.config["attention_bias"] = false;
  EXPECT_THAT(biases.load_error(), AllOf(HasSubstr("model.safetensors"), HasSubstr("_proj.bias'")));
}

TEST(Loading, UntiedModelNeedsItsHead) {
  EditableModel model("llama-linear");
  model.config["tie_word_embeddings"] = false;
  EXPECT_THAT(model.load_error(), HasSubstr("'lm_head.weight'"));
}

TEST(Loading, ReportsProgressUpToTheEnd) {
  const EditableModel model("mistral");
  size_t last = 0, calls = 0, total_bytes = 0;
  model.load({.dtype = DType::kBF16, .on_progress = [&](size_t done, size_t total) {
                EXPECT_GE(done, last);
                EXPECT_LE(done, total);
                last = done;
                total_bytes = total;
                ++calls;
              }});
  EXPECT_EQ(last, total_bytes);
  EXPECT_GT(calls, 10u);
}

TEST(Loading, RefusesHalfPrecision) {
  const EditableModel model("mistral");
  EXPECT_THAT(error_of([&] { model.load({.dtype = DType::kF16}); }), HasSubstr("F16"));
}

// --- configurations --------------------------------------------------------------------------------------------------

struct BadField {
  const char* model;
  const char* field;
  const char* value;    // JSON; empty: the field is removed
  const char* message;  // beside the field's name and config.json
};

TEST(Config, BadFieldsAreNamed) {
  const BadField kCases[] = {
      {"llama-linear", "hidden_size", "0", "from 1"},
      {"llama-linear", "hidden_size", "-64", "from 1"},
      {"llama-linear", "hidden_size", "99999999999999999999", "whole number"},
      {"llama-linear", "hidden_size", "18446744073709551615", "from 1"},
      {"llama-linear", "hidden_size", "4294967360", "from 1"},
      {"llama-linear", "hidden_size", "64.5", "whole number"},
      {"llama-linear", "hidden_size", "\"64\"", "whole number"},
      {"llama-linear", "hidden_size", "[64]", "whole number"},
      {"llama-linear", "hidden_size", "null", "missing"},
      {"llama-linear", "hidden_size", "", "missing"},
      {"llama-linear", "vocab_size", "0", "from 1"},
      {"llama-linear", "vocab_size", "2147483647", "from 1"},
      {"llama-linear", "num_hidden_layers", "0", "from 1"},
      {"llama-linear", "num_hidden_layers", "1000000", "from 1"},
      {"llama-linear", "num_attention_heads", "0", "from 1"},
      {"qwen2", "num_attention_heads", "6", "divide"},
      {"llama-linear", "num_key_value_heads", "3", "divide"},
      {"llama-linear", "num_key_value_heads", "0", "from 1"},
      {"llama-linear", "head_dim", "15", "even"},
      {"llama-linear", "head_dim", "1000000", "from 1"},
      {"llama-linear", "intermediate_size", "", "missing"},
      {"llama-linear", "max_position_embeddings", "0", "from 1"},
      {"llama-linear", "max_position_embeddings", "", "missing"},
      {"llama-linear", "rms_norm_eps", "-1e-5", "from 0"},
      {"llama-linear", "rms_norm_eps", "true", "number"},
      {"llama-linear", "rope_theta", "0", "from 1"},
      {"llama-linear", "rope_theta", "-1", "from 1"},
      {"llama-linear", "rope_scaling", R"({"rope_type":"dynamic","factor":2})", "'dynamic'"},
      {"llama-linear", "rope_scaling", R"({"type":"longrope","factor":2})", "'longrope'"},
      {"llama-linear", "rope_scaling", R"({"type":"linear"})", "missing"},
      {"llama-linear", "rope_scaling", R"({"type":"linear","factor":0.5})", "factor must be from 1"},
      {"llama-linear", "rope_scaling", R"({"type":"linear","factor":1e300})", "factor must be from 1"},
      {"llama-linear", "rope_scaling", R"({"type":7})", "string"},
      {"llama-linear", "rope_scaling", R"("linear")", "object"},
      {"llama-linear", "rope_scaling", R"({"type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4})",
       "larger than low_freq_factor"},
      {"llama-linear", "rope_scaling", R"({"type":"llama3","factor":8,"high_freq_factor":4})",
       "low_freq_factor is missing"},
      {"llama-linear", "rope_scaling", R"({"type":"yarn","factor":4,"beta_fast":-1})", "beta_fast"},
      {"llama-linear", "rope_scaling", R"({"type":"yarn","factor":4,"attention_factor":-1})", "attention_factor"},
      {"llama-linear", "rope_scaling", R"({"type":"yarn","factor":4,"original_max_position_embeddings":0})",
       "original_max"},
      {"llama-linear", "partial_rotary_factor", "0.5", "rotated"},
      {"llama-linear", "hidden_act", "\"quick_gelu\"", "'quick_gelu'"},
      {"llama-linear", "hidden_act", "1", "string"},
      {"llama-linear", "tie_word_embeddings", "\"yes\"", "true or false"},
      {"llama-linear", "attention_bias", "1", "true or false"},
      {"llama-linear", "sliding_window", "128", "Mistral"},
      {"llama-linear", "layer_types", R"(["full_attention","sliding_attention"])", "sliding_window"},
      {"llama-linear", "attn_logit_softcapping", "50", "gemma2"},
      {"llama-linear", "quantization_config", R"({"quant_method":"gptq"})", "quantised"},
      {"llama-linear", "num_local_experts", "8", "experts"},
      {"llama-linear", "attention_sinks", "true", "sinks"},
      {"llama-linear", "eos_token_id", "256", "from 0 to 255"},
      {"llama-linear", "eos_token_id", "[1,-1]", "from 0 to 255"},
      {"llama-linear", "eos_token_id", "\"</s>\"", "whole number"},
      {"llama-linear", "bos_token_id", "-1", "from 0 to 255"},
      {"llama-linear", "architectures", R"(["LlamaForSequenceClassification"])", "LlamaForCausalLM"},
      {"llama-linear", "architectures", R"(["../../etc/passwd"])", "LlamaForCausalLM"},
      {"llama-linear", "architectures", "3", "list of strings"},
      {"llama-linear", "architectures", "[3]", "list of strings"},
      {"llama-llama3", "rope_parameters", R"({"full_attention":{"rope_type":"default"}})", "layer type"},
      {"mistral", "sliding_window", "0", "from 1"},
      {"mistral", "sliding_window", "-5", "from 1"},
      {"mistral", "layer_types", R"(["sliding_attention"])", "2"},
      {"mistral", "layer_types", R"(["sliding_attention","chunked_attention"])", "'chunked_attention'"},
      {"mistral", "attention_bias", "true", "no biases"},
      {"qwen2", "max_window_layers", "-1", "from 0"},
      {"qwen3", "layer_types", R"(["full_attention","linear_attention"])", "'linear_attention'"},
      {"gpt2", "n_embd", "", "missing"},
      {"gpt2", "n_head", "7", "divide"},
      {"gpt2", "n_inner", "-1", "from 1"},
      {"gpt2", "n_positions", "0", "from 1"},
      {"gpt2", "activation_function", "\"tanh\"", "'tanh'"},
      {"gpt2", "add_cross_attention", "true", "cross attention"},
      {"gpt2", "layer_norm_epsilon", "2", "from 0"},
      {"opt", "ffn_dim", "", "missing"},
      {"opt", "word_embed_proj_dim", "0", "from 1"},
      {"opt", "num_attention_heads", "3", "divide"},
      {"gemma2", "num_key_value_heads", "", "missing"},
      {"gemma2", "query_pre_attn_scalar", "0", "from 0.001"},
      {"gemma2", "attn_logit_softcapping", "-50", "from 0.001"},
      {"gemma2", "final_logit_softcapping", "\"no\"", "number"},
      {"gemma2", "sliding_window", "null", "missing"},
      {"gemma2", "use_bidirectional_attention", "true", "causal"},
      {"gemma2", "hidden_activation", "\"gelu_10\"", "'gelu_10'"},
  };
  for (const BadField& c : kCases) {
    EditableModel model(c.model);
    if (*c.value)
      model.config[c.field] = Json::parse(c.value);
    else
      model.config.erase(c.field);
    if (std::string_view(c.field) == "eos_token_id" || std::string_view(c.field) == "bos_token_id")
      fs::remove(model.path() / "generation_config.json");
    EXPECT_THAT(model.load_error(), AllOf(HasSubstr("config.json"), HasSubstr(c.field), HasSubstr(c.message)))
        << c.model << " " << c.field << " = " << c.value;
  }
}

TEST(Config, FilesThatAreNoConfiguration) {
  const EditableModel model("opt");
  for (const char* text : {"", "[]", "null", "{", "\xff", "3"}) {
    model.write("config.json", text);
    EXPECT_THAT(error_of([&] { TestModel(model.path(), "ref", {}); }), HasSubstr("config.json")) << text;
  }
  fs::remove(model.path() / "config.json");
  EXPECT_THAT(error_of([&] { TestModel(model.path(), "ref", {}); }), HasSubstr("config.json"));
}

TEST(Config, FamilyByModelTypeWhenNoArchitectureIsNamed) {
  EditableModel model("opt");
  model.config.erase("architectures");
  model.load();
  model.config["model_type"] = "bert";
  EXPECT_THAT(model.load_error(), AllOf(HasSubstr("model_type"), HasSubstr("'bert'"), HasSubstr("gemma2")));
}

TEST(Config, NeutralValuesOfUncomputedFieldsAreFine) {
  EditableModel model("llama-linear");
  model.config["quantization_config"] = nullptr;
  model.config["sliding_window"] = nullptr;
  model.config["add_cross_attention"] = false;
  model.config["residual_multiplier"] = 1.0;
  model.config["partial_rotary_factor"] = 1.0;
  model.config["layer_types"] = {"full_attention", "full_attention"};
  model.config["an_unknown_field"] = {{"a", 1}};
  model.load();
}

ModelConfig loaded_config(const EditableModel& model) {
  model.write("config.json", model.config.dump());
  return TestModel(model.path(), "ref", {.dtype = DType::kF32}, 1, 32).model().config();
}

TEST(Config, GenerationConfigDecidesAboutTheEnd) {
  EditableModel model("llama-linear");
  model.write("generation_config.json", R"({"eos_token_id":[5,7],"bos_token_id":3})");
  EXPECT_THAT(loaded_config(model).eos_token_ids, testing::ElementsAre(5, 7));
  EXPECT_EQ(loaded_config(model).bos_token_id, 3);
  model.write("generation_config.json", "{}");
  EXPECT_THAT(loaded_config(model).eos_token_ids, testing::ElementsAre(1));
  EXPECT_EQ(loaded_config(model).bos_token_id, 0);
  fs::remove(model.path() / "generation_config.json");
  model.config["eos_token_id"] = {2, 4};
  model.config["bos_token_id"] = nullptr;
  EXPECT_THAT(loaded_config(model).eos_token_ids, testing::ElementsAre(2, 4));
  EXPECT_EQ(loaded_config(model).bos_token_id, -1);
  model.write("generation_config.json", R"({"eos_token_id":999})");
  EXPECT_THAT(model.load_error(), AllOf(HasSubstr("generation_config.json"), HasSubstr("eos_token_id")));
}

TEST(Config, SaysWhatWasLoaded) {
  const ModelConfig c = loaded_config(EditableModel("llama-linear"));
  EXPECT_EQ(c.family, "llama");
  EXPECT_EQ(c.architecture, "LlamaForCausalLM");
  EXPECT_EQ(c.vocab_size, 256);
  EXPECT_EQ(c.hidden_size, 64);
  EXPECT_EQ(c.num_layers, 2);
  EXPECT_EQ(c.num_heads, 4);
  EXPECT_EQ(c.num_kv_heads, 2);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.intermediate_size, 96);
  EXPECT_EQ(c.max_positions, 4 * 512);  // linear scaling by 4
  // Embedding, per layer q k v o, gate up down, two norms; the final norm. The tied head counts once.
  EXPECT_EQ(c.num_parameters, 256 * 64 + 2 * (64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 96 * 64 + 2 * 64) + 64);
}

TEST(Config, EmptyRopeScalingLeavesRopeParameters) {  // as for transformers
  EditableModel model("llama-linear");
  model.config["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 3.0}};
  model.config["rope_scaling"] = Json::object();
  EXPECT_EQ(loaded_config(model).max_positions, 3 * 512);
  model.config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 2.0}};
  EXPECT_EQ(loaded_config(model).max_positions, 2 * 512);
}

TEST(Config, ContextBeyondThePositionsIsRefused) {
  EXPECT_THAT(error_of([] { TestModel(kGoldenFolder / "gpt2", "ref", {.dtype = DType::kF32}, 1, 129); }),
              AllOf(HasSubstr("129"), HasSubstr("128 positions")));
}

// Linux says which pages of this process are resident files.
size_t resident_file_bytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total = 0, resident = 0, shared = 0;
  statm >> total >> resident >> shared;
  return shared * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

TEST(Loading, TheCheckpointDoesNotStayResident) {
  const size_t before = resident_file_bytes();
  size_t most = 0;
  const TestModel model(
      bundled_folder(), "ref",
      {.dtype = DType::kBF16, .on_progress = [&](size_t, size_t) { most = std::max(most, resident_file_bytes()); }}, 1,
      32);
  // 31 MB in all; the largest piece, the embedding, has 6.3 MB.
  EXPECT_LT(most, before + (size_t{4} << 20));
  // The rest is the program's own text, which is larger under sanitizers.
  EXPECT_LT(resident_file_bytes(), before + (size_t{4} << 20));
}

}  // namespace
}  // namespace tinyserve
