#pragma once
// The one list of operations. A backend implements this class; models, engine and tests see nothing else of it. Adding
// an operation touches its declaration here, ref/, every other backend and its case in ops_cases.
//
// Conventions
// - Activations are F32, row major: [rows, width] with a row stride in elements. KV pages and weights may be narrower.
// - Arguments were checked by the caller (the model, once at load; the engine, once a step): kernels check nothing.
// - Every pointer an operation gets is memory from allocate(), or from place() for tables, unless it is a std::span: spans
//   are the host's. (On the CPU backends all of it is ordinary memory.)
// - Outputs do not alias inputs unless the operation says so.
// - Nothing allocates in a step: scratch belongs to the backend and is sized by reserve().
// - One caller at a time; the backend uses its threads inside a call and is idle between calls.
// - Row independence: the result for a row (token) depends only on that row, its sequence's K/V and its position, never on
//   the other rows, nor on how a prompt was cut into chunks, when OpsOptions::batch_invariant is set. Reductions then
//   have one fixed order whatever the batch size.

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "ops/selection_layout.h"
#include "tensor/tensor_view.h"

namespace tinyserve {
class ThreadPool;
}

namespace tinyserve::ops {

/// How a weight matrix is kept. kInt8: symmetric, one BF16 scale per row of W and group of 32 inputs (int8_format.h).
/// kBlocks: in the blocks of a GGUF file (block_format.h), which every part must be made of, each of its own format; a
/// backend that cannot compute with them keeps BF16 and says so in PackedWeight::format.
enum class WeightFormat : uint8_t { kF32, kBF16, kInt8, kBlocks };
constexpr int64_t kInt8Group = 32;

/// One part of a weight matrix as the checkpoint has it.
struct WeightSource {
  TensorView view;          ///< [out_features, in_features], or [in_features, out_features] when transposed
  bool transposed = false;  ///< GPT-2's Conv1D
};

/// A weight matrix prepared by one backend for its own linear().
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  int64_t out_features = 0;
  int64_t in_features = 0;
  WeightFormat format = WeightFormat::kF32;
  size_t size_bytes = 0;  ///< resident bytes, scales included
};

/// Memory that a backend's operations work on: activations, vectors, K/V. Zero-initialised; freed with the object.
class Memory {
 public:
  virtual ~Memory() = default;
  std::byte* data = nullptr;
  size_t size = 0;
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data);
  }
};

/// K and V of one layer for all pages. Both: [num_pages, kv_heads, page_size, head_dim], dtype kF32 or kBF16.
struct KvLayer {
  std::byte* k = nullptr;
  std::byte* v = nullptr;
  DType dtype = DType::kBF16;
  int32_t num_pages = 0;
  int32_t kv_heads = 0;
  int32_t page_size = 16;
  int32_t head_dim = 0;
  PageCodes codes;  ///< of these pages, when query-aware selection keeps them

  int64_t page_elements() const { return int64_t{kv_heads} * page_size * head_dim; }
};

/// Copies the codes of one page, when there are any; for backends on host memory.
void copy_codes(const KvLayer& cache, int64_t from, int64_t to);

/// One step, flattened. Example, page_size 16: sequence A decodes its 41st token, B prefills its first three:
///   cu_query_lens {0, 1, 4}; kv_lens {41, 3}; page_table {{7, 2, 9}, {4, -1, -1}}, page_table_stride 3;
///   positions {40, 0, 1, 2}; slots {9*16+8, 4*16+0, 4*16+1, 4*16+2}.
struct BatchLayout {
  int32_t num_seqs = 0;
  int32_t num_tokens = 0;                  ///< == cu_query_lens[num_seqs]
  const int32_t* cu_query_lens = nullptr;  ///< [num_seqs + 1], cumulative tokens of this step; a sequence may have none
  const int32_t* kv_lens = nullptr;        ///< [num_seqs], tokens in the cache after this step's append
  const int32_t* page_table = nullptr;     ///< [num_seqs, page_table_stride], physical page of each logical page
  int32_t page_table_stride = 0;
  const int32_t* positions = nullptr;      ///< [num_tokens]; token t of sequence s is at kv_len - query_len + t
  const int64_t* slots = nullptr;          ///< [num_tokens], page * page_size + offset: where K/V of the token go
};

enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh, kRelu };

/// y[rows, out] = x[rows, in] W^T + bias, or y += with `accumulate`. With kBF16 weights a backend may round x to BF16;
/// with kInt8 and kBlocks it may round x to INT8 per row and group of 32. Sums are F32. x and y do not overlap.
struct LinearArgs {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t rows = 0;
  const PackedWeight* weight = nullptr;
  const float* bias = nullptr;  ///< [out] or null
  float* y = nullptr;
  int64_t y_stride = 0;
  bool accumulate = false;
};

/// Splits a fused projection, normalises and rotates, and appends K and V to the cache:
/// qkv[t] = [num_heads * D of q | kv_heads * D of k | kv_heads * D of v]. q is normalised (q_norm) and rotated in place;
/// k likewise, then k and v go to cache slot slots[t]. The order (norm, then rotate) is Qwen3's.
struct AppendArgs {
  float* qkv = nullptr;  ///< [num_tokens, qkv_stride]
  int64_t qkv_stride = 0;
  int32_t num_heads = 0;
  const float* q_norm = nullptr;  ///< [head_dim] RMS weights or null
  const float* k_norm = nullptr;
  float norm_eps = 0;
  /// [num_tokens, rotary_dim / 2], or null when the family does not rotate. Channel i pairs with i + rotary_dim / 2.
  const float* cos = nullptr;
  const float* sin = nullptr;
  int32_t rotary_dim = 0;
  KvLayer cache;
};

/// Causal attention over pages: out[t, h] = softmax(scale q[t,h] . K) V over the cached positions <= positions[t], and
/// > positions[t] - window when window > 0. Query head h reads KV head h / (num_heads / kv_heads). With softcap > 0 scores
/// are softcap * tanh(score / softcap). With a BF16 cache a backend may round q and the probabilities to BF16.
struct AttentionArgs {
  const float* q = nullptr;  ///< [num_tokens, num_heads, head_dim], row stride q_stride
  int64_t q_stride = 0;
  int32_t num_heads = 0;
  float scale = 0;
  int32_t window = 0;
  float softcap = 0;
  KvLayer cache;
  float* out = nullptr;  ///< [num_tokens, num_heads * head_dim], row stride out_stride
  int64_t out_stride = 0;
};

/// Codes the listed pages, all of whose slots are filled, from K and V as the cache has them (selection_layout.h).
struct EncodeArgs {
  KvLayer cache;  ///< with codes; page_size kCodePage
  SelectionMap map;
  std::span<const int32_t> pages;
};

/// A query of sparse_attention.
struct SparseRow {
  int32_t row = 0;       ///< of q and out, and of the batch's tokens
  int32_t seq = 0;       ///< of the batch: whose page table
  int32_t position = 0;  ///< it sees the positions [0, position]
  int32_t exact = 0;     ///< tokens of the middle that are read exactly, per KV head
  int32_t coded = 0;     ///< further tokens whose values are read as codes
  /// Above 0: only the fewest of the best tokens, `exact` at most, that have that share of the middle's mass (step 3).
  float top_p = 0;
  /// Not 0: audit with these random bits (step 5).
  uint64_t audit = 0;
};

/// Of the middle's estimated mass: what a page must hold unread for its mean to be read. Half of the pages of a long context do not.
constexpr float kNegligible = 1e-5f;

/// What one query and KV head read; shares are of the answer's softmax mass, means over the query heads of the group.
struct SparseStats {
  float bytes = 0;            ///< codes, scales, means, K and V, an audit's too; map and page table excluded
  float exact_share = 0;      ///< of the tokens read exactly
  float coded_share = 0;      ///< of the tokens whose values were read as codes
  float estimated_share = 0;  ///< of the rest, for which means of pages stand
  /// Of SparseRow::audit. Masses are relative to the answer's own sum of exponentials, means over the query heads of the group.
  struct Draw {
    float probability = 0;  ///< of having drawn this one; 0: there was nothing to draw, and the masses are 0
    float true_mass = 0;    ///< by the true logits
    float counted = 0;      ///< what the answer counted for it
  };
  Draw page;   ///< of a page of the middle: its tokens that are neither read exactly nor in codes
  Draw token;  ///< of a token whose value is read as codes
};

/// What became of a position.
enum class SparseRead : uint8_t { kExact, kCoded, kEstimated };

/// Attention over the positions [0, position] of a sequence, most of which are not read but estimated, per row and KV head:
///  0. The first `sinks` pages, the last `recent` full pages and the unfinished page are read exactly. What follows is about
///     the middle: the pages between. All of it is exact when there is no page between.
///  1. Coarse logits of every query head g and token of the middle: x = step_g * sum_a round(c_a / s_g) * level_a, an exact integer
///     sum times a factor; s_g = max |c_a| / 127 over the axes that have bits in the fine grade, step_g = s_g * kLevelStep; plus
///     scale q.mean, and half of sum_a c_a^2 coarse_error_a (the expected exp() of the error). L_g: log-sum-exp of it.
///  2. Key of a token: key(max over g of x - L_g), key(y) = clamp(floor(32 y) + 1023, 0, 1023). T is the largest key
///     that at least ceil(tokens / fine_divisor) tokens of the middle reach. A page with a token that reaches T is *fine*: its tokens'
///     logits are replaced by those of the fine grade (the same formula, with all bits and fine_error). L_g again, over all
///     tokens of the middle as they are now. Beyond 16,384 tokens a backend may find T from a sample of at least 8,192 of them.
///  3. By the new keys, the best `exact` tokens of fine pages are read exactly, K and V; the next `coded` have their logits of the fine
///     grade and their values' codes (or exact values when there are no codes for values). Of equal keys the earlier is better.
///     With top_p, `exact` becomes the smallest count of such best tokens, `exact` at most, that have top_p of the mass of the middle:
///     a token of key k of a fine page has exp((k - 1023) / 32), a page that is not fine the largest of its shares of exp(L_g). (Both
///     are at hand: a count of keys, and masses of pages. Tokens of other pages have no keys.)
///  4. Of each page of the middle, the unread tokens' sum of exp(logit) weighs its mean value; a page where that is less than
///     kNegligible exp(L_g) for every g is left out, as if its unread tokens had not been.
///  5. An audit draws one page of the middle, with probability 1 - kAuditEqual by its unread tokens' sum over g of exp(logit - L_g),
///     left-out pages included, else all alike, and one coded token in the same way; it reads their keys and says what they weigh in
///     truth: true_mass / probability is an unbiased estimate of the true mass of all that was estimated (read as codes), counted /
///     probability of estimated_share (coded_share). Each KV head draws anew (selection_audit.h). The answer does not change.
///  One softmax over all of it; estimates count as what they stand for. Logits of codes beyond FLT_MAX are not guarded against.
struct SparseAttentionArgs {
  const float* q = nullptr;  ///< [num_tokens, num_heads, head_dim], row stride q_stride
  int64_t q_stride = 0;
  int32_t num_heads = 0;
  float scale = 0;
  KvLayer cache;  ///< with codes; every page of the middle is coded. page_size kCodePage
  SelectionMap map;
  std::span<const SparseRow> rows;
  int32_t sinks = 1, recent = 1, fine_divisor = 3;
  float* out = nullptr;  ///< [num_tokens, num_heads * head_dim], row stride out_stride; only `rows` are written
  int64_t out_stride = 0;
  SparseStats* stats = nullptr;  ///< [rows.size(), kv_heads] or null; the host's
  /// For checks, or null; the host's. How each position that a row sees was read, [rows.size(), kv_heads, reads_stride], and the logarithm
  /// of the answer's sum of exponentials, [rows.size(), num_heads]; a page that was left out counts as estimated. Both or none.
  SparseRead* reads = nullptr;
  int64_t reads_stride = 0;
  float* log_sums = nullptr;
};

/// Largest step the backend will see; scratch is sized by it.
struct Limits {
  int64_t max_tokens = 0;     ///< rows of a step
  int64_t max_seqs = 0;
  int64_t max_context = 0;    ///< tokens of one sequence
  int64_t max_width = 0;      ///< widest activation row (intermediate size, vocabulary)
  int32_t max_heads = 0;
  int32_t max_head_dim = 0;
};

class Ops {
 public:
  virtual ~Ops() = default;
  /// "ref", "cpu", ... and what it chose on this machine, e.g. "AVX-512 BF16, 2 threads".
  virtual std::string_view name() const = 0;
  virtual std::string description() const = 0;

  /// Sizes scratch. Called once, before the first step.
  virtual void reserve(const Limits& limits) = 0;

  /// Throws InputError that says what was asked for when there is not enough. Host memory unless a backend overrides it.
  virtual std::unique_ptr<Memory> allocate(size_t size_bytes);
  /// Whether that memory is the host's: then nothing needs upload() or download() to be read or written.
  virtual bool on_host() const { return true; }
  /// Host memory to the backend's and back; `from` may be reused, `to` read, when the call returns.
  virtual void upload(void* to, const void* from, size_t size_bytes);
  virtual void download(void* to, const void* from, size_t size_bytes);
  /// A view of the same table where embed() can read it: the view itself on the host, else a copy that `owner` holds.
  virtual TensorView place(const TensorView& table, std::unique_ptr<Memory>& owner);
  /// Called once a step with the host's arrays, before the operations that take the result, and again when the step goes
  /// on with fewer of its tokens (the earlier result is then no longer used). The host's arrays stay valid until the step
  /// ends.
  virtual BatchLayout begin_step(const BatchLayout& host);

  /// Concatenates `parts` along out_features, converts and lays them out for linear(). May read the views' memory once,
  /// front to back; does not keep them.
  virtual std::unique_ptr<PackedWeight> pack_weight(std::span<const WeightSource> parts, WeightFormat format) = 0;

  /// out[i] = scale * table[ids[i]] (+= with accumulate). table: [vocab, width], any dtype or, where on_host(), blocks,
  /// read in place.
  virtual void embed(const TensorView& table, std::span<const int32_t> ids, float scale, bool accumulate, float* out,
                     int64_t out_stride) = 0;
  /// out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight. out may be x.
  virtual void rms_norm(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight, float eps,
                        float* out, int64_t out_stride) = 0;
  /// out[r] = (x[r] - mean) / sqrt(variance + eps) * weight + bias (bias may be null). out may be x.
  virtual void layer_norm(const float* x, int64_t x_stride, int64_t rows, int64_t width, const float* weight,
                          const float* bias, float eps, float* out, int64_t out_stride) = 0;
  virtual void linear(const LinearArgs& args) = 0;
  virtual void append_kv(const AppendArgs& args, const BatchLayout& batch) = 0;
  virtual void attention(const AttentionArgs& args, const BatchLayout& batch) = 0;
  /// Whether the backend has the next two operations; one that does not is never asked for them.
  virtual bool has_selection() const { return false; }
  virtual void encode_pages(const EncodeArgs& args);
  virtual void sparse_attention(const SparseAttentionArgs& args, const BatchLayout& batch);
  /// out[r, i] = act(x[r, i]) * x[r, width + i]. out may not be x.
  virtual void gated_activation(Activation act, const float* x, int64_t x_stride, int64_t rows, int64_t width, float* out,
                                int64_t out_stride) = 0;
  /// x[r, i] = act(x[r, i]).
  virtual void activation(Activation act, float* x, int64_t x_stride, int64_t rows, int64_t width) = 0;
  /// x += y.
  virtual void add(float* x, int64_t x_stride, const float* y, int64_t y_stride, int64_t rows, int64_t width) = 0;
  /// x = cap * tanh(x / cap) (Gemma 2's logits).
  virtual void softcap(float cap, float* x, int64_t x_stride, int64_t rows, int64_t width) = 0;
  /// Copies whole pages of one layer, K, V and codes: pairs of (source, destination) page. Sources and destinations are disjoint.
  virtual void copy_pages(const KvLayer& cache, std::span<const std::pair<int32_t, int32_t>> pairs) = 0;
};

struct OpsOptions {
  bool batch_invariant = true;
};

/// Backends by name, chosen once at start-up. Throws InputError for an unknown name, listing those there are.
/// The pool must outlive the backend.
std::unique_ptr<Ops> make_ops(std::string_view backend, ThreadPool& pool, const OpsOptions& options = {});

}  // namespace tinyserve::ops
