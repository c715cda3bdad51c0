#include "text/stop_matcher.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace tinyserve {

StopSet::StopSet(std::vector<std::string> stops) : stops_(std::move(stops)), nodes_(1) {
  size_t total = 0;
  for (size_t i = 0; i < stops_.size(); ++i) {
    if (stops_[i].empty()) throw InputError("stop: a stop string must not be empty");
    if ((total += stops_[i].size()) > kMaxBytes)
      throw InputError(fmt::format("stop: the stop strings have more than {} bytes in all", kMaxBytes));
    int32_t node = 0;
    for (const char c : stops_[i]) {
      const auto byte = static_cast<uint8_t>(c);
      int32_t to = child(node, byte);
      if (to < 0) {
        to = static_cast<int32_t>(nodes_.size());
        const int32_t depth = nodes_[node].depth + 1;
        auto& edges = nodes_[node].edges;
        edges.insert(std::upper_bound(edges.begin(), edges.end(), std::make_pair(byte, to)), {byte, to});
        nodes_.emplace_back().depth = depth;
      }
      node = to;
    }
    if (nodes_[node].match < 0) nodes_[node].match = static_cast<int32_t>(i);
  }
  // Breadth first, so that the suffix of a node is finished before the node.
  std::vector<int32_t> order = {0};
  for (size_t i = 0; i < order.size(); ++i) {
    const int32_t node = order[i];
    for (const auto& [byte, to] : nodes_[node].edges) {
      order.push_back(to);
      if (node != 0) nodes_[to].fail = next(nodes_[node].fail, byte);
      if (nodes_[to].match < 0) nodes_[to].match = nodes_[nodes_[to].fail].match;
    }
  }
}

int32_t StopSet::child(int32_t node, uint8_t byte) const {
  const auto& edges = nodes_[node].edges;
  const auto found =
      std::lower_bound(edges.begin(), edges.end(), byte, [](const auto& edge, uint8_t b) { return edge.first < b; });
  return found != edges.end() && found->first == byte ? found->second : -1;
}

int32_t StopSet::next(int32_t node, uint8_t byte) const {
  while (true) {
    const int32_t to = child(node, byte);
    if (to >= 0) return to;
    if (node == 0) return 0;
    node = nodes_[node].fail;
  }
}

void StopMatcher::push(std::string_view text, std::string& out) {
  if (stopped()) return;
  if (!stops_ || stops_->empty()) {
    out += text;
    return;
  }
  for (size_t i = 0; i < text.size(); ++i) {
    node_ = stops_->next(node_, static_cast<uint8_t>(text[i]));
    const int32_t match = stops_->nodes_[node_].match;
    if (match < 0) continue;
    // All text is now held_ followed by text[0..i]; the stop stands at its end.
    matched_ = match;
    held_ += text.substr(0, i + 1);
    out.append(held_, 0, include_stop_ ? held_.size() : held_.size() - stops_->stops()[match].size());
    held_.clear();
    return;
  }
  const size_t keep = static_cast<size_t>(stops_->nodes_[node_].depth);
  if (keep <= text.size()) {
    out += held_;
    out += text.substr(0, text.size() - keep);
    held_.assign(text.substr(text.size() - keep));
  } else {
    const size_t show = held_.size() + text.size() - keep;
    out.append(held_, 0, show);
    held_.erase(0, show);
    held_ += text;
  }
}

std::string StopMatcher::push(std::string_view text) {
  std::string out;
  push(text, out);
  return out;
}

void StopMatcher::flush(std::string& out) {
  out += held_;
  held_.clear();
  node_ = 0;
}

std::string StopMatcher::flush() {
  std::string out;
  flush(out);
  return out;
}

}  // namespace tinyserve
