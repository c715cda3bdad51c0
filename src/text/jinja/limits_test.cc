// Templates that burn time, memory or stack end in an error that says which limit they met.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "text/jinja/template.h"

namespace tinyserve::jinja {
namespace {

using testing::HasSubstr;

#ifdef TINYSERVE_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// The defaults, with fewer steps where each takes many times as long.
Limits test_limits() {
  Limits limits;
  if (kSanitized) limits.max_steps = 4'000'000;
  return limits;
}

std::string error_of(const std::string& source, const Limits& limits = test_limits()) {
  try {
    const std::string out = Template(source, "chat template").render({{"xs", {3, 1, 2}}}, limits);
    return "rendered " + std::to_string(out.size()) + " bytes";
  } catch (const InputError& e) {
    return e.what();
  }
}

std::string repeated(const std::string& s, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += s;
  return out;
}

TEST(JinjaLimits, LoopsEnd) {
  EXPECT_THAT(error_of("{% for i in range(10**9) %}{% endfor %}"), HasSubstr("more than the limit of 100000 items"));
  EXPECT_THAT(error_of("{% for i in range(0 - 2**62, 2**62) %}{% endfor %}"), HasSubstr("limit of 100000 items"));
  EXPECT_THAT(error_of("{% for i in range(100000) %}{% for j in range(100000) %}{% for k in range(100000) %}{{ k }}"
                       "{% endfor %}{% endfor %}{% endfor %}"),
              HasSubstr("limit"));
  EXPECT_THAT(error_of("\n\n{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"),
              HasSubstr("chat template, line 3: "));
  Limits small;
  small.max_steps = 1000;
  EXPECT_THAT(error_of("{% for i in range(999) %}{{ i * i }}{% endfor %}", small), HasSubstr("limit of 1000 steps"));
  EXPECT_THAT(error_of("{% for i in range(10) %}{{ i * i }}{% endfor %}", small), HasSubstr("rendered"));
}

TEST(JinjaErrors, AnIndexDoesNotBeginWithAComma) {
  for (const char* source : {"{{ 0[, 1, 2][true] }}", "{{ xs[,] }}", "{{ xs[, 1] }}", "{{ xs[1:, 2] }}", "{{ xs[] }}"})
    EXPECT_THAT(error_of(source), HasSubstr("chat template, line 1: ")) << source;
}

TEST(JinjaLimits, TextEnds) {
  EXPECT_THAT(error_of("{{ 'a' * 10**9 }}"), HasSubstr("output limit"));
  EXPECT_THAT(error_of("{{ 'a' * 2**62 }}"), HasSubstr("output limit"));
  EXPECT_THAT(error_of("{{ [1] * 10**12 }}"), HasSubstr("limit of 536870912 bytes"));
  EXPECT_THAT(error_of("{{ 'a'.center(10**10) }}"), HasSubstr("output limit"));
  EXPECT_THAT(error_of("{{ 'a'.zfill(10**10) }}"), HasSubstr("output limit"));
  EXPECT_THAT(error_of("{{ '%1000000000d' % 1 }}"), HasSubstr("output limit"));
  EXPECT_THAT(error_of("{{ '%.400f' % 1 }}"), HasSubstr("precision"));
  EXPECT_THAT(error_of("{{ '{:1000000000}'.format(1) }}"), HasSubstr("output limit"));
  EXPECT_THAT(error_of("{{ 'a'|indent(10**10, true) }}"), HasSubstr("output limit"));
  EXPECT_THAT(error_of("{{ ('a' * 10**6)|replace('a', 'b' * 10**6) }}"), HasSubstr("limit"));
  EXPECT_THAT(error_of("{{ ('a' * 10**6)|replace('', 'b' * 10**6) }}"), HasSubstr("limit"));
  EXPECT_THAT(error_of("{{ (['a' * 10**6] * 10**4)|join('b' * 10**6) }}"), HasSubstr("limit"));
  EXPECT_THAT(error_of("{{ ('b' * 10**6).join(['a' * 10**6] * 10**4) }}"), HasSubstr("limit"));
  EXPECT_THAT(
      error_of("{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", Limits()),
      HasSubstr("output limit"));
  EXPECT_THAT(error_of("{% for i in range(100) %}{{ 'a' * 10**6 }}{% endfor %}"), HasSubstr("limit of 67108864 bytes"));
  EXPECT_THAT(error_of("{% set ns = namespace(l=[]) %}{% for i in range(10**5) %}{% set ns.l = ns.l + ['a' * 10**5] %}"
                       "{% endfor %}"),
              HasSubstr("limit"));
  EXPECT_THAT(error_of("{{ strftime_now('%c' * 2000) }}"), HasSubstr("1024"));
  EXPECT_THAT(error_of("{{ [1, 2]|batch(10**15, 0)|list }}"), HasSubstr("limit"));
  EXPECT_THAT(error_of("{{ [1, 2]|slice(10**15)|list }}"), HasSubstr("slices"));
  EXPECT_THAT(error_of("{{ [1]|tojson(indent=10**9) }}"), HasSubstr("indent"));
}

// A value of a few bytes that would print as 2^80 elements, or compare as long.
TEST(JinjaLimits, SharedValuesEnd) {
  const std::string grow =
      "{% set ns = namespace(x=['a']) %}{% for i in range(80) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
  EXPECT_THAT(error_of(grow + "{{ ns.x }}"), HasSubstr("stands for more than"));
  EXPECT_THAT(error_of("{% set ns = namespace(x=1, y=1) %}{% for i in range(20) %}{% set ns.x = [ns.x, ns.x] %}"
                       "{% set ns.y = [ns.y, ns.y] %}{% endfor %}"
                       "{% for i in range(1000) %}{% if ns.x == ns.y %}{% endif %}{% endfor %}"),
              HasSubstr("steps"));
  EXPECT_THAT(error_of("{% set ns = namespace(x=1) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}"),
              HasSubstr("nest more than 100 deep"));
  EXPECT_THAT(error_of("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}"), HasSubstr("rendered"));
  // A chain of namespaces neither overflows the stack when printed nor when freed.
  const std::string chain =
      "{% set ns = namespace(x=namespace()) %}{% for i in range(50000) %}"
      "{% set ns.x = namespace(x=ns.x) %}{% endfor %}";
  EXPECT_THAT(error_of(chain), HasSubstr("rendered"));
  EXPECT_THAT(error_of(chain + "{{ ns }}"), HasSubstr("limit"));
}

TEST(JinjaLimits, RecursionEnds) {
  EXPECT_THAT(error_of("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), HasSubstr("nest deeper than the limit of"));
  EXPECT_THAT(error_of("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(50) }}"),
              HasSubstr("limit"));
  EXPECT_THAT(
      error_of("{% macro f(n) %}{% for i in range(9) %}{{ f(n + 1) if n < 20 }}{% endfor %}{% endmacro %}{{ f(0) }}"),
      HasSubstr("steps"));
  EXPECT_THAT(error_of("{% macro f(x=f()) %}{% endmacro %}{{ f() }}"), HasSubstr("limit"));
  EXPECT_THAT(error_of("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"), HasSubstr("limit"));
  EXPECT_THAT(error_of("{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% endcall %}"
                       "{% endmacro %}{{ g() }}"),
              HasSubstr("limit"));
}

TEST(JinjaLimits, ParsingIsBounded) {
  EXPECT_THAT(error_of("{{ " + repeated("(", 100000) + "1" + repeated(")", 100000) + " }}"), HasSubstr("deep"));
  EXPECT_THAT(error_of("{{ " + repeated("[", 100000)), HasSubstr("deep"));
  EXPECT_THAT(error_of("{{ " + repeated("not ", 100000) + "1 }}"), HasSubstr("deep"));
  EXPECT_THAT(error_of("{{ " + repeated("- ", 100000) + "1 }}"), HasSubstr("deep"));
  EXPECT_THAT(error_of("{{ 1" + repeated(" + 1", 100000) + " }}"), HasSubstr("deep"));
  EXPECT_THAT(error_of("{{ xs" + repeated(".a", 100000) + " }}"), HasSubstr("deep"));
  EXPECT_THAT(error_of("{{ xs" + repeated("|list", 100000) + " }}"), HasSubstr("deep"));
  EXPECT_THAT(error_of("{{ xs" + repeated("()", 100000) + " }}"), HasSubstr("deep"));
  EXPECT_THAT(error_of("{{ 1" + repeated(" if 1 else 1", 100000) + " }}"), HasSubstr("deep"));
  EXPECT_THAT(error_of("{{ 1" + repeated(" or 1", 100000) + " }}"), HasSubstr("deep"));
  EXPECT_THAT(error_of(repeated("{% if 1 %}", 100000)), HasSubstr("deep"));
  EXPECT_THAT(error_of(repeated("{% set x %}", 100000)), HasSubstr("deep"));
  EXPECT_THAT(error_of("{% for " + repeated("(", 90000) + " in xs %}"), HasSubstr("deep"));
  EXPECT_THAT(error_of("{% set x" + repeated(" | upper", 100000) + " %}{% endset %}"), HasSubstr("deep"));
  EXPECT_THAT(error_of("{{ " + repeated("1 < ", 100000) + "2 }}"), HasSubstr("rendered"));  // flat, not deep
  EXPECT_THAT(error_of("{% if 0 %}" + repeated("{% elif 0 %}", 50000) + "{% endif %}"), HasSubstr("rendered 0"));
  EXPECT_THAT(error_of("{{ 99999999999999999999 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(error_of(std::string(kMaxTemplateBytes + 1, ' ')), HasSubstr("more than the limit of"));
  EXPECT_THAT(error_of("a\xff"), HasSubstr("UTF-8"));
  EXPECT_THAT(error_of("{{ '\\ud800' }}"), HasSubstr("not a Unicode character"));
}

TEST(JinjaLimits, IntegersDoNotWrap) {
  const std::string max = "9223372036854775807";
  for (const std::string& e :
       std::vector<std::string>{max + " + 1", "-" + max + " - 2", max + " * 2", "2 ** 63", "-(-" + max + " - 1)",
                                "(-" + max + " - 1) // -1", "(-" + max + " - 1)|abs", "1e19|int",
                                "'9223372036854775808'|int", "[" + max + ", 1]|sum", max + "|round(-3)"})
    EXPECT_THAT(error_of("{{ " + e + " }}"), HasSubstr("overflow")) << e;
  EXPECT_THAT(error_of("{{ (-" + max + " - 1) % -1 }}{{ xs[" + max + "] }}{{ xs[-" + max + " - 1:" + max + ":" + max +
                       "] }}{{ 'abc'[-" + max + " - 1::-" + max + " - 1] }}{{ 'abc'.find('b', " + max + ") }}"),
              HasSubstr("rendered"));
}

// The worst that the default limits allow must not take long: what a request may cost.
TEST(JinjaLimits, WorstCaseIsShort) {
  for (const char* source :
       {"{% for i in range(99999) %}{% for j in range(99999) %}{% set x = i * j %}{% endfor %}{% endfor %}",
        "{% set l = range(99999)|list %}{% for i in l %}{% if -1 in l %}{% endif %}{% endfor %}",
        "{% set s = 'a' * 10**6 %}{% for i in range(99999) %}{% if 'b' in s %}{% endif %}{% endfor %}",
        "{% set s = 'a' * 10**6 %}{% for i in range(99999) %}{{ s[-1] }}{% endfor %}",
        "{% set s = 'ab ' * 10**5 %}{% for i in range(99999) %}{% set y = s.split() %}{% endfor %}",
        "{% set s = 'Ab ' * 10**5 %}{% for i in range(99999) %}{% set y = s|title %}{% endfor %}",
        "{% for i in range(99999) %}{% set y = range(99999)|sort %}{% endfor %}",
        "{% for i in range(99999) %}{% set y = range(99999)|map('string')|unique|list %}{% endfor %}"}) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_THAT(error_of(source), HasSubstr("limit")) << source;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    RecordProperty(source, std::to_string(took.count()));
    if (!kSanitized) {  // about 1 s; busy neighbours slow it
      EXPECT_LT(took.count(), 30) << source;
    }
  }
}

TEST(JinjaTemplate, RendersFromManyThreads) {
  const Template t("{% macro f(x) %}<{{ x }}>{% endmacro %}{% for x in xs %}{{ f(x) }}{% endfor %}", "t");
  std::vector<std::thread> threads;
  std::vector<std::string> out(8);
  for (size_t i = 0; i < out.size(); ++i)
    threads.emplace_back([&, i] {
      for (int k = 0; k < 50; ++k) out[i] = t.render({{"xs", {i, i + 1}}});
    });
  for (auto& thread : threads) thread.join();
  for (size_t i = 0; i < out.size(); ++i)
    EXPECT_EQ(out[i], "<" + std::to_string(i) + "><" + std::to_string(i + 1) + ">");
}

TEST(JinjaTemplate, SaysWhatAndWhere) {
  EXPECT_EQ(error_of("a\nb\n{% include 'x' %}"),
            "chat template, line 3: the tag {% include %} is not supported in chat templates");
  EXPECT_EQ(error_of("a\n{% endif %}"), "chat template, line 2: unknown tag 'endif'");
  EXPECT_EQ(error_of("\n{{ nope.x }}"), "chat template, line 2: 'nope' is undefined");
  EXPECT_EQ(error_of("{{ xs.nope.x }}"), "chat template, line 1: list has no attribute 'nope'");
  EXPECT_EQ(error_of("{{ raise_exception('no such role') }}"), "chat template, line 1: no such role");
  EXPECT_EQ(error_of("{{ xs|frobnicate }}"), "chat template, line 1: no filter named 'frobnicate'");
  EXPECT_EQ(error_of("{{ 1 + 'a' }}"), "chat template, line 1: '+' does not go with int and str");
}

}  // namespace
}  // namespace tinyserve::jinja
