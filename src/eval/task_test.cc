// Tasks read back as text: what is asked for is in the context, and the answer's tokens are its digits, whatever the tokenizer.
#include "eval/task.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>

#include "base/error.h"
#include "eval/task_run.h"
#include "eval/vocabulary_words.h"

namespace tinyserve::eval {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kRoot = TINYSERVE_SOURCE_DIR;
constexpr TaskKind kKinds[] = {TaskKind::kNeedle, TaskKind::kMultiNeedle, TaskKind::kPasskey, TaskKind::kRecall, TaskKind::kText};

std::unique_ptr<Tokenizer> tokenizer(const std::string& name) {
  return Tokenizer::load(name == "bundled" ? kRoot / "models/tiny-16m-32k" : kRoot / "tests/golden/tokenizers" / name);
}

EvalText prose(const Tokenizer& tokenizer, bool bos = false) {
  std::string text;
  for (int i = 0; i < 900; ++i) text += fmt::format("In the year {} the old harbour had many ships, and the keeper counted them.\n", 1000 + i);
  EvalText out{.tokens = tokenizer.encode(text, false, false)};
  if (bos) out.bos = 1;
  return out;
}

std::string text_of(const Tokenizer& tokenizer, std::span<const int32_t> ids) {
  std::string out;
  for (const int32_t id : ids) out += tokenizer.token_bytes(id);
  return out;
}

/// Without what tokenizers do to white space: runs are one space, none at the ends.
std::string squeezed(const std::string& text) {
  const std::string out = std::regex_replace(text, std::regex(R"(\s+)"), " ");
  return std::regex_replace(out, std::regex("^ | $"), "");
}

std::string answer_of(const Tokenizer& tokenizer, const TaskQuestion& q) {
  return text_of(tokenizer, std::span(q.tokens).subspan(static_cast<size_t>(q.answer.begin), static_cast<size_t>(q.answer.end - q.answer.begin)));
}

class TaskOf : public testing::TestWithParam<const char*> {};

TEST_P(TaskOf, HoldsWhatItAsksFor) {
  const auto tok = tokenizer(GetParam());
  for (const bool bos : {false, true}) {
    const EvalText text = prose(*tok, bos);
    const TaskMaker maker(*tok, text, 1, 100);
    for (const TaskKind kind : {TaskKind::kNeedle, TaskKind::kMultiNeedle, TaskKind::kPasskey, TaskKind::kRecall}) {
      SCOPED_TRACE(static_cast<int>(kind));
      const Task task = maker.make(kind, 2048, 3, 4);
      ASSERT_EQ(task.questions.size(), static_cast<size_t>(std::min(4, TaskMaker::questions_of(kind))));
      EXPECT_EQ(task.context.front() == 1, bos);
      const std::string context = squeezed(text_of(*tok, task.context));
      size_t longest = 0;
      for (const TaskQuestion& q : task.questions) {
        longest = std::max(longest, q.tokens.size());
        const std::string question = squeezed(text_of(*tok, q.tokens)), answer = answer_of(*tok, q);
        static const std::regex forms(R"(The special magic number for ([a-z]{4,} [a-z]{4,}) mentioned in the provided text is (\d{7})\.|()"
                                      R"(What is the pass key\? The pass key is )(\d{5})\.|([a-z]{4,}: )(\d{7}))");
        std::smatch m;
        ASSERT_TRUE(std::regex_match(question, m, forms)) << question;
        const std::string value = m[2].str() + m[4].str() + m[6].str();
        EXPECT_THAT(answer, HasSubstr(value));
        EXPECT_LE(answer.size(), value.size() + 1) << "at most the space before it";
        std::string fact = fmt::format("One of the special magic numbers for {} is: {}.", m[1].str(), value);
        if (kind == TaskKind::kPasskey) fact = fmt::format("The pass key is {0}. Remember it. {0} is the pass key.", value);
        if (kind == TaskKind::kRecall) fact = m[5].str() + value;
        EXPECT_THAT(context, HasSubstr(fact));
      }
      EXPECT_EQ(task.context.size() + longest, 2048u);
      EXPECT_EQ(first_decoded(task) % SequenceRunner::kPageSize, 0);
      EXPECT_LT(first_decoded(task), static_cast<int32_t>(task.context.size()));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, TaskOf, testing::Values("bundled", "qwen2", "llama2", "gemma", "spm_bpe"));

TEST(Task, DependsOnTheSeedAndItsIndexAlone) {
  const auto tok = tokenizer("bundled");
  const EvalText text = prose(*tok);
  const TaskMaker a(*tok, text, 1, 100), b(*tok, text, 1, 100), other(*tok, text, 2, 100);
  for (const TaskKind kind : kKinds) {
    const Task first = a.make(kind, 1024, 0, 1), second = a.make(kind, 1024, 1, 1);
    EXPECT_NE(first.context, second.context);
    EXPECT_NE(first.context, other.make(kind, 1024, 0, 1).context);
    EXPECT_EQ(second.context, b.make(kind, 1024, 1, 1).context);
    EXPECT_EQ(second.questions[0].tokens, b.make(kind, 1024, 1, 1).questions[0].tokens);
  }
}

TEST(Task, AsksOneContextSeveralQuestions) {
  const auto tok = tokenizer("bundled");
  const EvalText text = prose(*tok);
  const Task task = TaskMaker(*tok, text, 1, 100).make(TaskKind::kMultiNeedle, 2048, 0, 99);
  ASSERT_EQ(task.questions.size(), 16u);
  for (size_t i = 0; i < 16; ++i)
    for (size_t j = 0; j < i; ++j) EXPECT_NE(task.questions[i].tokens, task.questions[j].tokens);
}

TEST(Task, RunningTextGoesOn) {
  const auto tok = tokenizer("bundled");
  const EvalText text = prose(*tok);
  const Task task = TaskMaker(*tok, text, 1, 100).make(TaskKind::kText, 1024, 0, 1);
  std::vector<int32_t> all = task.context;
  all.insert(all.end(), task.questions[0].tokens.begin(), task.questions[0].tokens.end());
  EXPECT_EQ(all.size(), 1024u);
  EXPECT_EQ(task.questions[0].answer.end, 100);
  EXPECT_NE(std::search(text.tokens.begin(), text.tokens.end(), all.begin(), all.end()), text.tokens.end());
}

TEST(Task, SaysWhatIsTooShort) {
  const auto tok = tokenizer("bundled");
  const EvalText text = prose(*tok), nothing{.tokens = {1, 2, 3}};
  const auto error = [&](const EvalText& t, TaskKind kind, int32_t length) -> std::string {
    try {
      TaskMaker(*tok, t, 1, 100).make(kind, length, 0, 1);
    } catch (const InputError& e) {
      return e.what();
    }
    return "none";
  };
  EXPECT_THAT(error(text, TaskKind::kMultiNeedle, 256), HasSubstr("a context of 256 tokens is too short for this task: it takes at least"));
  EXPECT_THAT(error(text, TaskKind::kText, 100), HasSubstr("too short to score 100"));
  EXPECT_THAT(error(nothing, TaskKind::kNeedle, 1024), HasSubstr("give a longer --text"));
  EXPECT_EQ(error(nothing, TaskKind::kPasskey, 1024), "none");  // it needs no text
}

TEST(VocabularyWords, AreSingleTokens) {
  for (const char* name : {"bundled", "qwen2", "llama2", "gemma", "spm_bpe", "gpt2"}) {
    const auto tok = tokenizer(name);
    const std::vector<std::string> words = vocabulary_words(*tok);
    EXPECT_GE(words.size(), 20u) << name;  // the vocabularies of most are cut short
    EXPECT_TRUE(std::is_sorted(words.begin(), words.end()));
    for (size_t i = 0; i < words.size(); i += 7) {
      EXPECT_TRUE(std::all_of(words[i].begin(), words[i].end(), [](char c) { return c >= 'a' && c <= 'z'; })) << words[i];
      EXPECT_GE(words[i].size(), 4u);
    }
  }
}

}  // namespace
}  // namespace tinyserve::eval
