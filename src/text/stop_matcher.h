#pragma once
// Stop strings over streamed text: what may be shown, and where the answer ends. A stop string may straddle any number
// of tokens and deltas. Only what may still become a stop is held back: the longest end of the text that is the
// beginning of a stop string.
//
// The match that ends first wins, and of several that end together the longest. This does not depend on how the text
// is split. (With the stops "abcd" and "bc", the text "abcd" ends at "bc" and shows "a".)
//
// An Aho-Corasick automaton makes the work linear in the text, whatever the stops are. [Aho, Corasick: Efficient string
// matching, CACM 18(6), 1975.]

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tinyserve {

/// The stop strings of a request, compiled. Immutable: the sequences of a request share one.
class StopSet {
 public:
  /// Throws InputError for an empty stop string, or when all together have more than kMaxBytes bytes.
  explicit StopSet(std::vector<std::string> stops);
  static constexpr size_t kMaxBytes = size_t{1} << 20;

  bool empty() const { return stops_.empty(); }
  const std::vector<std::string>& stops() const { return stops_; }

 private:
  friend class StopMatcher;
  struct Node {
    int32_t fail = 0;                                ///< node of the longest proper suffix that is in the tree
    int32_t depth = 0;                               ///< bytes from the root
    int32_t match = -1;                              ///< index of the longest stop that ends here, -1 for none
    std::vector<std::pair<uint8_t, int32_t>> edges;  ///< sorted by byte
  };
  int32_t child(int32_t node, uint8_t byte) const;  ///< -1 for none
  int32_t next(int32_t node, uint8_t byte) const;

  std::vector<std::string> stops_;
  std::vector<Node> nodes_;
};

/// The state of one sequence.
class StopMatcher {
 public:
  /// stops: may be null, then all text passes. include_stop: show the stop string itself, too.
  explicit StopMatcher(std::shared_ptr<const StopSet> stops = nullptr, bool include_stop = false)
      : stops_(std::move(stops)), include_stop_(include_stop) {}

  /// Takes the next text and appends to `out` what can be shown now. After a match nothing more is shown.
  void push(std::string_view text, std::string& out);
  std::string push(std::string_view text);

  /// The answer ended for another reason: what was held back can be shown.
  void flush(std::string& out);
  std::string flush();

  bool stopped() const { return matched_ >= 0; }
  /// The stop string that was met; null while there is none.
  const std::string* matched() const { return stopped() ? &stops_->stops()[matched_] : nullptr; }
  size_t num_held_bytes() const { return held_.size(); }

 private:
  std::shared_ptr<const StopSet> stops_;
  bool include_stop_;
  int32_t node_ = 0;
  int32_t matched_ = -1;
  std::string held_;  ///< the path from the root to node_
};

}  // namespace tinyserve
