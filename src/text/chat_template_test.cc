#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace tinyserve {
namespace {

using testing::HasSubstr;

const char* const kChatml =
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}";

OrderedJson parse(const char* text) { return OrderedJson::parse(text); }

std::string error_of(const ChatTemplate& t, const OrderedJson& messages, const OrderedJson* kwargs = nullptr) {
  try {
    return "rendered " + t.render(messages, nullptr, true, kwargs);
  } catch (const InputError& e) {
    return e.what();
  }
}

TEST(ChatTemplate, RendersMessages) {
  const ChatTemplate t(kChatml, "<s>", "</s>");
  const auto messages = parse(R"([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}])");
  EXPECT_EQ(t.render(messages, nullptr, true, nullptr), "<|system|>S</s><|user|>U</s><|assistant|>");
  EXPECT_EQ(t.render(messages, nullptr, false, nullptr), "<|system|>S</s><|user|>U</s>");
  EXPECT_EQ(t.source(), kChatml);
}

TEST(ChatTemplate, VariablesAreThoseOfTransformers) {
  const ChatTemplate t(
      "{{ bos_token is defined }} {{ tools is none }} {{ documents is none }} {{ enable_thinking }} "
      "{{ eos_token }}",
      "", "</s>");
  const auto kwargs = parse(R"({"enable_thinking": false})");
  EXPECT_EQ(t.render(parse("[]"), nullptr, true, &kwargs), "False True True False </s>");
  const OrderedJson no_tools = OrderedJson::array();
  EXPECT_EQ(t.render(parse("[]"), &no_tools, true, nullptr), "False True True  </s>");
  for (const char* reserved : {R"({"messages": []})", R"({"tools": []})", R"({"add_generation_prompt": false})"}) {
    const auto bad = parse(reserved);
    EXPECT_THAT(error_of(t, parse("[]"), &bad), HasSubstr("may not set"));
  }
  const auto not_object = parse("[1]");
  EXPECT_THAT(error_of(t, parse("[]"), &not_object), HasSubstr("must be an object"));
}

TEST(ChatTemplate, ToolsKeepTheirOrder) {
  const ChatTemplate t("{{ tools[0] | tojson }}", "", "");
  const auto tools = parse(R"([{"type": "function", "function": {"name": "f", "b": 1, "a": {"z": 1.0, "y": "é<"}}}])");
  EXPECT_EQ(t.render(parse("[]"), &tools, true, nullptr),
            R"({"type": "function", "function": {"name": "f", "b": 1, "a": {"z": 1.0, "y": "é<"}}})");
}

TEST(ChatTemplate, PartsAreJoinedForTemplatesThatTakeText) {
  const ChatTemplate t(kChatml, "", "");
  EXPECT_FALSE(t.takes_content_lists());
  const auto messages =
      parse(R"([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])");
  EXPECT_EQ(t.render(messages, nullptr, false, nullptr), "<|user|>a\nb");
}

TEST(ChatTemplate, PartsAreHandedToTemplatesThatWalkOverThem) {
  const ChatTemplate t(
      "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
      "{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}{% endfor %}",
      "", "");
  EXPECT_TRUE(t.takes_content_lists());
  const auto messages =
      parse(R"([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                                  {"role": "user", "content": "c"}])");
  EXPECT_EQ(t.render(messages, nullptr, false, nullptr), "[a][b]c");
  // Templates that would fail on a list, or print it, take text.
  EXPECT_FALSE(ChatTemplate("{% for m in messages %}{{ 'x' + m.content }}{% endfor %}", "", "").takes_content_lists());
  EXPECT_FALSE(
      ChatTemplate("{% for m in messages %}{{ m.content | tojson }}{% endfor %}", "", "").takes_content_lists());
}

TEST(ChatTemplate, NullAndAbsentContentReachTheTemplate) {
  const ChatTemplate t("{% for m in messages %}{{ m.content is none }}{{ m.content is defined }} {% endfor %}", "", "");
  EXPECT_EQ(
      t.render(parse(R"([{"role": "assistant", "content": null}, {"role": "assistant"}])"), nullptr, false, nullptr),
      "TrueTrue FalseFalse ");
}

TEST(ChatTemplate, ArgumentsOfCallsBecomeValues) {
  const ChatTemplate t(
      "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.arguments | tojson }}"
      "{% endfor %}{% endfor %}",
      "", "");
  const auto with = [](const std::string& arguments) {
    OrderedJson m = parse(R"([{"role": "assistant", "content": null, "tool_calls": [{"type": "function",
                              "function": {"name": "f"}}]}])");
    m[0]["tool_calls"][0]["function"]["arguments"] = arguments;
    return m;
  };
  EXPECT_EQ(t.render(with(R"({"b": 1, "a": [2]})"), nullptr, true, nullptr), R"({"b": 1, "a": [2]})");
  EXPECT_EQ(t.render(with(""), nullptr, true, nullptr), "{}");
  EXPECT_THAT(error_of(t, with("{broken")),
              HasSubstr("messages[0].tool_calls[0].function.arguments is not valid JSON"));
}

TEST(ChatTemplate, MalformedMessagesAreNamed) {
  const ChatTemplate t(kChatml, "", "");
  EXPECT_THAT(error_of(t, parse("{}")), HasSubstr("messages must be a list"));
  EXPECT_THAT(error_of(t, parse("[1]")), HasSubstr("messages[0] must be an object"));
  EXPECT_THAT(error_of(t, parse(R"([{"content": "x"}])")), HasSubstr("messages[0].role"));
  EXPECT_THAT(error_of(t, parse(R"([{"role": "user", "content": 5}])")), HasSubstr("messages[0].content"));
  EXPECT_THAT(error_of(t, parse(R"([{"role": "user", "content": ["x"]}])")), HasSubstr("messages[0].content[0]"));
  EXPECT_THAT(error_of(t, parse(R"([{"role": "user", "content": [{"type": "image_url"}]}])")),
              HasSubstr("only text is supported"));
  EXPECT_THAT(error_of(t, parse(R"([{"role": "user", "content": [{"type": "text"}]}])")),
              HasSubstr("messages[0].content[0].text"));
  EXPECT_THAT(error_of(t, parse(R"([{"role": "a", "tool_calls": 1}])")), HasSubstr("tool_calls must be a list"));
  EXPECT_THAT(error_of(t, parse(R"([{"role": "a", "tool_calls": [1]}])")),
              HasSubstr("tool_calls[0] must be an object"));
}

TEST(ChatTemplate, MissingTemplateSaysHowToGiveOne) {
  const ChatTemplate none;
  EXPECT_FALSE(none.has_template());
  EXPECT_THAT(error_of(none, parse("[]")), HasSubstr("--chat-template FILE"));
}

TEST(ChatTemplate, FilesAreReadAndNamedInErrors) {
  const std::string path = testing::TempDir() + "chat_template_" + std::to_string(::getpid()) + ".jinja";
  std::ofstream(path) << kChatml << "\n";
  EXPECT_EQ(ChatTemplate::from_file(path, "", "").render(parse("[]"), nullptr, true, nullptr), "<|assistant|>");
  std::ofstream(path) << "{% for %}";
  try {
    ChatTemplate::from_file(path, "", "");
    FAIL();
  } catch (const InputError& e) {
    EXPECT_THAT(e.what(), HasSubstr(path));
    EXPECT_THAT(e.what(), HasSubstr("line 1"));
  }
  std::remove(path.c_str());
  EXPECT_THROW(ChatTemplate::from_file(path, "", ""), InputError);
}

TEST(ParseOrderedJson, KeepsOrderAndBoundsMembers) {
  EXPECT_EQ(parse_ordered_json(R"({"b": 1, "a": 2})", "x").dump(), R"({"b":1,"a":2})");
  std::string many = "{\"k0\":0";
  for (int i = 1; i < 5000; ++i) many += ",\"k" + std::to_string(i) + "\":0";
  EXPECT_THROW(parse_ordered_json(many + "}", "x"), InputError);
  EXPECT_THROW(parse_ordered_json("{\"a\":", "x"), InputError);
}

}  // namespace
}  // namespace tinyserve
