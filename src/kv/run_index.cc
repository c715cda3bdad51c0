#include "kv/run_index.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/check.h"

namespace tinyserve {

RunIndex::RunIndex(int32_t num_pages)
    : num_pages_(num_pages), used_(num_pages), node_at_(num_pages), nodes_(num_pages / 2 + 1) {
  for (auto& heads : heads_) heads.fill(kNone);
  insert({.start = 0, .length = num_pages});
}

int32_t RunIndex::class_of(int32_t length) {
  if (length <= kExactLengths) return length - 1;
  const int32_t doubling = std::bit_width(static_cast<uint32_t>(length)) - 1;  // >= 6
  return kExactLengths + (doubling - 6) * kClassesPerDoubling + ((length >> (doubling - 4)) & 15);
}

int32_t RunIndex::shortest(int32_t length_class) {
  if (length_class < kExactLengths) return length_class + 1;
  const int32_t doubling = 6 + (length_class - kExactLengths) / kClassesPerDoubling;
  const int32_t part = (length_class - kExactLengths) % kClassesPerDoubling;
  // The class of 64..67 holds 65..67 only: 64 is exact.
  return std::max(kExactLengths + 1, (kClassesPerDoubling + part) << (doubling - 4));
}

int32_t RunIndex::next_class(Family family, int32_t from) const {
  const Classes& classes = classes_[family];
  for (size_t word = from >> 6; word < classes.size(); ++word, from = 0) {
    const uint64_t bits = classes[word] & (~uint64_t{0} << (from & 63));
    if (bits) return static_cast<int32_t>(word) * 64 + std::countr_zero(bits);
  }
  return kNone;
}

int32_t RunIndex::last_class(Family family, int32_t from) const {
  if (from < 0) return kNone;
  const Classes& classes = classes_[family];
  uint64_t mask = ~uint64_t{0} >> (63 - (from & 63));
  for (int32_t word = from >> 6; word >= 0; --word, mask = ~uint64_t{0}) {
    const uint64_t bits = classes[word] & mask;
    if (bits) return word * 64 + 63 - std::countl_zero(bits);
  }
  return kNone;
}

uint32_t RunIndex::used_before(int32_t page) const {
  // Eight pages in order, then turned round: the nearest comes first.
  uint32_t bits = page >= 8 ? used_.byte_at(page - 8) : used_.byte_at(0) << (8 - page) & 0xFF;
  bits = (bits & 0xF0) >> 4 | (bits & 0x0F) << 4;
  bits = (bits & 0xCC) >> 2 | (bits & 0x33) << 2;
  return (bits & 0xAA) >> 1 | (bits & 0x55) << 1;
}

void RunIndex::count(const Run& run, int32_t sign) {
  num_runs_ += sign;
  num_free_ += sign * run.length;
  num_reserved_ += sign * run.reserved;
  sum_of_squares_ += sign * int64_t{run.length} * run.length;
  if (weights_.empty()) return;
  const double distance = num_pages_ - run.start - 0.5 * run.length;
  const double at = distance / num_pages_ * kWeightSteps;
  const auto step = static_cast<int32_t>(at);
  const double drop = static_cast<double>(weights_[step]) - static_cast<double>(weights_[step + 1]);
  const int64_t weight = sign * static_cast<int64_t>(weights_[step] - drop * (at - step));
  weight_sum_ += weight;
  weighed_lengths_ += static_cast<decltype(weighed_lengths_)>(weight) * run.length;
  weighed_squares_ += static_cast<decltype(weighed_squares_)>(weight) * run.length * run.length;
}

void RunIndex::weigh(double sigma) {
  TS_CHECK(num_runs_ == 1 && num_free_ == num_pages_ && sigma > 0);
  weights_.resize(kWeightSteps + 2);
  for (int32_t i = 0; i < kWeightSteps + 2; ++i)
    weights_[i] = static_cast<uint32_t>(std::ldexp(std::exp(-i / (kWeightSteps * sigma * sigma)), kWeightBits));
  num_free_ = num_runs_ = 0;
  sum_of_squares_ = 0;
  count({.start = 0, .length = num_pages_}, 1);
}

WeighedRuns RunIndex::weighed() const {
  return {.weights = std::ldexp(static_cast<double>(weight_sum_), -kWeightBits),
          .lengths = std::ldexp(static_cast<double>(weighed_lengths_), -kWeightBits),
          .squares = std::ldexp(static_cast<double>(weighed_squares_), -kWeightBits)};
}

void RunIndex::link(Family family, int32_t handle, int32_t length_class) {
  Link& link = nodes_[handle].links[family == kRest];
  int32_t& head = heads_[family][length_class];
  link = {.previous = kNone, .next = head, .length_class = length_class};
  if (head != kNone) nodes_[head].links[family == kRest].previous = handle;
  head = handle;
  classes_[family][length_class >> 6] |= uint64_t{1} << (length_class & 63);
}

void RunIndex::unlink(Family family, int32_t handle) {
  const Link& link = nodes_[handle].links[family == kRest];
  if (link.next != kNone) nodes_[link.next].links[family == kRest].previous = link.previous;
  if (link.previous != kNone) {
    nodes_[link.previous].links[family == kRest].next = link.next;
    return;
  }
  heads_[family][link.length_class] = link.next;
  if (link.next == kNone) classes_[family][link.length_class >> 6] &= ~(uint64_t{1} << (link.length_class & 63));
}

void RunIndex::link_all(int32_t handle) {
  const Run& run = nodes_[handle].run;
  link(run.reserved ? kPromised : kPlain, handle, class_of(run.length));
  if (run.reserved && run.usable()) link(kRest, handle, class_of(run.usable()));
}

void RunIndex::unlink_all(int32_t handle) {
  const Run& run = nodes_[handle].run;
  unlink(run.reserved ? kPromised : kPlain, handle);
  if (run.reserved && run.usable()) unlink(kRest, handle);
}

void RunIndex::insert(Run run) {
  int32_t handle = spare_;
  if (handle != kNone)
    spare_ = nodes_[handle].links[0].next;
  else
    handle = next_node_++;
  nodes_[handle].run = run;
  node_at_[run.start] = handle;
  count(run, 1);
  link_all(handle);
  changed(run.start);
}

void RunIndex::remove(int32_t handle) {
  changed(nodes_[handle].run.start);
  count(nodes_[handle].run, -1);
  unlink_all(handle);
  nodes_[handle].links[0].next = spare_;
  spare_ = handle;
}

void RunIndex::replace(int32_t handle, Run run) {
  Node& node = nodes_[handle];
  changed(run.start);
  if (run.start != node.run.start) changed(node.run.start);
  count(node.run, -1);
  count(run, 1);
  if (run.start != node.run.start) node_at_[run.start] = handle;
  if (run.reserved == 0 && node.run.reserved == 0 && class_of(run.length) == node.links[0].length_class) {
    node.run = run;  // stays where it hangs
    return;
  }
  unlink_all(handle);
  node.run = run;
  link_all(handle);
}

void RunIndex::take(int32_t first, int32_t count) {
  const int32_t start = used_.previous(first) + 1;
  const int32_t handle = node_at_[start];
  const Run run = nodes_[handle].run;
  TS_CHECK(count > 0 && first >= run.start && first + count <= run.end(), "pages taken are not all free");
  used_.set_range(first, count);
  const int32_t left = first - run.start, right = run.end() - (first + count);
  if (left > 0) {
    replace(handle, {.start = run.start, .length = left, .reserved = std::min(run.reserved, left)});
    if (right > 0) insert({.start = first + count, .length = right});
  } else if (right > 0) {
    replace(handle, {.start = first + count, .length = right, .reserved = std::max(0, run.reserved - count)});
  } else {
    remove(handle);
  }
}

void RunIndex::put(int32_t first, int32_t count) {
  used_.clear_range(first, count);
  const int32_t end = first + count;
  const int32_t left = first > 0 && !used_.test(first - 1) ? node_at_[used_.previous(first - 1) + 1] : kNone;
  const int32_t right = end < num_pages_ && !used_.test(end) ? node_at_[end] : kNone;
  const int32_t right_length = right == kNone ? 0 : nodes_[right].run.length;
  if (left != kNone) {
    Run run = nodes_[left].run;
    run.length += count + right_length;
    if (right != kNone) remove(right);
    replace(left, run);
  } else if (right != kNone) {
    replace(right, {.start = first, .length = count + right_length});
  } else {
    insert({.start = first, .length = count});
  }
}

void RunIndex::reserve(int32_t start, int32_t pages) {
  const int32_t handle = node_at_[start];
  Run run = nodes_[handle].run;
  TS_CHECK(run.start == start && is_free(start), "a reservation is made where a run starts");
  run.reserved = std::clamp(pages, 0, run.length);
  replace(handle, run);
}

RunIndex::Run RunIndex::longest_in(Family family) const {
  Run best;
  const int32_t top = last_class(family);
  for (int32_t h = top == kNone ? kNone : head(family, top); h != kNone; h = next(family, h)) {
    if (run(h).length > best.length) best = run(h);
    if (top < kExactLengths) break;  // all alike
  }
  return best;
}

RunIndex::Run RunIndex::longest() const {
  const Run plain = longest_in(kPlain), promised = longest_in(kPromised);
  return plain.length >= promised.length ? plain : promised;
}

RunStatistics RunIndex::statistics() const {
  return {.num_runs = num_runs_, .free_pages = num_free_, .sum_of_squares = sum_of_squares_, .largest = longest().length};
}

void RunIndex::check_invariants() const {
  int32_t runs = 0, free = 0, reserved = 0, listed = 0, with_rest = 0, in_rest = 0, largest = 0;
  int64_t squares = 0;
  for (int32_t page = 0; page < num_pages_;) {
    if (used_.test(page)) {
      ++page;
      continue;
    }
    int32_t end = page;
    while (end < num_pages_ && !used_.test(end)) ++end;
    const Node& node = nodes_[node_at_[page]];
    TS_CHECK(node.run.start == page && node.run.length == end - page, "a run's node is wrong");
    TS_CHECK(node.run.reserved >= 0 && node.run.reserved <= node.run.length);
    TS_CHECK(used_.next(page) == end && used_.previous(end - 1) == page - 1, "the bitmaps' levels disagree");
    ++runs, free += end - page, reserved += node.run.reserved;
    with_rest += node.run.reserved > 0 && node.run.usable() > 0;
    squares += int64_t{end - page} * (end - page);
    largest = std::max(largest, end - page);
    page = end;
  }
  TS_CHECK(runs == num_runs_ && free == num_free_ && reserved == num_reserved_ && squares == sum_of_squares_);
  for (Family family : {kPlain, kPromised, kRest}) {
    for (int32_t c = 0; c < kNumClasses; ++c) {
      TS_CHECK((classes_[family][c >> 6] >> (c & 63) & 1) == (head(family, c) != kNone), "wrong bitmap of classes");
      for (int32_t h = head(family, c), before = kNone; h != kNone; before = h, h = next(family, h)) {
        const Run& run = nodes_[h].run;
        const Link& link = nodes_[h].links[family == kRest];
        TS_CHECK(link.previous == before && link.length_class == c && node_at_[run.start] == h, "broken list of runs");
        TS_CHECK((run.reserved > 0) == (family != kPlain), "run in the wrong list");
        TS_CHECK(class_of(family == kRest ? run.usable() : run.length) == c, "run in the wrong class");
        ++(family == kRest ? in_rest : listed);
      }
    }
  }
  TS_CHECK(listed == runs && in_rest == with_rest, "a run is in no list");
  TS_CHECK(statistics().largest == largest);
}

}  // namespace tinyserve
