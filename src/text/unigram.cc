// The unigram model (Kudo 2018) of a tokenizer.json: the segmentation with the highest sum of scores, by Viterbi.
//
// Our own and not libsentencepiece's, although the model is the same: that library adds scores in float, the
// `tokenizers` package in double, and on long runs of one character, where thousands of segmentations are nearly equal,
// they then choose differently. For tokenizer.model files the library is the reference and does the work
// (sentencepiece_model.cc).

#include <cmath>
#include <limits>

#include "text/byte_trie.h"
#include "text/json_fields.h"
#include "text/token_model.h"
#include "text/unicode.h"
#include "text/vocabulary.h"

namespace tinyserve {
namespace {

constexpr double kUnknownPenalty = 10.0;
// Work per byte of text grows with the longest token; the longest of the models in use has 48 bytes or so.
constexpr size_t kMaxTokenBytes = 1024;

class UnigramModel : public TokenModel {
 public:
  UnigramModel(const Json& model, std::string_view where) {
    const Json& entries = fields::array(model, "vocab", where);
    if (entries.size() > (1u << 24)) fields::fail(where, "vocab", "has more than 2^24 entries");
    double lowest = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < entries.size(); ++i) {
      const Json& entry = entries[i];
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
        throw InputError(fmt::format("{}.vocab[{}] is not [\"token\", score]", where, i));
      const auto& token = entry[0].get_ref<const std::string&>();
      if (token.size() > kMaxTokenBytes)
        throw InputError(fmt::format("{}.vocab[{}] has {} bytes, more than {}", where, i, token.size(), kMaxTokenBytes));
      const auto score = entry[1].get<double>();
      if (!std::isfinite(score)) throw InputError(fmt::format("{}.vocab[{}] has a score that is not finite", where, i));
      tokens_.push_back(token);
      scores_.push_back(score);
      lowest = std::min(lowest, score);
      // Twice the same string: the later id counts, as in the package.
      if (!token.empty()) trie_.insert(token, static_cast<int32_t>(i));
    }
    unknown_score_ = lowest - kUnknownPenalty;
    if (fields::find(model, "unk_id", where))
      unk_id_ = static_cast<int32_t>(
          fields::whole(model, "unk_id", where, 0, static_cast<int64_t>(entries.size()) - 1));
    byte_fallback_ = fields::boolean(model, "byte_fallback", where, false);
    for (int byte = 0; byte < 256; ++byte) fallback_ids_[byte] = find(fmt::format("<0x{:02X}>", byte));
  }

  int32_t find(std::string_view token) const override {
    int32_t id = -1;
    return !token.empty() && trie_.longest_prefix(token, id) == token.size() ? id : -1;
  }
  bool has(int32_t id) const override { return id >= 0 && static_cast<size_t>(id) < tokens_.size(); }
  std::string_view token(int32_t id) const override { return tokens_[id]; }
  size_t size() const override { return tokens_.size(); }
  int32_t id_end() const override { return static_cast<int32_t>(tokens_.size()); }

  void encode(std::string_view piece, EncodeScratch& scratch, std::vector<int32_t>& out) const override {
    if (piece.size() > PieceCache::kMaxPieceBytes) return segment(piece, out);
    const uint64_t hash = hash_bytes(piece);
    if (scratch.cache.find(piece, hash, out)) return;
    const size_t before = out.size();
    segment(piece, out);
    scratch.cache.insert(piece, hash, std::span(out).subspan(before));
  }

 private:
  struct Node {  // the best path that ends before a byte
    double score = 0;
    int64_t begin = -1;  // of its last token; -1: no path ends here
    int32_t id = -1;
  };

  void segment(std::string_view text, std::vector<int32_t>& out) const {
    std::vector<Node> best(text.size() + 1);
    for (size_t at = 0; at < text.size();) {
      const double so_far = best[at].score;
      const size_t char_bytes = unicode::char_length(text[at]);
      bool has_single = false;
      const auto offer = [&](size_t end, double score, int32_t id) {
        Node& node = best[end];
        if (node.begin < 0 || score > node.score) node = {score, static_cast<int64_t>(at), id};
      };
      uint32_t node = ByteTrie::kRoot;
      for (size_t end = at; end < text.size();) {
        node = trie_.step(node, static_cast<unsigned char>(text[end++]));
        if (node == ByteTrie::kNone) break;
        const int32_t id = trie_.value(node);
        if (id < 0) continue;
        offer(end, scores_[id] + so_far, id);
        has_single = has_single || end - at == char_bytes;
      }
      if (!has_single) offer(at + char_bytes, unknown_score_ + so_far, unk_id_);
      at += char_bytes;
    }
    // Back from the end; a run of unknowns becomes one.
    std::vector<std::pair<size_t, size_t>> spans;
    std::vector<int32_t> ids;
    for (size_t end = text.size(); end > 0;) {
      const Node& node = best[end];
      const auto begin = static_cast<size_t>(node.begin);
      if (node.id == unk_id_ && !ids.empty() && ids.back() == unk_id_) {
        spans.back().first = begin;
      } else {
        spans.emplace_back(begin, end);
        ids.push_back(node.id);
      }
      end = begin;
    }
    for (size_t i = ids.size(); i-- > 0;) {
      if (ids[i] != unk_id_) out.push_back(ids[i]);
      else unknown(text.substr(spans[i].first, spans[i].second - spans[i].first), out);
    }
  }

  void unknown(std::string_view run, std::vector<int32_t>& out) const {
    if (const int32_t id = find(run); id >= 0) {  // the text of the unknown token itself
      out.push_back(id);
      return;
    }
    bool all = byte_fallback_;
    for (unsigned char b : run) all = all && fallback_ids_[b] >= 0;
    if (all) {
      for (unsigned char b : run) out.push_back(fallback_ids_[b]);
      return;
    }
    if (unk_id_ < 0)
      throw InputError(fmt::format("the tokenizer has no token for {:?} and no unknown token (model.unk_id)", run.substr(0, unicode::char_length(run[0]))));
    out.push_back(unk_id_);
  }

  ByteTrie trie_;
  std::vector<std::string> tokens_;
  std::vector<double> scores_;
  double unknown_score_ = 0;
  int32_t unk_id_ = -1;
  bool byte_fallback_ = false;
  int32_t fallback_ids_[256];
};

}  // namespace

std::unique_ptr<TokenModel> make_unigram_model(const Json& model, bool byte_level, std::string_view where) {
  if (byte_level)
    throw InputError(fmt::format("{}: a Unigram model behind a ByteLevel pre-tokenizer is not supported", where));
  return std::make_unique<UnigramModel>(model, where);
}

std::unique_ptr<TokenModel> make_token_model(const Json& model, bool byte_level, std::string_view where) {
  std::string type;
  if (fields::find(model, "type", where)) {
    type = fields::text(model, "type", where);
  } else {  // files of before 2020 do not say
    const Json& vocab = fields::require(model, "vocab", where);
    type = vocab.is_array() ? "Unigram" : fields::find(model, "merges", where) ? "BPE" : "of no known type";
  }
  if (type == "BPE") return make_bpe_model(model, byte_level, where);
  if (type == "Unigram") return make_unigram_model(model, byte_level, where);
  throw InputError(fmt::format("{} is {}, which is not supported (BPE and Unigram are)", where, type));
}

}  // namespace tinyserve
