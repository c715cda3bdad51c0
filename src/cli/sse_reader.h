#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace tinyserve::cli {

/// Takes a stream of server-sent events in pieces of any size and hands out the data of each event. Other fields and
/// comments are skipped.
class SseReader {
 public:
  explicit SseReader(std::function<void(std::string_view)> on_data) : on_data_(std::move(on_data)) {}
  void feed(std::string_view piece);

 private:
  void line(std::string_view text);

  std::function<void(std::string_view)> on_data_;
  std::string pending_;  ///< the line that has no end yet
  std::string data_;     ///< of the event that has no end yet
};

}  // namespace tinyserve::cli
