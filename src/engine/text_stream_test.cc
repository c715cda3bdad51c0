#include "engine/text_stream.h"

#include <gtest/gtest.h>

#include "base/thread_pool.h"
#include "engine/engine.h"
#include "engine/fake_model.h"
#include "text/tokenizer.h"

namespace tinyserve {
namespace {

/// A model that recites a text, whatever is asked; tokens of the bundled tokenizer.
TEST(TextStream, StreamsTheTokenizersText) {
  const auto tokenizer = Tokenizer::load(TINYSERVE_SOURCE_DIR "/models/tiny-16m-32k");
  const std::string text = "Grüße, 世界! \U0001F9D1\u200D\U0001F680 naïve café — the end.";
  const std::vector<int32_t> ids = tokenizer->encode(text, false);
  const std::vector<int32_t> prompt = tokenizer->encode("Say it", false);
  const int32_t eos = 0;
  testing::FakeModel model(tokenizer->vocab_size(), 512, [&](std::span<const int32_t> tokens, std::span<float> logits) {
    std::fill(logits.begin(), logits.end(), 0.0f);
    const size_t at = tokens.size() - prompt.size();
    logits[at < ids.size() ? ids[at] : eos] = 1;
  });
  model.set_eos({eos});
  ThreadPool pool(1);
  auto ops = ops::make_ops("ref", pool);
  EngineConfig config;
  config.num_pages = 64;
  Engine engine(model, *ops, *tokenizer, config, nullptr);
  auto run = [&](std::vector<std::string> stop) {
    Request r{prompt, {}};
    r.sampling.temperature = 0;
    r.sampling.stop = std::move(stop);
    testing::Collected c;
    engine.add(1, r, [&, sink = c.sink()](Output&& o) {
      EXPECT_EQ(o.text.find("\ufffd"), std::string::npos) << "never half a character";
      sink(std::move(o));
    });
    while (engine.step()) {
    }
    return c.choices[0];
  };
  const auto whole = run({});
  EXPECT_EQ(whole.text, text);
  EXPECT_EQ(whole.tokens.size(), ids.size() + 1);
  EXPECT_EQ(whole.finish, FinishReason::kStop);
  const auto cut = run({"not there", "界! \U0001F9D1", "zzz"});
  EXPECT_EQ(cut.text, "Grüße, 世");
  EXPECT_EQ(std::get<std::string>(cut.stop_reason), "界! \U0001F9D1");
}

}  // namespace
}  // namespace tinyserve
