// Renders every case of tests/golden/chat_templates/ and compares with what jinja2 made of it, byte for byte.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "text/jinja/template.h"

namespace tinyserve::jinja {
namespace {

nlohmann::ordered_json load(const std::string& name) {
  const std::string path = TINYSERVE_SOURCE_DIR "/tests/golden/chat_templates/" + name;
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  return nlohmann::ordered_json::parse(file);
}

// make_goldens.py freezes the clock at the same moment.
std::tm frozen_time() {
  std::tm t{};
  t.tm_year = 2024 - 1900, t.tm_mon = 6, t.tm_mday = 26, t.tm_hour = 9, t.tm_min = 5, t.tm_sec = 7, t.tm_wday = 5;
  t.tm_yday = 207;
  return t;
}

void run_cases(const std::string& file, size_t at_least) {
  const auto golden = load(file);
  const auto& templates = golden["templates"];
  size_t cases = 0;
  for (const auto& c : golden["cases"]) {
    ++cases;
    const std::string name = c["name"];
    const std::string source = c["template"].is_string() && templates.contains(c["template"].get<std::string>())
                                   ? templates[c["template"].get<std::string>()].get<std::string>()
                                   : c["template"].get<std::string>();
    SCOPED_TRACE(name + "\n" + (source.size() < 400 ? source : ""));
    std::string out, error;
    try {
      out = Template(source, "case").render(golden["contexts"][c["context"].get<std::string>()], {}, frozen_time);
    } catch (const InputError& e) {
      error = e.what();
    }
    if (c.contains("output")) {
      EXPECT_EQ(error, "");
      EXPECT_EQ(out, c["output"].get<std::string>());
    } else {
      EXPECT_NE(error, "") << "jinja2 fails: " << c["error"] << "\nhere: " << out;
      EXPECT_NE(error.find("line "), std::string::npos) << error;
      if (c.contains("raised")) {  // raise_exception's message must come through whole
        EXPECT_NE(error.find(c["raised"].get<std::string>()), std::string::npos) << error;
      }
    }
  }
  EXPECT_GE(cases, at_least);
}

TEST(JinjaGolden, Expressions) { run_cases("expressions.json", 400); }
TEST(JinjaGolden, Statements) { run_cases("statements.json", 80); }
TEST(JinjaGolden, Families) { run_cases("families.json", 80); }

}  // namespace
}  // namespace tinyserve::jinja
