// Selection in the engine with the bundled model: requests with terms of their own, budgets that follow the audit, and
// codes that leave the pool and come back.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "base/thread_pool.h"
#include "engine/engine.h"
#include "engine/fake_model.h"
#include "kv/tiers/memory_disk.h"
#include "model/calibration.h"
#include "text/tokenizer.h"

namespace tinyserve {
namespace {

using testing::Collected;
using testing::FakeTexts;
using testing::MemoryDisk;
using testing::MemoryFile;

#ifdef TINYSERVE_SANITIZED
constexpr int32_t kLong = 400, kAnswer = 24, kMapTokens = 512;
#else
constexpr int32_t kLong = 1400, kAnswer = 120, kMapTokens = 2048;
#endif

/// What all tests share: a model takes longer to load than any of them.
struct Bundled {
  Bundled() {
    const std::string folder = TINYSERVE_SOURCE_DIR "/models/tiny-16m-32k";
    model = Model::load(folder, *ops, {.dtype = DType::kBF16});
    text = Tokenizer::load(folder)->encode(read_text_file(TINYSERVE_SOURCE_DIR "/src/cli/calibration_text.txt"), false,
                                           false);
    maps = std::make_shared<const SelectionMaps>(calibrate(*model, *ops, std::span(text).first(kMapTokens), kMapTokens));
  }
  ThreadPool pool{2};
  std::unique_ptr<ops::Ops> ops = ops::make_ops("cpu", pool);
  std::unique_ptr<Model> model;
  std::vector<int32_t> text;
  std::shared_ptr<const SelectionMaps> maps;
};

class EngineSelectionTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { shared = std::make_unique<Bundled>(); }
  static void TearDownTestSuite() { shared.reset(); }
  EngineSelectionTest() {
    set_log_level(LogLevel::kOff);
    config.num_pages = 4 * (kLong + kAnswer) / 16;
    config.selection = {.policy = "tinyserve", .budget = 32, .coded = 64, .from = 100};
    config.maps = shared->maps;
  }
  ~EngineSelectionTest() override {
    engine.reset();  // before the disks it writes to
    set_log_level(LogLevel::kInfo);
  }
  static Request request(int32_t begin, int32_t length, const SelectionRequest& selection = {}) {
    Request r;
    r.prompt.assign(shared->text.begin() + begin, shared->text.begin() + begin + length);
    r.sampling.temperature = 0;
    r.sampling.max_tokens = kAnswer;
    r.sampling.ignore_eos = true;
    r.sampling.logprobs = 1;
    r.selection = selection;
    return r;
  }
  Collected ask(Request r) {
    if (!engine) engine = std::make_unique<Engine>(*shared->model, *shared->ops, texts, config, nullptr);
    Collected collected;
    engine->add(next_id++, std::move(r), collected.sink());
    while (engine->step() || engine->has_work()) engine->check_invariants();
    EXPECT_TRUE(collected.done);
    return collected;
  }
  static void expect_same(const Collected& a, const Collected& b) {
    const auto &x = a.choices.at(0), &y = b.choices.at(0);
    EXPECT_EQ(x.tokens, y.tokens);
    ASSERT_EQ(x.logprobs.size(), y.logprobs.size());
    for (size_t i = 0; i < x.logprobs.size(); ++i) EXPECT_EQ(x.logprobs[i].logprob, y.logprobs[i].logprob) << i;
  }
  static double share(double sum, const SelectionAccount& read) { return sum / static_cast<double>(read.reads); }

  static std::unique_ptr<Bundled> shared;
  FakeTexts texts;
  EngineConfig config;
  std::unique_ptr<Engine> engine;
  uint64_t next_id = 1;
};

std::unique_ptr<Bundled> EngineSelectionTest::shared;

TEST_F(EngineSelectionTest, ARequestHasTermsOfItsOwn) {
  config.kv.prefix.policy = PrefixPolicy::kOff;
  const Collected whole = ask(request(0, kLong, {.policy = "full"}));
  EXPECT_EQ(whole.selection.reads, 0);
  const Collected own = ask(request(0, kLong)), same = ask(request(0, kLong, {.budget = 32}));
  expect_same(own, same);
  EXPECT_GT(own.selection.reads, 0);
  EXPECT_EQ(own.selection.audit.reads, own.selection.reads);
  const Collected much = ask(request(0, kLong, {.budget = 256, .coded = 0, .audit = false}));
  EXPECT_GT(much.selection.exact_share, own.selection.exact_share);
  EXPECT_EQ(much.selection.coded_share, 0);
  EXPECT_EQ(much.selection.audit.reads, 0);
  const Collected shared_out = ask(request(0, kLong, {.budget_share = 0.9f}));
  EXPECT_GT(shared_out.selection.bytes, much.selection.bytes);
  const Collected late = ask(request(0, kLong, {.from = kLong + kAnswer / 2}));
  EXPECT_NEAR(static_cast<double>(late.selection.reads) / static_cast<double>(own.selection.reads), 0.5, 0.1);

  engine.reset();
  config.selection = {};
  config.maps = nullptr;
  expect_same(whole, ask(request(0, kLong)));
  EXPECT_THROW(ask(request(0, kLong, {.budget = 5})), InputError);
  config.selection.epsilon = 0.1f;
  engine.reset();
  EXPECT_THROW(ask(request(0, kLong)), InputError);
}

TEST_F(EngineSelectionTest, AWantedEpsilonIsHeld) {
  std::vector<double> bytes;
  for (const float epsilon : {0.02f, 0.08f}) {
    const Collected c = ask(request(0, kLong, {.epsilon = epsilon}));
    const AuditSums& a = c.selection.audit;
    const double held = (a.estimated + a.estimated_error.sum) / static_cast<double>(a.reads);
    // The answer's first tokens, before the budget has moved, are part of it.
    EXPECT_LT(held, epsilon * 1.5);
    EXPECT_GT(held, epsilon / 1.5);
    bytes.push_back(c.selection.bytes / c.selection.dense_bytes);
    expect_same(c, ask(request(0, kLong, {.epsilon = epsilon})));
  }
  EXPECT_GT(bytes[0], bytes[1]);
}

TEST_F(EngineSelectionTest, CodesGoDownAndComeBackWithTheirPages) {
  const int32_t length = 400;
  config.num_pages = (length + kAnswer) / 16 + 4;  // one at a time: the other's pages are given up
  config.kv.prefix.policy = PrefixPolicy::kOff;
  const Collected first = ask(request(0, length)), second = ask(request(500, length));
  engine.reset();

  config.kv.prefix.policy = PrefixPolicy::kLru;
  config.tiers.fingerprint = "bundled";
  config.tiers.host_bytes = int64_t{1} << 28;
  for (int32_t round = 0; round < 3; ++round) {
    expect_same(first, ask(request(0, length)));
    expect_same(second, ask(request(500, length)));
  }
  EXPECT_GT(engine->stats().tiers.host_hit_pages, 0u);
  engine.reset();

  MemoryDisk disk;
  config.tiers.host_bytes = 0;
  config.tiers.disk_bytes = int64_t{1} << 28;
  config.tiers.open_disk = [&disk] { return std::make_unique<MemoryFile>(disk); };
  expect_same(first, ask(request(0, length)));
  engine.reset();  // writes what it has
  expect_same(first, ask(request(0, length)));
  EXPECT_GT(engine->stats().tiers.disk.pages_found, 10);
  EXPECT_GT(engine->stats().tiers.disk_hit_pages, 0u);
  engine.reset();
  // Other maps: the same tokens' codes would say something else, so the file is begun anew.
  config.maps = std::make_shared<const SelectionMaps>(
      calibrate(*shared->model, *shared->ops, std::span(shared->text).subspan(700, 512), 512));
  ask(request(0, length));
  EXPECT_EQ(engine->stats().tiers.disk.pages_found, 0);
  engine.reset();
}

}  // namespace
}  // namespace tinyserve
