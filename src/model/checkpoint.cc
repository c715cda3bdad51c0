#include "model/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "model/gguf/gguf_names.h"
#include "model/in_quotes.h"

namespace tinyserve {
namespace {

constexpr size_t kMaxIndexBytes = size_t{64} << 20;

// weight_map of an index: tensor -> shard. A shard is a plain file name: an index must not make us open files
// elsewhere.
std::unordered_map<std::string, std::string> read_index(const std::filesystem::path& path) {
  const Json json = parse_json(read_text_file(path, kMaxIndexBytes), path.string(), {.max_bytes = kMaxIndexBytes});
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object() ||
      json["weight_map"].empty())
    throw InputError(
        fmt::format("{}: 'weight_map' must be an object that names the file of each tensor", path.string()));
  std::unordered_map<std::string, std::string> map;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    if (!file.is_string())
      throw InputError(fmt::format("{}: the file of tensor {} is not a string", path.string(), in_quotes(tensor)));
    const auto& name = file.get_ref<const std::string&>();
    if (name.empty() || name == "." || name == ".." ||
        name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos)
      throw InputError(fmt::format("{}: tensor {} is said to be in {}, which is not a file name in the model's folder",
                                   path.string(), in_quotes(tensor), in_quotes(name)));
    map.emplace(tensor, name);
  }
  return map;
}

bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;  // what cannot be looked at is reported when it is opened
  return std::filesystem::exists(path, ignored);
}

std::optional<DType> computable_dtype(std::string_view dtype) {
  for (const DType d : {DType::kF32, DType::kF16, DType::kBF16})
    if (dtype_name(d) == dtype) return d;
  return std::nullopt;
}

// The name that the file has.
std::string shown(const std::string& name, const GgufTensor* gguf) { return in_quotes(gguf ? gguf->name : name); }

// Where row `row` of a checkpoint, of heads of `head_dim` rows, lies in a file that keeps rotating pairs together.
int64_t interleaved_row(int64_t row, int64_t head_dim) {
  const int64_t within = row % head_dim, half = head_dim / 2;
  return row - within + within % half * 2 + within / half;
}

}  // namespace

Checkpoint::Checkpoint(const std::filesystem::path& folder) : folder_(folder) {
  if (tinyserve::is_gguf(folder)) {
    add_gguf(folder);
    return;
  }
  const std::filesystem::path single = folder / "model.safetensors",
                              index_path = folder / "model.safetensors.index.json";
  if (is_there(single)) {
    add_file(single, nullptr);
    return;
  }
  if (!is_there(index_path))
    throw InputError(fmt::format(
        "{} has neither model.safetensors nor model.safetensors.index.json{}", folder.string(),
        is_there(folder / "pytorch_model.bin") ? "; pytorch_model.bin is not read, convert it to safetensors" : ""));
  const std::unordered_map<std::string, std::string> index = read_index(index_path);
  std::set<std::string> shards;
  for (const auto& [tensor, file] : index) shards.insert(file);
  for (const std::string& shard : shards) {
    const auto first = std::find_if(index.begin(), index.end(), [&](const auto& item) { return item.second == shard; });
    if (!is_there(folder / shard))
      throw InputError(fmt::format("{}: the file {} with tensor {} is missing", index_path.string(), in_quotes(shard),
                                   in_quotes(first->first)));
    add_file(folder / shard, &index);
  }
  for (const auto& [tensor, file] : index)
    if (!has(tensor))
      throw InputError(fmt::format("{} has no tensor {}, though {} says so", (folder / file).string(),
                                   in_quotes(tensor), index_path.filename().string()));
}

void Checkpoint::add_file(const std::filesystem::path& path,
                          const std::unordered_map<std::string, std::string>* index) {
  files_.emplace_back(path);
  for (SafetensorsEntry& entry : parse_safetensors(files_.back().bytes(), path.string())) {
    if (index) {  // the index decides: what it does not place in this file is no part of the model
      const auto at = index->find(entry.name);
      if (at == index->end() || at->second != path.filename()) continue;
    }
    size_bytes_ += entry.end - entry.begin;
    Located located{
        .file = files_.size() - 1, .dtype = entry.dtype, .shape = entry.shape, .begin = entry.begin, .end = entry.end};
    tensors_.emplace(entry.name, std::move(located));
  }
}

void Checkpoint::add_gguf(const std::filesystem::path& path) {
  gguf_ = std::make_unique<GgufModel>(path);
  const std::string_view architecture = gguf_->metadata().get_text("general.architecture");
  for (size_t f = 0; f < gguf_->num_files(); ++f)
    for (const GgufTensor& t : gguf_->tensors(f)) {
      size_bytes_ += t.end - t.begin;
      Located located{
          .file = f, .dtype = std::string(t.type_name), .shape = t.shape, .begin = t.begin, .end = t.end, .gguf = &t};
      if (!tensors_.emplace(checkpoint_name(architecture, t.name), std::move(located)).second)
        throw InputError(fmt::format("{}: tensor {} is there twice under two names", gguf_->mapped(f).path().string(),
                                     in_quotes(t.name)));
    }
}

Checkpoint::Located& Checkpoint::locate(const std::string& name, const Shape& shape) {
  const char* asker = gguf_ ? "the metadata" : "config.json";
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    throw InputError(fmt::format("{} has no tensor {}; {} asks for one of shape {}",
                                 files_.size() == 1 ? files_[0].path().string() : folder_.string(), in_quotes(name),
                                 asker, shape_string(shape)));
  Located& located = found->second;
  if (located.shape != shape)
    throw InputError(fmt::format("{}: tensor {} has shape {}, {} asks for {}", file(located).path().string(),
                                 shown(name, located.gguf), shape_string(located.shape), asker, shape_string(shape)));
  if (!computable_dtype(located.dtype) && !(located.gguf && located.gguf->blocks))
    throw InputError(
        fmt::format("{}: tensor {} has dtype {}; {} can be read, convert the model to one of them",
                    file(located).path().string(), shown(name, located.gguf), in_quotes(located.dtype),
                    gguf_ ? "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K" : "F32, F16 and BF16"));
  located.read = true;
  return located;
}

bool Checkpoint::is_quantised(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found != tensors_.end() && found->second.gguf && found->second.gguf->blocks;
}

TensorView Checkpoint::stored(const std::string& name, const Shape& shape) {
  Located& located = locate(name, shape);
  TensorView view{.data = file(located).bytes().data() + located.begin,
                  .dtype = computable_dtype(located.dtype).value_or(DType::kF32),
                  .shape = located.shape,
                  .blocks = located.gguf ? located.gguf->blocks : std::nullopt};
  const int64_t heads = located.gguf ? interleaved_heads(gguf_->metadata(), located.gguf->name) : 0;
  if (heads == 0) return view;
  const int64_t rows = located.shape.front(), width = num_elements(located.shape) / std::max<int64_t>(rows, 1);
  if (rows % (2 * heads) != 0)
    throw InputError(fmt::format("{}: tensor {} has {} rows, which are not {} heads of pairs",
                                 file(located).path().string(), shown(name, located.gguf), rows, heads));
  const size_t row_bytes = view.offset_bytes(width);
  located.reordered = AlignedBuffer(view.size_bytes());
  for (int64_t r = 0; r < rows; ++r)
    std::memcpy(located.reordered.data() + static_cast<size_t>(r) * row_bytes,
                view.data + static_cast<size_t>(interleaved_row(r, rows / heads)) * row_bytes, row_bytes);
  view.data = located.reordered.data();
  return view;
}

TensorView Checkpoint::tensor(const std::string& name, const Shape& shape) {
  const TensorView view = stored(name, shape);
  if (!view.blocks) return view;
  Located& located = tensors_.at(name);
  located.converted = AlignedBuffer(static_cast<size_t>(view.size()) * sizeof(float));
  view.read(0, view.size(), located.converted.as<float>());
  return {.data = located.converted.data(), .dtype = DType::kF32, .shape = view.shape};
}

TensorView Checkpoint::table(const std::string& name, const Shape& shape, DType dtype) {
  const TensorView view = stored(name, shape);
  if (!view.blocks) return view;
  Located& located = tensors_.at(name);
  const int64_t rows = shape[0], width = shape[1];
  located.table = AlignedBuffer(static_cast<size_t>(rows * width) * dtype_bytes(dtype));
  std::vector<float> row(static_cast<size_t>(width));
  for (int64_t r = 0; r < rows; ++r) {
    if (dtype == DType::kF32) {
      view.read(r * width, width, located.table.as<float>() + r * width);
      continue;
    }
    view.read(r * width, width, row.data());
    std::transform(row.begin(), row.end(), located.table.as<BFloat16>() + r * width, to_bfloat16);
  }
  return {.data = located.table.data(), .dtype = dtype, .shape = shape};
}

void Checkpoint::release(const std::string& name) {
  Located& located = tensors_.at(name);
  located.converted = AlignedBuffer();
  located.reordered = AlignedBuffer();
  file(located).release(located.begin, located.end - located.begin);
}

void Checkpoint::release_all() const {
  for (const MappedFile& file : files_) file.release(0, file.bytes().size());
  for (size_t f = 0; gguf_ && f < gguf_->num_files(); ++f) gguf_->mapped(f).release(0, gguf_->mapped(f).bytes().size());
}

std::vector<std::string> Checkpoint::unread() const {
  std::vector<std::string> names;
  for (const auto& [name, located] : tensors_)
    if (!located.read) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

std::string Checkpoint::file_of(const std::string& name) const { return file(tensors_.at(name)).path().string(); }

}  // namespace tinyserve
