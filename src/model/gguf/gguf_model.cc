#include "model/gguf/gguf_model.h"

#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <unordered_set>

#include "base/error.h"
#include "model/in_quotes.h"

namespace tinyserve {

GgufModel::GgufModel(const std::filesystem::path& path) {
  add_file(path);
  const int64_t count = metadata().get_integer("split.count", 0, kMaxGgufShards, 0);
  if (count <= 1) return;
  const std::string file = path.string();
  const int64_t own = metadata().get_integer("split.no", 0, count - 1);
  const std::string ending = fmt::format("-{:05}-of-{:05}.gguf", own + 1, count), name = path.filename().string();
  if (!name.ends_with(ending))
    throw InputError(fmt::format("{} is shard {} of {}, so its name must end in {}: give the shards their names back",
                                 file, own + 1, count, ending));
  const std::string stem = name.substr(0, name.size() - ending.size());
  const auto shard = [&](int64_t no) {
    return path.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", stem, no + 1, count);
  };
  if (own != 0)
    throw InputError(
        fmt::format("{} is shard {} of {}: name the first, {}", file, own + 1, count, shard(0).filename().string()));
  const int64_t total = metadata().get_integer("split.tensors.count", 0, static_cast<int64_t>(kMaxGgufTensors));

  for (int64_t no = 1; no < count; ++no) {
    std::error_code ignored;
    if (!std::filesystem::exists(shard(no), ignored))
      throw InputError(fmt::format("{} is the first of {} shards, but {} is missing", file, count, shard(no).string()));
    add_file(shard(no));
    const GgufMetadata& its = files_.back().metadata;
    if (its.get_integer("split.count", 0, INT32_MAX) != count || its.get_integer("split.no", 0, INT32_MAX) != no)
      throw InputError(fmt::format("{} says it is another shard than its name", its.file()));
  }
  std::unordered_set<std::string_view> names;
  for (const GgufFile& part : files_)
    for (const GgufTensor& tensor : part.tensors)
      if (!names.insert(tensor.name).second)
        throw InputError(
            fmt::format("{}: tensor {} is in another shard, too", part.metadata.file(), in_quotes(tensor.name)));
  if (names.size() != static_cast<size_t>(total))
    metadata().fail("split.tensors.count", fmt::format("is {}, but the shards hold {} tensors", total, names.size()));
}

void GgufModel::add_file(const std::filesystem::path& path) {
  mapped_.emplace_back(path);
  files_.push_back(parse_gguf(mapped_.back().bytes(), path.string()));
}

bool is_gguf(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  if (path.extension() == ".gguf") return true;
  char magic[4] = {};
  std::ifstream file(path, std::ios::binary);
  return file.read(magic, 4) && std::memcmp(magic, "GGUF", 4) == 0;
}

}  // namespace tinyserve
