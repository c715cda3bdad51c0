#include "cli/weights_digest.h"

#include <fmt/format.h>

#define XXH_INLINE_ALL
#define XXH_NO_INLINE_HINTS 1  // forced inlining fails at -Og, with which sanitizers build
#include <xxhash.h>

#include <algorithm>
#include <vector>

#include "base/mapped_file.h"

namespace tinyserve::cli {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> weight_files(const fs::path& model) {
  std::vector<fs::path> files;
  if (fs::is_directory(model)) {
    for (const auto& entry : fs::directory_iterator(model)) {
      const fs::path& path = entry.path();
      if (path.filename() == "config.json" || path.extension() == ".safetensors" || path.extension() == ".gguf")
        files.push_back(path);
    }
  } else if (const std::string name = model.filename().string(); name.find("-00001-of-") != std::string::npos) {
    const std::string stem = name.substr(0, name.find("-00001-of-") + 1);
    for (const auto& entry : fs::directory_iterator(fs::absolute(model).parent_path())) {
      const std::string other = entry.path().filename().string();
      if (other.starts_with(stem) && other.ends_with(".gguf")) files.push_back(entry.path());
    }
  } else {
    files.push_back(model);
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

std::string weights_digest(const fs::path& model) {
  constexpr size_t kChunk = size_t{16} << 20;
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  for (const fs::path& path : weight_files(model)) {
    const MappedFile file(path);
    const std::string head = fmt::format("{} {}", path.extension().string(), file.bytes().size());
    XXH3_128bits_update(&state, head.data(), head.size());
    for (size_t at = 0; at < file.bytes().size(); at += kChunk) {
      const auto chunk = file.bytes().subspan(at, std::min(kChunk, file.bytes().size() - at));
      XXH3_128bits_update(&state, chunk.data(), chunk.size());
      file.release(at, chunk.size());
    }
  }
  const XXH128_hash_t h = XXH3_128bits_digest(&state);
  return fmt::format("{:016x}{:016x}", h.high64, h.low64);
}

}  // namespace tinyserve::cli
