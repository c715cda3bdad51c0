#include "model/weights.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "model/in_quotes.h"

namespace tinyserve {

Vector::Vector(ops::Ops& ops, std::span<const float> values) : memory_(ops.allocate(values.size_bytes())) {
  ops.upload(memory_->data, values.data(), values.size_bytes());
}

WeightLoader::WeightLoader(Checkpoint& checkpoint, ops::Ops& ops, const ModelOptions& options)
    : checkpoint_(checkpoint), ops_(ops), options_(options) {}

std::string WeightLoader::find_prefix(std::initializer_list<const char*> prefixes, const std::string& tensor) const {
  for (const char* prefix : prefixes)
    if (has(prefix + tensor)) return prefix;
  return *prefixes.begin();
}

Linear WeightLoader::linear(const std::string& name, int64_t out_features, int64_t in_features, Bias bias,
                            Layout layout) {
  const bool transposed = layout == Layout::kInOut && !checkpoint_.is_gguf();
  const std::string tensor = name + ".weight";
  const Shape shape = transposed ? Shape{in_features, out_features} : Shape{out_features, in_features};
  Linear out = pack({{tensor, shape, transposed}});
  if (bias == Bias::kYes) out.bias = vector(read(name + ".bias", out_features));
  return out;
}

Linear WeightLoader::fused_linear(const std::vector<FusedPart>& parts, int64_t in_features, Bias bias) {
  std::vector<Matrix> matrices;
  for (const FusedPart& part : parts) matrices.push_back({part.name + ".weight", {part.out_features, in_features}});
  Linear out = pack(matrices);
  if (bias == Bias::kYes) {
    std::vector<float> all;
    for (const FusedPart& part : parts) {
      const std::vector<float> values = read(part.name + ".bias", part.out_features);
      all.insert(all.end(), values.begin(), values.end());
    }
    out.bias = vector(all);
  }
  return out;
}

Linear WeightLoader::pack(const std::vector<Matrix>& matrices) {
  const auto is_quantised = [&](const Matrix& m) { return checkpoint_.is_quantised(m.tensor); };
  const bool blocks = options_.keep_blocks && !options_.int8_weights &&
                      std::all_of(matrices.begin(), matrices.end(), is_quantised);
  const ops::WeightFormat format = options_.int8_weights           ? ops::WeightFormat::kInt8
                                   : blocks                        ? ops::WeightFormat::kBlocks
                                   : options_.dtype == DType::kF32 ? ops::WeightFormat::kF32
                                                                   : ops::WeightFormat::kBF16;
  std::vector<ops::WeightSource> sources;
  for (const Matrix& m : matrices)
    sources.push_back({.view = blocks ? checkpoint_.stored(m.tensor, m.shape) : checkpoint_.tensor(m.tensor, m.shape),
                       .transposed = m.transposed});
  Linear out{.weight = ops_.pack_weight(sources, format)};
  packed_bytes_ += out.weight->size_bytes;
  if (out.weight->format == ops::WeightFormat::kBlocks) block_bytes_ += out.weight->size_bytes;
  for (size_t i = 0; i < matrices.size(); ++i) done(matrices[i].tensor, sources[i].view);
  return out;
}

Norm WeightLoader::norm(const std::string& name, int64_t width, Bias bias) {
  Norm out{.weight = vector(read(name + ".weight", width))};
  if (bias == Bias::kYes) out.bias = vector(read(name + ".bias", width));
  return out;
}

Norm WeightLoader::norm_plus_one(const std::string& name, int64_t width) {
  std::vector<float> values = read(name + ".weight", width);
  if (!checkpoint_.is_gguf())
    for (float& v : values) v += 1.0f;
  return {.weight = vector(values)};
}

Norm WeightLoader::unit_norm(int64_t width) {
  return {.weight = vector(std::vector<float>(static_cast<size_t>(width), 1.0f))};
}

std::vector<float> WeightLoader::read(const std::string& tensor, int64_t width) {
  const TensorView view = checkpoint_.tensor(tensor, {width});
  std::vector<float> values(static_cast<size_t>(width));
  view.read(0, width, values.data());
  done(tensor, view);
  return values;
}

Vector WeightLoader::vector(std::span<const float> values) {
  packed_bytes_ += values.size_bytes();
  return Vector(ops_, values);
}

Table WeightLoader::table(const std::string& tensor, int64_t rows, int64_t width) {
  const bool in_place = options_.keep_blocks && ops_.on_host();
  const TensorView view = in_place ? checkpoint_.stored(tensor, {rows, width})
                                   : checkpoint_.table(tensor, {rows, width}, options_.dtype);
  Table out;
  out.view = ops_.place(view, out.memory);
  if (out.memory) packed_bytes_ += out.memory->size;
  done(tensor, view);
  return out;
}

Linear WeightLoader::lm_head(const std::string& embedding, int64_t vocab, int64_t width, bool tied) {
  const std::string tensor = !tied || has("lm_head.weight") ? "lm_head.weight" : embedding;
  return pack({{tensor, {vocab, width}}});
}

void WeightLoader::done(const std::string& tensor, const TensorView& view) {
  const int64_t size = view.size();  // the view may end with the release
  const size_t bytes = checkpoint_.stored_bytes(tensor);
  checkpoint_.release(tensor);
  if (!counted_.insert(tensor).second) return;  // a tied embedding comes twice
  num_parameters_ += size;
  done_bytes_ += bytes;
  if (options_.on_progress) options_.on_progress(done_bytes_, checkpoint_.size_bytes());
}

void WeightLoader::finish() {
  for (const std::string& name : checkpoint_.unread()) {
    const bool ignored = std::any_of(ignored_suffixes_.begin(), ignored_suffixes_.end(),
                                     [&](const std::string& suffix) { return name.ends_with(suffix); });
    if (!ignored)
      throw InputError(fmt::format("{}: tensor {} is in the checkpoint, but {} a model without it",
                                   checkpoint_.file_of(name), in_quotes(name),
                                   checkpoint_.is_gguf() ? "the metadata describes" : "config.json describes"));
  }
  checkpoint_.release_all();
  if (options_.on_progress) options_.on_progress(checkpoint_.size_bytes(), checkpoint_.size_bytes());
}

}  // namespace tinyserve
