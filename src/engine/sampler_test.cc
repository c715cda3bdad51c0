#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>

#include "engine/philox.h"

namespace tinyserve {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> random_logits(int32_t n, uint32_t seed, float spread = 3) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(n);
  for (float& x : logits) x = normal(random);
  return logits;
}

/// The distribution a row must be sampled from, by the definitions, in double, with full sorts.
std::vector<double> brute_force(std::vector<double> logits, const SamplingParams& p, const std::vector<int32_t>& prompt,
                                const std::vector<int32_t>& answer) {
  const size_t n = logits.size();
  for (auto [id, bias] : p.logit_bias) logits[id] += bias;
  std::vector<int> in_prompt(n), count(n);
  for (int32_t t : prompt) in_prompt[t] = 1;
  for (int32_t t : answer) ++count[t];
  for (size_t i = 0; i < n; ++i) {
    if (in_prompt[i] || count[i])
      logits[i] = logits[i] > 0 ? logits[i] / p.repetition_penalty : logits[i] * p.repetition_penalty;
    logits[i] -= p.frequency_penalty * count[i] + (count[i] > 0 ? p.presence_penalty : 0);
  }
  std::vector<double> w(n);
  const double max = *std::max_element(logits.begin(), logits.end());
  for (size_t i = 0; i < n; ++i) w[i] = std::exp((logits[i] - max) / p.temperature);
  for (double& x : w) x = x < p.min_p ? 0 : x;
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return w[a] > w[b]; });
  if (p.top_k > 0) {
    for (size_t i = p.top_k; i < n; ++i) w[order[i]] = 0;
  }
  const double total = std::accumulate(w.begin(), w.end(), 0.0);
  double sum = 0;
  for (size_t i : order) {
    const double x = w[i];
    if (p.top_p < 1 && sum >= p.top_p * total) w[i] = 0;
    sum += x;
  }
  const double left = std::accumulate(w.begin(), w.end(), 0.0);
  for (double& x : w) x /= left;
  return w;
}

#ifdef TINYSERVE_SANITIZED
constexpr int kDraws = 400;
#else
constexpr int kDraws = 8000;
#endif

/// Draws `draws` tokens and compares with the distribution: nothing outside its support, and a chi-square within what
/// chance makes of it (mean + 5 standard deviations; the seed is fixed).
void expect_distribution(const std::vector<float>& logits, const SamplingParams& p,
                         const std::vector<int32_t>& prompt = {}, const std::vector<int32_t>& answer = {},
                         int draws = kDraws) {
  const std::vector<double> want = brute_force({logits.begin(), logits.end()}, p, prompt, answer);
  Sampler sampler(static_cast<int32_t>(logits.size()));
  std::vector<int> got(logits.size());
  for (int i = 0; i < draws; ++i) {
    ChoiceHistory history(p, prompt, {}, 1234 + i, 0);
    for (int32_t t : answer) history.add(t);
    ++got[sampler.pick(logits.data(), p, history)];
  }
  double chi = 0, rest_want = 0, rest_got = 0;
  int cells = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    if (want[i] == 0) {
      EXPECT_EQ(got[i], 0) << "token " << i;
    }
    if (want[i] * draws < 5) {
      rest_want += want[i] * draws, rest_got += got[i];
      continue;
    }
    chi += std::pow(got[i] - want[i] * draws, 2) / (want[i] * draws);
    ++cells;
  }
  if (rest_want > 5) chi += std::pow(rest_got - rest_want, 2) / rest_want, ++cells;
  const double freedom = std::max(1, cells - 1);
  EXPECT_LT(chi, freedom + 5 * std::sqrt(2 * freedom)) << cells << " cells";
}

TEST(Philox, MatchesTheAuthorsVectors) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(TokenSelection, ArgmaxFindsTheFirstLargestAndRefusesNonsense) {
  for (int32_t n : {1, 5, 16, 17, 100, 1000}) {
    std::vector<float> x = random_logits(n, n);
    for (int32_t at : {0, n / 2, n - 1}) {
      std::vector<float> y = x;
      y[at] = 100;
      y[n - 1] = 100;  // a tie goes to the lower id
      EXPECT_EQ(argmax(y.data(), n).id, at);
      y[at] = std::nanf("");
      EXPECT_EQ(argmax(y.data(), n).id, -1);
      y[at] = kInf;
      EXPECT_EQ(argmax(y.data(), n).id, -1);
    }
    std::fill(x.begin(), x.end(), -kInf);
    EXPECT_EQ(argmax(x.data(), n).id, -1);
    x[n / 3] = -1e30f;
    EXPECT_EQ(argmax(x.data(), n).id, n / 3);
  }
}

TEST(TokenSelection, SelectTopIsTheBeginningOfAFullSort) {
  std::mt19937 random(3);
  std::vector<Candidate> got;
  for (int round = 0; round < 300; ++round) {
    const int32_t n = 1 + random() % 2000, k = 1 + random() % (round % 2 ? 40 : 2500);
    std::vector<float> x(n);
    // Few distinct values make ties; ascending runs move the threshold often; some are impossible tokens.
    for (int32_t i = 0; i < n; ++i)
      x[i] = round % 3 == 0 ? random() % 7 : round % 3 == 1 ? i + random() % 9 : random() % 100000;
    for (int32_t i = 0; i < n; i += 1 + random() % 50) x[i] = -kInf;
    std::vector<Candidate> want;
    for (int32_t i = 0; i < n; ++i) want.push_back({x[i], i});
    std::sort(want.begin(), want.end(), better);
    want.resize(std::min(n, k));
    select_top(x.data(), n, k, got);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i].id, want[i].id) << "n " << n << " k " << k << " at " << i;
  }
}

TEST(TokenSelection, WeightsAreExponentialsToFloatPrecision) {
  const int32_t n = 5000;
  std::vector<float> x(n);
  for (int32_t i = 0; i < n; ++i) x[i] = -0.02f * i;
  x[77] = -kInf;
  TokenWeights w(n);
  w.assign(x.data(), 0, 1);
  double sum = 0;
  for (int32_t i = 0; i < n; ++i) {
    const double want = std::exp(static_cast<double>(x[i]));
    if (x[i] >= -87) {
      EXPECT_NEAR(w[i] / want, 1, 3e-7) << i;
    } else {
      EXPECT_EQ(w[i], 0) << i;
    }
    sum += w[i];
  }
  EXPECT_NEAR(w.total(), sum, 1e-5);
  EXPECT_NEAR(log_sum_exp(x.data(), n, 0), std::log(sum), 1e-6);
  const std::vector<float> large = random_logits(70000, 1);  // more than one turn of its loop
  const float max = argmax(large.data(), 70000).value;
  sum = 0;
  for (float v : large) sum += std::exp(static_cast<double>(v) - max);
  EXPECT_NEAR(log_sum_exp(large.data(), 70000, max), max + std::log(sum), 1e-6);
}

TEST(TokenSelection, KeepsTheFewestBestThatReachAShare) {
  std::mt19937 random(8);
  for (int round = 0; round < 200; ++round) {
    const int32_t n = 1 + random() % 3000;
    std::vector<float> x = random_logits(n, round, round % 4 == 0 ? 0.01f : 4);
    if (round % 3 == 0) {
      for (float& v : x) v = std::round(v);  // many ties
    }
    const double share = 0.001 + 0.998 * uniform_draw(round, 0, 0);
    TokenWeights w(n), all(n);
    const float max = argmax(x.data(), n).value;
    all.assign(x.data(), max, 1.3f);
    w.assign(x.data(), max, 1.3f);
    w.keep_share(share);
    std::vector<Candidate> sorted;
    for (int32_t i = 0; i < n; ++i) sorted.push_back({all[i], i});
    std::sort(sorted.begin(), sorted.end(), better);
    double sum = 0;
    int32_t kept = 0;
    while (sum < share * all.total() * (1 - 1e-6)) sum += sorted[kept++].value;
    const bool close = sum < share * all.total() * (1 + 1e-6);  // rounding may ask for one more
    double total = 0;
    for (int32_t i = 0; i < n; ++i) {
      total += w[sorted[i].id];
      if (i < kept) {
        ASSERT_EQ(w[sorted[i].id], sorted[i].value) << "round " << round << " rank " << i;
      } else if (i > kept || !close) {
        ASSERT_EQ(w[sorted[i].id], 0) << "round " << round << " rank " << i;
      }
    }
    ASSERT_NEAR(w.total(), total, 1e-6 * total);
    for (double u : {0.0, 0.3, 1 - 1e-16}) ASSERT_GT(w[w.at(u)], 0);
  }
}

TEST(Sampler, FollowsTheDefinitions) {
  for (int32_t n : {3, 50, 300, 1000}) {
    const std::vector<float> logits = random_logits(n, n);
    for (float temperature : {0.5f, 1.0f, 2.0f}) {
      SamplingParams p;
      p.temperature = temperature;
      expect_distribution(logits, p);
      p.top_k = 10;
      expect_distribution(logits, p);
      p.top_p = 0.8f;
      expect_distribution(logits, p);
      p.min_p = 0.05f;
      expect_distribution(logits, p);
      p.top_k = 0;
      expect_distribution(logits, p);
      p.min_p = 0;
      expect_distribution(logits, p);
      p.top_p = 1;
      p.min_p = 0.1f;
      expect_distribution(logits, p);
    }
  }
}

TEST(Sampler, AFlatDistributionNeedsManyTokensForTopP) {
  SamplingParams p;
  p.top_p = 0.9f;
  expect_distribution(random_logits(2000, 5, 0.1f), p);
}

TEST(Sampler, PenaltiesAndBiasFollowTheDefinitions) {
  const std::vector<float> logits = random_logits(40, 9, 2);
  const std::vector<int32_t> prompt = {1, 2, 3, 3, 3, 17}, answer = {2, 4, 4, 4, 5, 39};
  SamplingParams p;
  p.repetition_penalty = 1.7f;
  expect_distribution(logits, p, prompt, answer);
  p.frequency_penalty = 0.6f;
  p.presence_penalty = -0.9f;
  expect_distribution(logits, p, prompt, answer);
  p.logit_bias = {{4, 3.0f}, {7, -100.0f}, {17, 1.5f}};
  expect_distribution(logits, p, prompt, answer);
  p.top_k = 5;
  expect_distribution(logits, p, prompt, answer);

  p.temperature = 0;  // greedy sees the same edits
  p.top_k = 0;
  p.logit_bias = {{7, 100.0f}};
  Sampler sampler(40);
  EXPECT_EQ(sampler.pick(logits.data(), p, ChoiceHistory(p, prompt, {}, 0, 0)), 7);
}

TEST(Sampler, GreedyTiesGoToTheLowestId) {
  SamplingParams p;
  p.temperature = 0;
  std::vector<float> logits(100, 1.0f);
  EXPECT_EQ(Sampler(100).pick(logits.data(), p, ChoiceHistory(p, {}, {}, 0, 0)), 0);
  logits[41] = logits[73] = 2;
  EXPECT_EQ(Sampler(100).pick(logits.data(), p, ChoiceHistory(p, {}, {}, 0, 0)), 41);
  p.temperature = 1;
  p.top_k = 1;  // exactly one is kept
  for (uint64_t seed = 0; seed < 50; ++seed)
    EXPECT_EQ(Sampler(100).pick(logits.data(), p, ChoiceHistory(p, {}, {}, seed, 0)), 41);
}

TEST(Sampler, ADrawIsAFunctionOfSeedChoiceAndPosition) {
  const std::vector<float> logits = random_logits(500, 1, 1);
  SamplingParams p;
  Sampler a(500), b(500);
  auto stream = [&](Sampler& sampler, uint64_t seed, int32_t index) {
    ChoiceHistory history(p, {}, {}, seed, index);
    std::vector<int32_t> tokens;
    for (int i = 0; i < 20; ++i) {
      tokens.push_back(sampler.pick(logits.data(), p, history));
      history.add(tokens.back());
    }
    return tokens;
  };
  const auto first = stream(a, 7, 0);
  EXPECT_NE(first, stream(a, 8, 0));
  EXPECT_NE(first, stream(a, 7, 1));
  EXPECT_NE(first, stream(a, 7 | uint64_t{1} << 40, 0));
  EXPECT_EQ(first, stream(b, 7, 0));
  EXPECT_GT(std::set<int32_t>(first.begin(), first.end()).size(), 5u);
}

TEST(Sampler, ExtremeTemperaturesAreSafe) {
  const std::vector<float> logits = random_logits(300, 2);
  Sampler sampler(300);
  SamplingParams p;
  for (float t : {1e-45f, 1e-30f, 1e-6f}) {
    p.temperature = t;
    for (uint64_t seed = 0; seed < 20; ++seed)
      EXPECT_EQ(sampler.pick(logits.data(), p, ChoiceHistory(p, {}, {}, seed, 0)), argmax(logits.data(), 300).id);
  }
  p.temperature = 3e38f;
  expect_distribution(logits, p);
}

TEST(Sampler, EndingsAreMaskedBeforeMinTokens) {
  std::vector<float> logits = random_logits(30, 4);
  logits[3] = 50, logits[8] = 60, logits[9] = 70;
  SamplingParams p;
  p.temperature = 0;
  p.min_tokens = 2;
  p.stop_token_ids = {8};
  const int32_t eos[] = {9};
  Sampler sampler(30);
  ChoiceHistory history(p, {}, eos, 0, 0);
  EXPECT_EQ(sampler.pick(logits.data(), p, history), 3);
  history.add(3);
  EXPECT_EQ(sampler.pick(logits.data(), p, history), 3);
  history.add(3);
  EXPECT_EQ(sampler.pick(logits.data(), p, history), 9);
  p.ignore_eos = true;
  EXPECT_EQ(sampler.pick(logits.data(), p, ChoiceHistory(p, {}, eos, 0, 0)), 9) << "EOS is a token like others now";
}

TEST(Sampler, LogprobsAreRawLogSoftmax) {
  for (int32_t n : {5, 700, 8192}) {
    const std::vector<float> logits = random_logits(n, n + 1, 5);
    double max = *std::max_element(logits.begin(), logits.end()), sum = 0;
    for (float x : logits) sum += std::exp(x - max);
    const double norm = max + std::log(sum);
    Sampler sampler(n);
    for (int32_t k : {0, 1, 4, 20}) {
      const TokenLogprob got = sampler.logprob(logits.data(), n / 2, k);
      EXPECT_EQ(got.token, n / 2);
      EXPECT_NEAR(got.logprob, logits[n / 2] - norm, 2e-6 * std::abs(norm) + 1e-6);
      ASSERT_EQ(got.top.size(), static_cast<size_t>(std::min(k, n)));
      std::vector<float> sorted = logits;
      std::sort(sorted.rbegin(), sorted.rend());
      for (size_t i = 0; i < got.top.size(); ++i) {
        EXPECT_NEAR(got.top[i].second, sorted[i] - norm, 2e-6 * std::abs(norm) + 1e-6);
        EXPECT_EQ(logits[got.top[i].first], sorted[i]);
      }
    }
  }
}

TEST(Sampler, RefusesRowsThatAreNoDistribution) {
  SamplingParams p;
  Sampler sampler(64);
  for (float bad : {std::nanf(""), kInf}) {
    std::vector<float> logits = random_logits(64, 6);
    logits[50] = bad;
    for (float temperature : {0.0f, 1.0f}) {
      p.temperature = temperature;
      EXPECT_THROW(sampler.pick(logits.data(), p, ChoiceHistory(p, {}, {}, 0, 0)), BadLogits);
    }
    EXPECT_THROW(sampler.logprob(logits.data(), 0, 3), BadLogits);
  }
  const std::vector<float> impossible(64, -kInf);
  EXPECT_THROW(sampler.pick(impossible.data(), p, ChoiceHistory(p, {}, {}, 0, 0)), BadLogits);
}

}  // namespace
}  // namespace tinyserve
