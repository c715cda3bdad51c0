#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/json_fields.h"
#include "text/unicode.h"

namespace tinyserve {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // ▁

// A min-heap on (rank, position) through the standard max-heap functions.
bool later(const EncodeScratch::Merge& a, const EncodeScratch::Merge& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
}

// Whether a "▁" stands behind another character.
bool has_inner_space_mark(std::string_view token) {
  for (size_t at = token.find(kSpaceMark, 1); at != std::string_view::npos; at = token.find(kSpaceMark, at + 1))
    if (at < kSpaceMark.size() || token.substr(at - kSpaceMark.size(), kSpaceMark.size()) != kSpaceMark) return true;
  return false;
}

}  // namespace

void MergeTable::reserve(size_t count) {
  std::vector<Slot> old(std::bit_ceil(2 * count + 16));
  old.swap(slots_);
  for (const Slot& s : old) {
    if (s.key == kFree) continue;
    size_t slot = hash(s.key) & (slots_.size() - 1);
    while (slots_[slot].key != kFree) slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot] = s;
  }
}

void MergeTable::set(int32_t left, int32_t right, Merge merge) {
  if (2 * (count_ + 1) > slots_.size()) reserve(slots_.size());
  const uint64_t key = pair_key(left, right);
  size_t slot = hash(key) & (slots_.size() - 1);
  while (slots_[slot].key != kFree && slots_[slot].key != key) slot = (slot + 1) & (slots_.size() - 1);
  if (slots_[slot].key == kFree) ++count_;
  slots_[slot] = {key, merge};
}

BpeModel::BpeModel(Vocabulary vocabulary, MergeTable merges, Options options, bool words_stand_alone)
    : vocabulary_(std::move(vocabulary)),
      merges_(std::move(merges)),
      options_(std::move(options)),
      words_stand_alone_(words_stand_alone && !options_.byte_level && options_.continuing_subword_prefix.empty() &&
                         options_.end_of_word_suffix.empty() && vocabulary_.find(kSpaceMark) >= 0) {
  for (int byte = 0; byte < 256; ++byte) {
    std::string c;
    unicode::append_char(c, byte_level_char(static_cast<unsigned char>(byte)));
    byte_ids_[byte] = vocabulary_.find(c);
    fallback_ids_[byte] = vocabulary_.find(fmt::format("<0x{:02X}>", byte));
  }
  if (options_.unk_token) unk_id_ = vocabulary_.find(*options_.unk_token);
}

void BpeModel::encode(std::string_view piece, EncodeScratch& scratch, std::vector<int32_t>& out) const {
  if (options_.ignore_merges && !options_.byte_level) {
    if (const int32_t id = vocabulary_.find(piece); id >= 0) {
      out.push_back(id);
      return;
    }
  }
  if (!words_stand_alone_) return encode_unit(piece, scratch, out);
  // Cut before each "▁" that does not itself stand behind one.
  size_t begin = 0;
  for (size_t at = piece.find(kSpaceMark, 1); at != std::string_view::npos; at = piece.find(kSpaceMark, at + 1)) {
    if (at >= kSpaceMark.size() && piece.substr(at - kSpaceMark.size(), kSpaceMark.size()) == kSpaceMark) continue;
    encode_unit(piece.substr(begin, at - begin), scratch, out);
    begin = at;
  }
  encode_unit(piece.substr(begin), scratch, out);
}

void BpeModel::encode_unit(std::string_view unit, EncodeScratch& scratch, std::vector<int32_t>& out) const {
  if (unit.size() > PieceCache::kMaxPieceBytes) return merge(unit, scratch, out);
  const uint64_t hash = hash_bytes(unit);
  if (scratch.cache.find(unit, hash, out)) return;
  const size_t before = out.size();
  merge(unit, scratch, out);
  scratch.cache.insert(unit, hash, std::span(out).subspan(before));
}

// The symbols before any merge: one a character (byte level: a byte) that the vocabulary has; for others the fallback
// to bytes, the unknown token, or nothing. Unknown characters wait until the next known one, which is where the
// package writes them: byte tokens that come in between are written before them.
void BpeModel::collect_symbols(std::string_view unit, std::vector<EncodeScratch::Symbol>& symbols) const {
  const auto add = [&](int32_t id) { symbols.push_back({id, 0, 0}); };
  bool unknown_waits = false;
  std::string with_affixes;
  for (size_t i = 0; i < unit.size();) {
    const size_t length = options_.byte_level ? 1 : unicode::char_length(unit[i]);
    const bool first = i == 0, last = i + length == unit.size();
    std::string_view symbol = unit.substr(i, length);
    int32_t id;
    const bool prefixed = !first && !options_.continuing_subword_prefix.empty();
    const bool suffixed = last && !options_.end_of_word_suffix.empty();
    if (options_.byte_level && !prefixed && !suffixed) {
      id = byte_ids_[static_cast<unsigned char>(unit[i])];
      if (id < 0) symbol = with_affixes = to_byte_level(symbol);
    } else {
      if (options_.byte_level || prefixed || suffixed) {
        std::string text = prefixed ? options_.continuing_subword_prefix : "";
        text += options_.byte_level ? to_byte_level(symbol) : std::string(symbol);
        if (suffixed) text += options_.end_of_word_suffix;
        symbol = with_affixes = std::move(text);
      }
      id = vocabulary_.find(symbol);
    }
    i += length;
    if (id >= 0) {
      if (std::exchange(unknown_waits, false)) add(unk_id_);
      add(id);
      continue;
    }
    if (options_.byte_fallback &&
        std::all_of(symbol.begin(), symbol.end(), [&](unsigned char b) { return fallback_ids_[b] >= 0; })) {
      for (unsigned char b : symbol) add(fallback_ids_[b]);
      continue;
    }
    if (!options_.unk_token) continue;
    if (unk_id_ < 0)
      throw InputError(fmt::format("the tokenizer has no token for {:?} and its unknown token {:?} is not in its "
                                   "vocabulary either", symbol, *options_.unk_token));
    if (unknown_waits && !options_.fuse_unk) add(unk_id_);
    unknown_waits = true;
  }
  if (unknown_waits) add(unk_id_);
}

void BpeModel::merge(std::string_view unit, EncodeScratch& scratch, std::vector<int32_t>& out) const {
  if (options_.ignore_merges && options_.byte_level) {
    if (const int32_t id = vocabulary_.find(to_byte_level(unit)); id >= 0) {
      out.push_back(id);
      return;
    }
  }
  auto& symbols = scratch.symbols;
  symbols.clear();
  collect_symbols(unit, symbols);
  const auto count = static_cast<int32_t>(symbols.size());
  auto& heap = scratch.heap;
  heap.clear();
  const auto consider = [&](int32_t position, int32_t right) {
    if (const auto* m = merges_.find(symbols[position].id, symbols[right].id))
      heap.push_back({m->rank, static_cast<uint32_t>(position), m->id});
  };
  for (int32_t i = 0; i < count; ++i) {
    symbols[i].previous = i - 1;
    symbols[i].next = i + 1 < count ? i + 1 : -1;
    if (i + 1 < count) consider(i, i + 1);
  }
  std::make_heap(heap.begin(), heap.end(), later);
  constexpr int32_t kGone = -2;  // in `previous`: merged into its left neighbour
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const auto top = heap.back();
    heap.pop_back();
    auto& left = symbols[top.position];
    if (left.previous == kGone || left.next < 0) continue;
    auto& right = symbols[left.next];
    // An entry is out of date when its pair is no more; like the package, take it when the pair that is there now
    // gives the same token.
    const auto* m = merges_.find(left.id, right.id);
    if (!m || m->id != top.id) continue;
    left.id = top.id;
    left.next = right.next;
    right.previous = kGone;
    if (left.next >= 0) symbols[left.next].previous = static_cast<int32_t>(top.position);
    if (left.previous >= 0) {
      const size_t before = heap.size();
      consider(left.previous, static_cast<int32_t>(top.position));
      if (heap.size() > before) std::push_heap(heap.begin(), heap.end(), later);
    }
    if (left.next >= 0) {
      const size_t before = heap.size();
      consider(static_cast<int32_t>(top.position), left.next);
      if (heap.size() > before) std::push_heap(heap.begin(), heap.end(), later);
    }
  }
  for (int32_t i = 0; i >= 0 && i < count; i = symbols[i].next) out.push_back(symbols[i].id);
}

namespace {

// Reads merge rules one by one, in order of rank.
class BpeRules {
 public:
  BpeRules(const Vocabulary& vocabulary, std::string_view continuing_prefix, size_t count, std::string where)
      : vocabulary_(vocabulary), prefix_(continuing_prefix), where_(std::move(where)) {
    merges_.reserve(count);
  }

  /// "left right"; `index`: of the rule, for messages.
  void add(std::string_view line, size_t index) {
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos)
      throw InputError(fmt::format("{}[{}] is {:?}, not two tokens with a space between", where_, index, line));
    add(line.substr(0, space), line.substr(space + 1), index);
  }
  void add(std::string_view left, std::string_view right, size_t index) {
    const int32_t left_id = id_of(left, index), right_id = id_of(right, index);
    if (right.size() < prefix_.size())
      throw InputError(fmt::format("{}[{}]: {:?} is shorter than continuing_subword_prefix", where_, index, right));
    merged_.assign(left).append(right.substr(prefix_.size()));
    words_stand_alone_ = words_stand_alone_ && !has_inner_space_mark(merged_);
    merges_.set(left_id, right_id, {rank_++, id_of(merged_, index)});
  }
  std::unique_ptr<TokenModel> finish(Vocabulary vocabulary, BpeModel::Options options) && {
    return std::make_unique<BpeModel>(std::move(vocabulary), std::move(merges_), std::move(options), words_stand_alone_);
  }

 private:
  int32_t id_of(std::string_view token, size_t index) const {
    const int32_t id = vocabulary_.find(token);
    if (id < 0)
      throw InputError(
          fmt::format("{}[{}] needs the token {:?}, which is not in the vocabulary", where_, index, token));
    return id;
  }

  const Vocabulary& vocabulary_;
  std::string prefix_, where_, merged_;
  MergeTable merges_;
  bool words_stand_alone_ = true;
  uint32_t rank_ = 0;
};

}  // namespace

std::unique_ptr<TokenModel> make_bpe_model(const Json& model, bool byte_level, std::string_view where) {
  if (const Json* dropout = fields::find(model, "dropout", where)) {
    if (!dropout->is_number()) fields::fail(where, "dropout", "is not a number");
    if (dropout->get<double>() != 0) fields::fail(where, "dropout", "is not 0: random tokens are not supported");
  }
  BpeModel::Options options;
  if (fields::find(model, "unk_token", where)) options.unk_token = fields::text(model, "unk_token", where);
  options.continuing_subword_prefix = fields::text_or(model, "continuing_subword_prefix", where, "");
  options.end_of_word_suffix = fields::text_or(model, "end_of_word_suffix", where, "");
  options.fuse_unk = fields::boolean(model, "fuse_unk", where, false);
  options.byte_fallback = fields::boolean(model, "byte_fallback", where, false);
  options.ignore_merges = fields::boolean(model, "ignore_merges", where, false);
  options.byte_level = byte_level;

  const Json& entries = fields::require(model, "vocab", where);
  if (!entries.is_object()) fields::fail(where, "vocab", "is not an object of token: id");
  // Ids index arrays, so a hole of any size would be memory: none of the models in use has one worth speaking of.
  const int64_t id_limit = 2 * static_cast<int64_t>(entries.size()) + 65'536;
  size_t bytes = 0;
  for (const auto& [token, id] : entries.items()) bytes += token.size();
  Vocabulary vocabulary;
  vocabulary.reserve(entries.size(), bytes);
  for (auto it = entries.begin(); it != entries.end(); ++it) {
    const auto id = fields::whole(*it, fmt::format("{}.vocab[{:?}]", where, it.key()), 0, id_limit);
    if (!vocabulary.add(it.key(), static_cast<int32_t>(id)))
      throw InputError(fmt::format("{}.vocab gives the id {} to two tokens, {:?} and {:?}", where, id,
                                   vocabulary.token(static_cast<int32_t>(id)), it.key()));
  }

  const Json& rules = fields::array(model, "merges", where);
  BpeRules merges(vocabulary, options.continuing_subword_prefix, rules.size(), fmt::format("{}.merges", where));
  for (size_t i = 0; i < rules.size(); ++i) {
    const Json& rule = rules[i];
    if (rule.is_string()) {
      const std::string& line = rule.get_ref<const std::string&>();
      if (!line.starts_with("#version")) merges.add(line, i);
    } else if (rule.is_array() && rule.size() == 2 && rule[0].is_string() && rule[1].is_string()) {
      merges.add(rule[0].get_ref<const std::string&>(), rule[1].get_ref<const std::string&>(), i);
    } else {
      throw InputError(fmt::format("{}.merges[{}] is neither \"left right\" nor [\"left\", \"right\"]", where, i));
    }
  }
  return std::move(merges).finish(std::move(vocabulary), std::move(options));
}

std::unique_ptr<TokenModel> make_bpe_model(Vocabulary vocabulary, std::span<const std::string_view> rules,
                                           BpeModel::Options options, std::string_view where) {
  BpeRules merges(vocabulary, options.continuing_subword_prefix, rules.size(), std::string(where));
  for (size_t i = 0; i < rules.size(); ++i) merges.add(rules[i], i);
  return std::move(merges).finish(std::move(vocabulary), std::move(options));
}

}  // namespace tinyserve
