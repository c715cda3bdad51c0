#include "eval/task.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "base/error.h"
#include "eval/vocabulary_words.h"

namespace tinyserve::eval {
namespace {

constexpr int32_t kFacts = 16;
constexpr std::string_view kSentences = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";
constexpr std::string_view kQuiz =
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. I will quiz you about the important "
    "information there.\n";

struct Fact {
  std::string key, value;
  std::string statement() const { return fmt::format("\nOne of the special magic numbers for {} is: {}.\n", key, value); }
  std::string question() const { return fmt::format("\nThe special magic number for {} mentioned in the provided text is {}.\n", key, value); }
};

void append(std::vector<int32_t>& to, std::span<const int32_t> tokens) { to.insert(to.end(), tokens.begin(), tokens.end()); }

}  // namespace

std::vector<int32_t> encode_inside(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<int32_t> ids = tokenizer.encode(text, false, false);
  if (!ids.empty() && tokenizer.strips_leading_space() && !text.starts_with(' ') && tokenizer.token_bytes(ids.front()) == " ") ids.erase(ids.begin());
  return ids;
}

TaskQuestion make_question(const Tokenizer& tokenizer, std::string_view text, std::string_view answer) {
  TaskQuestion question{.tokens = encode_inside(tokenizer, text)};
  std::string read;  // what the tokens say: some tokenizers make a space of a newline
  std::vector<size_t> ends;
  for (const int32_t id : question.tokens) ends.push_back((read += tokenizer.token_bytes(id)).size());
  const size_t from = read.rfind(answer), to = from + answer.size();
  if (from == std::string::npos || from == 0)
    throw InputError("the tokenizer does not keep digits as they are, so that this task's answers cannot be told apart; --task ppl can measure this model");
  const auto token_of = [&](size_t byte) { return static_cast<int32_t>(std::upper_bound(ends.begin(), ends.end(), byte) - ends.begin()); };
  question.answer = {token_of(from), token_of(to - 1) + 1};
  return question;
}

/// One task in the making: its random numbers and the text that is left to fill in.
class TaskMaker::Draft {
 public:
  Draft(const TaskMaker& maker, TaskKind kind, int32_t length, int64_t index)
      : maker_(maker), length_(length) {
    std::seed_seq seed{static_cast<uint32_t>(maker.seed_), static_cast<uint32_t>(maker.seed_ >> 32), static_cast<uint32_t>(kind),
                       static_cast<uint32_t>(length), static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32)};
    random_.seed(seed);
    if (maker.text_.bos) task_.context.push_back(*maker.text_.bos);
  }

  int64_t below(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }
  std::vector<int32_t> encode(std::string_view text) const { return encode_inside(maker_.tokenizer_, text); }
  const std::string& word() {
    const std::vector<std::string>& words = maker_.words_;
    if (words.size() < kFewestWords)
      throw InputError(fmt::format("the tokenizer has {} tokens that are a space and four or more lower-case letters: too few to name facts with; "
                                   "--task ppl or passkey can measure this model", words.size()));
    return words[static_cast<size_t>(below(static_cast<int64_t>(words.size())))];
  }
  std::string digits(int32_t n) {
    std::string out;
    while (n-- > 0) out += static_cast<char>('0' + below(10));
    return out;
  }
  Fact fact() {
    std::string key = word() + " ";
    key += word();
    return {key, digits(7)};
  }
  /// `facts` of different keys, each a statement of its own.
  std::vector<Fact> facts(int32_t count) {
    std::vector<Fact> out;
    while (static_cast<int32_t>(out.size()) < count) {
      Fact f = fact();
      if (std::none_of(out.begin(), out.end(), [&](const Fact& o) { return o.key == f.key; })) out.push_back(std::move(f));
    }
    return out;
  }

  void ask(const std::string& text, const std::string& answer) { task_.questions.push_back(make_question(maker_.tokenizer_, text, answer)); }
  void add(std::span<const int32_t> tokens) { append(task_.context, tokens); }

  /// Tokens of the context that are still to be filled when `planned` more of them and the longest question are there.
  int32_t room(size_t planned) const {
    size_t longest = 0;
    for (const TaskQuestion& q : task_.questions) longest = std::max(longest, q.tokens.size());
    const auto used = static_cast<int64_t>(task_.context.size() + planned + longest);
    if (length_ < used + kLeastFiller)
      throw InputError(fmt::format("a context of {} tokens is too short for this task: it takes at least {}", length_, used + kLeastFiller));
    return length_ - static_cast<int32_t>(used);
  }
  /// A stretch of the text.
  std::span<const int32_t> natural(int32_t n) {
    const std::span<const int32_t> all = maker_.text_.tokens;
    const auto there = static_cast<int64_t>(all.size());
    if (there <= n) throw InputError(fmt::format("the text has {} tokens: too few to fill a context of {}; give a longer --text (or several) or a shorter --context", there, length_));
    return all.subspan(static_cast<size_t>(below(there - n)), static_cast<size_t>(n));
  }
  Task finish() { return std::move(task_); }

 private:
  static constexpr int32_t kLeastFiller = 64;
  static constexpr size_t kFewestWords = 20;

  const TaskMaker& maker_;
  int32_t length_;
  std::mt19937_64 random_;
  Task task_;
};

int32_t TaskMaker::questions_of(TaskKind kind) { return kind == TaskKind::kMultiNeedle || kind == TaskKind::kRecall ? kFacts : 1; }

TaskMaker::TaskMaker(const Tokenizer& tokenizer, const EvalText& text, uint64_t seed, int32_t decode_tokens)
    : tokenizer_(tokenizer), text_(text), seed_(seed), decode_tokens_(decode_tokens), words_(vocabulary_words(tokenizer)) {}

Task TaskMaker::make(TaskKind kind, int32_t length, int64_t index, int32_t questions) const {
  Draft d(*this, kind, length, index);
  questions = std::clamp(questions, 1, questions_of(kind));
  switch (kind) {
    case TaskKind::kNeedle: {
      const Fact fact = d.fact();
      const std::vector<int32_t> statement = d.encode(fact.statement());
      d.ask(fact.question(), fact.value);
      const std::span<const int32_t> filler = d.natural(d.room(statement.size()));
      const auto at = static_cast<size_t>(d.below(static_cast<int64_t>(filler.size() * 95 / 100)));  // never right before the question
      d.add(filler.first(at)), d.add(statement), d.add(filler.subspan(at));
      break;
    }
    case TaskKind::kMultiNeedle: {
      const std::vector<Fact> facts = d.facts(kFacts);  // in random order already: the first ones are asked for
      std::vector<std::vector<int32_t>> statements;
      size_t planned = 0;
      for (const Fact& f : facts) planned += statements.emplace_back(d.encode(f.statement())).size();
      std::vector<size_t> order(facts.size());
      for (size_t i = 0; i < order.size(); ++i) order[i] = i;
      for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[static_cast<size_t>(d.below(static_cast<int64_t>(i)))]);
      for (int32_t q = 0; q < questions; ++q) d.ask(facts[static_cast<size_t>(q)].question(), facts[static_cast<size_t>(q)].value);
      const std::span<const int32_t> filler = d.natural(d.room(planned));
      size_t done = 0;
      for (size_t i = 0; i < order.size(); ++i) {  // each in the middle of its sixteenth
        const size_t at = filler.size() * (2 * i + 1) / (2 * kFacts);
        d.add(filler.subspan(done, at - done)), d.add(statements[order[i]]);
        done = at;
      }
      d.add(filler.subspan(done));
      break;
    }
    case TaskKind::kPasskey: {
      const std::string key = d.digits(5);
      const std::vector<int32_t> statement = d.encode(fmt::format("\nThe pass key is {0}. Remember it. {0} is the pass key.\n", key));
      const std::vector<int32_t> sentences = d.encode(kSentences);
      d.ask(fmt::format("\nWhat is the pass key? The pass key is {}.\n", key), key);
      d.add(d.encode(kQuiz));
      const int32_t room = d.room(statement.size()), at = static_cast<int32_t>(d.below(room));
      for (int32_t i = 0; i < room; ++i) {
        if (i == at) d.add(statement);
        d.add({&sentences[static_cast<size_t>(i) % sentences.size()], 1});
      }
      break;
    }
    case TaskKind::kRecall: {
      const int32_t rows = std::clamp(length / 40, kFacts, std::max(kFacts, static_cast<int32_t>(words_.size()) * 3 / 4));
      std::vector<int32_t> table;
      std::vector<Fact> facts;
      while (static_cast<int32_t>(facts.size()) < rows) {
        Fact f{d.word(), d.digits(7)};
        if (std::any_of(facts.begin(), facts.end(), [&](const Fact& o) { return o.key == f.key; })) continue;
        append(table, d.encode(fmt::format("{}: {}\n", f.key, f.value)));
        facts.push_back(std::move(f));
      }
      for (int32_t q = 0; q < questions; ++q) {  // any row, each once
        std::swap(facts[static_cast<size_t>(q)], facts[static_cast<size_t>(q + d.below(static_cast<int64_t>(facts.size()) - q))]);
        const Fact& f = facts[static_cast<size_t>(q)];
        d.ask(fmt::format("{}: {}\n", f.key, f.value), f.value);
      }
      d.add(d.natural(d.room(table.size())));
      d.add(table);
      break;
    }
    case TaskKind::kText: {
      const int32_t scored = decode_tokens_;
      if (length <= scored) throw InputError(fmt::format("a context of {} tokens is too short to score {} after it", length, scored));
      const int32_t filler = length - scored - (text_.bos ? 1 : 0);
      const std::span<const int32_t> all = d.natural(filler + scored);
      d.add(all.first(static_cast<size_t>(filler)));
      Task task = d.finish();
      const std::span<const int32_t> rest = all.subspan(static_cast<size_t>(filler));
      task.questions.push_back({.tokens = {rest.begin(), rest.end()}, .answer = {0, scored}});
      return task;
    }
  }
  return d.finish();
}

}  // namespace tinyserve::eval
