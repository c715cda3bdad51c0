// Any bytes as a chat template: they parse or not, render or not, and every failure is an InputError. The limits are
// small, so that what burns time or memory shows as a slow or fat run.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "text/jinja/template.h"

namespace {

const nlohmann::ordered_json& context() {
  static const auto json = nlohmann::ordered_json::parse(R"({
    "messages": [{"role": "system", "content": " S "}, {"role": "user", "content": "Hällo 你 🙂 <b>"},
                 {"role": "assistant", "content": null, "tool_calls": [{"id": "abcdef123", "type": "function",
                  "function": {"name": "f", "arguments": {"x": 1, "y": [2.5, true, null, "z"]}}}]},
                 {"role": "tool", "content": "ok", "tool_call_id": "abcdef123"}],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d\n\"q\"",
               "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}}}],
    "documents": null, "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>", "n": 3, "f": -0.5,
    "xs": [3, 1, 2], "s": "Hello World", "d": {"b": 1, "a": {"c": [1, 2]}}})");
  return json;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tinyserve::jinja::Limits limits;
  limits.max_steps = 20'000;
  limits.max_output_bytes = 1 << 18;
  limits.max_memory_bytes = 1 << 22;
  limits.max_range = 1000;
  const auto clock = [] {
    std::tm t{};
    t.tm_year = 124, t.tm_mday = 1;
    return t;
  };
  try {
    const tinyserve::jinja::Template parsed(std::string_view(reinterpret_cast<const char*>(data), size), "template");
    parsed.render(context(), limits, clock);
  } catch (const tinyserve::InputError&) {
  }
  return 0;
}
