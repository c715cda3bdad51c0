// The engine with the bundled model: greedy and seeded answers do not depend on who else is in the batch, on chunks,
// prefix hits, copies on write or preemption, bit for bit.

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>

#include "base/thread_pool.h"
#include "engine/engine.h"
#include "engine/fake_model.h"
#include "model/calibration.h"

namespace tinyserve {
namespace {

using testing::Collected;
using testing::FakeTexts;

struct Setting {
  const char* backend;
  DType dtype;
  bool int8;
  int32_t prompt;  ///< longest
  int32_t answer;
  int32_t page_size;
  int32_t requests;
  int32_t select_from = 0;  ///< 0: dense
  float epsilon = 0;        ///< 0: a fixed budget
};

void PrintTo(const Setting& s, std::ostream* out) {
  *out << s.backend << " " << dtype_name(s.dtype) << (s.int8 ? " int8" : "") << (s.select_from > 0 ? " sparse" : "")
       << (s.epsilon > 0 ? " by feedback" : "");
}

class EngineModelTest : public ::testing::TestWithParam<Setting> {
 protected:
  std::unique_ptr<Model> load() {
    return Model::load(TINYSERVE_SOURCE_DIR "/models/tiny-16m-32k", *ops,
                       {.dtype = GetParam().dtype, .int8_weights = GetParam().int8});
  }
  Request request(int32_t i) const {
    std::mt19937 random(i);
    Request r;
    const int32_t length = 1 + random() % GetParam().prompt, shared = random() % (length + 1);
    for (int32_t t = 0; t < length; ++t)
      r.prompt.push_back(static_cast<int32_t>(testing::mix(t + (t < shared ? 0 : 1000 * i)) % 8192));
    r.sampling.max_tokens = 1 + random() % GetParam().answer;
    r.sampling.ignore_eos = true;
    r.sampling.temperature = i % 2 ? 0.0f : 0.9f;
    r.sampling.seed = i;
    r.sampling.n = i % 3 == 0 ? 3 : 1;
    r.sampling.logprobs = 2;
    return r;
  }
  /// With little to read beyond a short length, so that most of an answer comes from codes.
  void select(EngineConfig& config, Model& model) {
    if (GetParam().select_from == 0) return;
    config.selection = {.policy = "tinyserve",
                        .budget = 20,
                        .coded = 24,
                        .from = GetParam().select_from,
                        .epsilon = GetParam().epsilon};
    std::vector<int32_t> text;
    for (int32_t t = 0; t < 512; ++t) text.push_back(static_cast<int32_t>(testing::mix(t % 300) % 8192));
    if (!maps) maps = std::make_shared<const SelectionMaps>(calibrate(model, *ops, text, 256));
    config.maps = maps;
  }
  std::map<int32_t, Collected> run(Engine& engine, const std::vector<int32_t>& which) {
    std::map<int32_t, Collected> results;
    for (int32_t i : which) engine.add(i, request(i), results[i].sink());
    while (engine.step()) engine.check_invariants();
    EXPECT_EQ(engine.stats().pages_used, 0);
    return results;
  }

  ThreadPool pool{2};
  std::unique_ptr<ops::Ops> ops = ops::make_ops(GetParam().backend, pool);
  FakeTexts texts;
  std::shared_ptr<const SelectionMaps> maps;
};

TEST_P(EngineModelTest, AnswersDoNotDependOnTheBatch) {
  const int32_t longest = GetParam().prompt + GetParam().answer;
  EngineConfig crowded;
  crowded.page_size = GetParam().page_size;
  crowded.num_pages = longest / crowded.page_size + 4;  // one fits and little else: there must be preemptions
  crowded.max_step_tokens = 48;
  crowded.max_prefill_with_decodes = 32;
  crowded.max_running = 10;
  crowded.kv.compaction.random_moves = 3;
  std::vector<int32_t> all(GetParam().requests);
  std::iota(all.begin(), all.end(), 0);
  const std::unique_ptr<Model> model = load(), other_model = load();
  select(crowded, *model);
  Engine engine(*model, *ops, texts, crowded, nullptr);
  const std::map<int32_t, Collected> together = run(engine, all);
  EXPECT_GT(engine.stats().preemptions, 0u);
  EXPECT_GT(engine.stats().prefix_hit_tokens, 0u);
  EXPECT_GT(engine.stats().compaction.pages_moved, 0u);
  EXPECT_EQ(engine.stats().selection.reads > 0, GetParam().select_from > 0);

  EngineConfig roomy;
  roomy.num_pages = longest / 16 * 4 + 16;
  roomy.max_step_tokens = 1024;
  roomy.max_running = 3;
  roomy.kv.prefix.policy = PrefixPolicy::kOff;
  select(roomy, *other_model);
  Engine lonely(*other_model, *ops, texts, roomy, nullptr);
  for (int32_t i : all) {
    const std::map<int32_t, Collected> alone = run(lonely, {i});
    for (const auto& [index, choice] : alone.at(i).choices) {
      const Collected::Choice& other = together.at(i).choices.at(index);
      EXPECT_EQ(choice.tokens, other.tokens) << "request " << i << " choice " << index;
      EXPECT_EQ(choice.text, other.text);
      ASSERT_EQ(choice.logprobs.size(), other.logprobs.size());
      for (size_t t = 0; t < choice.logprobs.size(); ++t) {
        EXPECT_EQ(choice.logprobs[t].logprob, other.logprobs[t].logprob);
        EXPECT_EQ(choice.logprobs[t].top, other.logprobs[t].top);
      }
    }
  }
  // What preempted ones read again counts once.
  const SelectionAccount &read = engine.stats().selection, &read_alone = lonely.stats().selection;
  EXPECT_EQ(read.reads, read_alone.reads);
  EXPECT_NEAR(read.bytes, read_alone.bytes, 1e-9 * read.bytes);
  EXPECT_EQ(read.audit.reads, read.reads);
  EXPECT_EQ(read.audit.estimated_error.draws, read_alone.audit.estimated_error.draws);
  EXPECT_NEAR(read.audit.estimated_error.sum, read_alone.audit.estimated_error.sum,
              1e-9 * static_cast<double>(read.reads));
}

#ifdef TINYSERVE_SANITIZED
constexpr Setting kPlain = {"ref", DType::kF32, false, 16, 6, 2, 5};
#else
constexpr Setting kPlain = {"ref", DType::kF32, false, 16, 10, 4, 6};
#endif
INSTANTIATE_TEST_SUITE_P(Backends, EngineModelTest,
                         ::testing::Values(kPlain, Setting{"cpu", DType::kF32, false, 200, 60, 16, 10},
                                           Setting{"cpu", DType::kBF16, false, 300, 80, 16, 10},
                                           Setting{"cpu", DType::kBF16, true, 300, 60, 32, 10},
                                           Setting{"cpu", DType::kBF16, false, 300, 80, 16, 8, 150},
                                           Setting{"cpu", DType::kBF16, false, 300, 80, 16, 8, 150, 0.05f}));

}  // namespace
}  // namespace tinyserve
