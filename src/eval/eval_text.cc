#include "eval/eval_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "base/error.h"
#include "base/mapped_file.h"

namespace tinyserve::eval {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_of(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return {path};
  std::vector<fs::path> files;
  for (auto it = fs::directory_iterator(path, error); !error && it != fs::directory_iterator(); it.increment(error))
    if (it->path().extension() == ".txt" || it->path().extension() == ".md") files.push_back(it->path());
  if (error) throw InputError(fmt::format("cannot read the folder {}: {}", path.string(), error.message()));
  if (files.empty()) throw InputError(fmt::format("the folder {} has no .txt or .md files", path.string()));
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

EvalText load_eval_text(const Tokenizer& tokenizer, std::span<const std::string> files) {
  EvalText text;
  for (const std::string& path : files) {
    for (const fs::path& file : files_of(path)) {
      const std::vector<int32_t> ids = tokenizer.encode(read_text_file(file), false, false);
      text.tokens.insert(text.tokens.end(), ids.begin(), ids.end());
    }
  }
  if (text.tokens.empty()) throw InputError("there is no text to measure on; name a file with --text");
  const std::vector<int32_t> bare = tokenizer.encode("a", false, false), whole = tokenizer.encode("a", true, false);
  if (whole.size() > bare.size() && tokenizer.bos_id() == whole.front()) text.bos = whole.front();
  return text;
}

}  // namespace tinyserve::eval
