#include "server/response_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace tinyserve {
namespace {

// JSON has no infinities; a token that cannot come (biased or masked away) reads as this, as in vLLM.
constexpr float kLeastLogprob = -9999.0f;

float finite(float logprob) { return logprob >= kLeastLogprob ? logprob : kLeastLogprob; }

// Length of the valid UTF-8 sequence at `i`, 0 when there is none (overlong forms and surrogates are none).
size_t utf8_length(std::string_view s, size_t i) {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(i + k < s.size() ? s[i + k] : 0); };
  const unsigned char a = byte(0), b = byte(1);
  const auto tail = [&](size_t k) { return (byte(k) & 0xC0) == 0x80; };
  if (a < 0x80) return 1;
  if (a >= 0xC2 && a <= 0xDF) return tail(1) ? 2 : 0;
  if (a >= 0xE0 && a <= 0xEF)
    return tail(1) && tail(2) && !(a == 0xE0 && b < 0xA0) && !(a == 0xED && b >= 0xA0) ? 3 : 0;
  if (a >= 0xF0 && a <= 0xF4)
    return tail(1) && tail(2) && tail(3) && !(a == 0xF0 && b < 0x90) && !(a == 0xF4 && b >= 0x90) ? 4 : 0;
  return 0;
}

bool valid_utf8(std::string_view s) {
  for (size_t i = 0; i < s.size();) {
    const size_t n = utf8_length(s, i);
    if (n == 0) return false;
    i += n;
  }
  return true;
}

int64_t count_characters(std::string_view s) {
  return std::count_if(s.begin(), s.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

std::string label_of(int32_t token, const std::string& bytes, bool as_id) {
  if (as_id) return fmt::format("token_id:{}", token);
  if (valid_utf8(bytes)) return bytes;
  std::string label = "bytes:";
  for (const unsigned char c : bytes) label += fmt::format("\\x{:02x}", c);
  return label;
}

Json chat_entry(int32_t token, float logprob, const TextFront& text, bool as_id) {
  const std::string bytes = text.token_bytes(token);
  Json raw = Json::array();
  for (const unsigned char c : bytes) raw.push_back(c);
  return {{"token", label_of(token, bytes, as_id)}, {"logprob", finite(logprob)}, {"bytes", std::move(raw)}};
}

Json model_json(const std::string& name, int32_t max_context, int64_t created_s) {
  return {{"id", name},   {"object", "model"},           {"created", created_s}, {"owned_by", "tinyserve"},
          {"root", name}, {"max_model_len", max_context}};
}

}  // namespace

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string error_body(const ApiError& error) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); };
  return dump({{"error",
                {{"message", error.what()},
                 {"type", error.type},
                 {"param", or_null(error.param)},
                 {"code", or_null(error.code)}}}});
}

std::string json_string(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(text.size() + 2);
  out += '"';
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x80) {
      const size_t n = utf8_length(text, i);
      if (n == 0) {
        out += "\xEF\xBF\xBD";
        ++i;
      } else {
        out.append(text, i, n);
        i += n;
      }
      continue;
    }
    ++i;
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (c < 0x20) {
          out += "\\u00";
          out += kHex[c >> 4];
          out += kHex[c & 15];
        } else {
          out += static_cast<char>(c);
        }
    }
  }
  out += '"';
  return out;
}

std::string models_body(const ServerConfig& config, int32_t max_context, int64_t created_s) {
  Json data = Json::array();
  for (const std::string& name : config.model_names) data.push_back(model_json(name, max_context, created_s));
  return dump({{"object", "list"}, {"data", std::move(data)}});
}

std::string model_body(const std::string& name, int32_t max_context, int64_t created_s) {
  return dump(model_json(name, max_context, created_s));
}

std::string token_label(int32_t token, const TextFront& text, bool as_id) {
  return label_of(token, as_id ? std::string() : text.token_bytes(token), as_id);
}

Json completion_logprobs(const std::vector<TokenLogprob>& tokens, int32_t without_first, const TextFront& text,
                         bool as_id, int64_t& offset) {
  Json offsets = Json::array(), labels = Json::array(), logprobs = Json::array(), tops = Json::array();
  auto place = [&](int32_t token) {
    const std::string bytes = text.token_bytes(token);
    offsets.push_back(offset);
    labels.push_back(label_of(token, bytes, as_id));
    offset += count_characters(bytes);
  };
  if (without_first >= 0) {
    place(without_first);
    logprobs.push_back(nullptr);
    tops.push_back(nullptr);
  }
  for (const TokenLogprob& entry : tokens) {
    place(entry.token);
    logprobs.push_back(finite(entry.logprob));
    Json top = Json::object();
    for (const auto& [token, logprob] : entry.top)  // best first; a label that comes twice keeps the better one
      top.emplace(token_label(token, text, as_id), finite(logprob));
    top.emplace(token_label(entry.token, text, as_id), finite(entry.logprob));
    tops.push_back(std::move(top));
  }
  return {{"text_offset", std::move(offsets)},
          {"token_logprobs", std::move(logprobs)},
          {"tokens", std::move(labels)},
          {"top_logprobs", std::move(tops)}};
}

Json chat_logprobs(const std::vector<TokenLogprob>& tokens, int32_t num_top, const TextFront& text, bool as_id) {
  Json content = Json::array();
  for (const TokenLogprob& entry : tokens) {
    Json item = chat_entry(entry.token, entry.logprob, text, as_id);
    Json& top = item["top_logprobs"] = Json::array();
    for (size_t i = 0; i < entry.top.size() && i < static_cast<size_t>(std::max(num_top, 0)); ++i)
      top.push_back(chat_entry(entry.top[i].first, entry.top[i].second, text, as_id));
    content.push_back(std::move(item));
  }
  return content;
}

Json prompt_logprobs_json(const std::vector<TokenLogprob>& tokens, int32_t num_top, const TextFront& text) {
  Json list = Json::array({nullptr});
  for (const TokenLogprob& entry : tokens) {
    Json one = Json::object();
    auto put = [&](int32_t token, float logprob) {
      one.emplace(std::to_string(token),
                  Json{{"logprob", finite(logprob)}, {"decoded_token", text.decode({&token, 1}, false)}});
    };
    for (size_t i = 0; i < entry.top.size() && i < static_cast<size_t>(std::max(num_top, 0)); ++i)
      put(entry.top[i].first, entry.top[i].second);
    put(entry.token, entry.logprob);
    list.push_back(std::move(one));
  }
  return list;
}

namespace {

Json interval_json(const Interval& i) { return Json::array({i.low, i.high}); }

/// Null when nothing was audited.
Json audit_json(const AuditSums& a) {
  if (a.reads == 0) return nullptr;
  const auto n = static_cast<double>(a.reads);
  const Interval error = a.estimated_error.interval(a.reads), coded_error = a.coded_error.interval(a.reads);
  const double estimated = a.estimated / n, coded = a.coded / n;
  const auto moved = [](const Interval& i, double by) { return Interval{i.mean + by, i.low + by, i.high + by}; };
  Json audit = {{"reads", a.reads},
                {"draws", a.estimated_error.draws + a.coded_error.draws},
                {"estimated_share", estimated + error.mean},
                {"estimated_interval", interval_json(moved(error, estimated))},
                {"estimated_error", error.mean},
                {"estimated_error_interval", interval_json(error)},
                {"coded_share", coded + coded_error.mean},
                {"coded_interval", interval_json(moved(coded_error, coded))},
                {"coded_error", coded_error.mean},
                {"coded_error_interval", interval_json(coded_error)}};
  if (a.checked > 0) {
    const auto checked = static_cast<double>(a.checked);
    audit["dense"] = {{"reads", a.checked},
                      {"estimated_share", a.true_estimated / checked},
                      {"coded_share", a.true_coded / checked},
                      {"output_error", a.output_error / checked}};
  }
  return audit;
}

}  // namespace

Json usage_json(int64_t prompt_tokens, int64_t completion_tokens, int64_t cached_tokens, const SelectionAccount& s) {
  Json usage = {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens + completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", cached_tokens}}}};
  if (s.reads > 0) {
    const auto mean = [&](double sum) { return sum / static_cast<double>(s.reads); };
    usage["tinyserve"] = {{"bytes_share", s.bytes / s.dense_bytes},
                          {"exact_share", mean(s.exact_share)},
                          {"coded_share", mean(s.coded_share)},
                          {"estimated_share", mean(s.estimated_share)}};
    if (Json audit = audit_json(s.audit); !audit.is_null()) usage["tinyserve"]["audit"] = std::move(audit);
  }
  return usage;
}

const char* finish_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAbort:
      return "abort";
    case FinishReason::kNone:
      break;
  }
  return nullptr;
}

}  // namespace tinyserve
