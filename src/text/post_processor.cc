#include "text/post_processor.h"

#include "text/json_fields.h"

namespace tinyserve {
namespace {

constexpr size_t kMaxPieces = 1024;

int32_t known_id(const Json& value, std::string_view where, const std::function<bool(int64_t)>& has_id) {
  const int64_t id = fields::whole(value, where, 0, INT32_MAX);
  if (!has_id(id)) throw InputError(fmt::format("{} is {}, which is not in the vocabulary", where, id));
  return static_cast<int32_t>(id);
}

}  // namespace

PostProcessor::PostProcessor(const Json& json, std::string_view where, const std::function<bool(int64_t)>& has_id) {
  add(json, where, has_id);
}

void PostProcessor::add(const Json& json, std::string_view where, const std::function<bool(int64_t)>& has_id) {
  const auto& type = fields::text(json, "type", where);
  if (type == "Sequence") {
    const Json& parts = fields::array(json, "processors", where);
    for (size_t i = 0; i < parts.size(); ++i) add(parts[i], fmt::format("{}.processors[{}]", where, i), has_id);
  } else if (type == "ByteLevel") {
    // It only moves offsets, which nobody here asks for.
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    const auto id_of = [&](const char* key) {
      const Json& pair = fields::array(json, key, where);
      if (pair.size() != 2) fields::fail(where, key, "is not [\"token\", id]");
      return known_id(pair[1], fmt::format("{}.{}[1]", where, key), has_id);
    };
    templates_.push_back({id_of("cls"), kText, id_of("sep")});
  } else if (type == "TemplateProcessing") {
    const Json& pieces = fields::array(json, "single", where);
    const Json& specials = fields::require(json, "special_tokens", where);
    if (!specials.is_object()) fields::fail(where, "special_tokens", "is not an object");
    std::vector<int32_t> steps;
    size_t texts = 0;
    for (size_t i = 0; i < pieces.size(); ++i) {
      const std::string at = fmt::format("{}.single[{}]", where, i);
      if (const Json* sequence = fields::find(pieces[i], "Sequence", at)) {
        if (fields::text(*sequence, "id", at) != "A") fields::fail(at, "id", "is not A: there is one sequence only");
        steps.push_back(kText);
        ++texts;
      } else if (const Json* special = fields::find(pieces[i], "SpecialToken", at)) {
        const auto& name = fields::text(*special, "id", at);
        const std::string place = fmt::format("{}.special_tokens[{:?}]", where, name);
        const Json* entry = fields::find(specials, name.c_str(), fmt::format("{}.special_tokens", where));
        if (!entry) throw InputError(fmt::format("{} is missing", place));
        const Json& ids = fields::array(*entry, "ids", place);
        for (const Json& id : ids) steps.push_back(known_id(id, fmt::format("{}.ids", place), has_id));
      } else {
        throw InputError(fmt::format("{} is neither a Sequence nor a SpecialToken", at));
      }
      // A template that repeats the text, in a chain of such, multiplies it: hostile files only.
      if (steps.size() > kMaxPieces || texts > 1) throw InputError(fmt::format("{} is not a usable template", at));
    }
    templates_.push_back(std::move(steps));
  } else {
    throw InputError(fmt::format("{} is of type {:?}, which is not supported", where, type));
  }
}

std::vector<int32_t> PostProcessor::apply(std::vector<int32_t> ids, bool add_special_tokens) const {
  for (const auto& steps : templates_) {
    std::vector<int32_t> out;
    out.reserve(ids.size() + steps.size());
    for (int32_t step : steps) {
      if (step == kText) out.insert(out.end(), ids.begin(), ids.end());
      else if (add_special_tokens) out.push_back(step);
    }
    ids = std::move(out);
  }
  return ids;
}

}  // namespace tinyserve
