#pragma once
// The "post_processor" of a tokenizer.json: special tokens put around a text.

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace tinyserve {

class PostProcessor {
 public:
  PostProcessor() = default;
  /// `has_id` tells whether an id is in the vocabulary. Throws InputError, naming `where`.
  PostProcessor(const Json& json, std::string_view where, const std::function<bool(int64_t)>& has_id);

  std::vector<int32_t> apply(std::vector<int32_t> ids, bool add_special_tokens) const;

 private:
  static constexpr int32_t kText = -1;
  void add(const Json& json, std::string_view where, const std::function<bool(int64_t)>& has_id);
  std::vector<std::vector<int32_t>> templates_;  // applied one after the other: ids, and kText for the ids so far
};

}  // namespace tinyserve
