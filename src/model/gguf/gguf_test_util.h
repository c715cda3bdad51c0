#pragma once
// Writes GGUF files into memory, right or wrong, for tests.

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "model/gguf/gguf_file.h"

namespace tinyserve {

class GgufBuilder {
 public:
  /// Counts as the header claims them; -1: as many as were added.
  int64_t claimed_keys = -1, claimed_tensors = -1;
  uint32_t version = 3;
  uint32_t alignment = 32;  ///< of tensors; add the key yourself when it is another

  GgufBuilder& raw_key(std::string_view key, GgufType type, std::string_view value) {
    keys_ += string(key) + number(static_cast<uint32_t>(type)) + std::string(value);
    ++num_keys_;
    return *this;
  }
  GgufBuilder& u32(std::string_view key, uint32_t value) { return raw_key(key, GgufType::kUint32, number(value)); }
  GgufBuilder& f32(std::string_view key, float value) { return raw_key(key, GgufType::kFloat32, number(value)); }
  GgufBuilder& flag(std::string_view key, bool value) {
    return raw_key(key, GgufType::kBool, number(static_cast<uint8_t>(value)));
  }
  GgufBuilder& text(std::string_view key, std::string_view value) {
    return raw_key(key, GgufType::kString, string(value));
  }
  GgufBuilder& array(std::string_view key, GgufType element, uint64_t count, std::string_view elements) {
    return raw_key(key, GgufType::kArray,
                   number(static_cast<uint32_t>(element)) + number(count) + std::string(elements));
  }
  GgufBuilder& texts(std::string_view key, const std::vector<std::string>& values) {
    std::string all;
    for (const std::string& value : values) all += string(value);
    return array(key, GgufType::kString, values.size(), all);
  }
  template <class T>
  GgufBuilder& numbers(std::string_view key, GgufType element, const std::vector<T>& values) {
    std::string all;
    for (const T value : values) all += number(value);
    return array(key, element, values.size(), all);
  }

  /// A directory entry alone, as it stands in the file: `dims` first dimension fastest.
  GgufBuilder& entry(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    tensors_ += string(name) + number(static_cast<uint32_t>(dims.size()));
    for (const uint64_t d : dims) tensors_ += number(d);
    tensors_ += number(type) + number(offset);
    ++num_tensors_;
    return *this;
  }
  /// An entry and its data, after those before it. shape: [out, in].
  GgufBuilder& tensor(std::string_view name, const Shape& shape, uint32_t type, std::string_view data) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    entry(name, {shape.rbegin(), shape.rend()}, type, data_.size());
    data_ += data;
    return *this;
  }
  GgufBuilder& data(size_t bytes) {
    data_.resize(data_.size() + bytes);
    return *this;
  }

  std::string build() const {
    std::string out = "GGUF" + number(version) +
                      number(claimed_tensors < 0 ? num_tensors_ : uint64_t(claimed_tensors)) +
                      number(claimed_keys < 0 ? num_keys_ : uint64_t(claimed_keys)) + keys_ + tensors_;
    if (num_tensors_ > 0) out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data_;
  }

  template <class T>
  static std::string number(T value) {
    std::string out(sizeof(T), '\0');
    std::memcpy(out.data(), &value, sizeof(T));
    return out;
  }
  static std::string string(std::string_view text) { return number(uint64_t{text.size()}) + std::string(text); }

 private:
  std::string keys_, tensors_, data_;
  uint64_t num_keys_ = 0, num_tensors_ = 0;
};

}  // namespace tinyserve
