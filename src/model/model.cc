#include "model/model.h"

#include <fmt/format.h>

#include "base/error.h"
#include "model/config_fields.h"
#include "model/config_reader.h"
#include "model/families.h"
#include "model/gguf/gguf_config.h"
#include "model/in_quotes.h"

namespace tinyserve {
namespace {

ConfigReader read_config(const std::filesystem::path& path) {
  if (!is_gguf(path)) return ConfigReader(path / "config.json");
  GgufConfig config = read_gguf_config(GgufModel(path));
  return ConfigReader(std::move(config.json), path.string(), std::move(config.keys));
}

// architectures[0] decides where it is given (it also says whether there is a language-model head); else model_type.
const Family& find_family(const ConfigReader& config) {
  const std::vector<std::string> architectures = config.texts("architectures");
  const bool by_architecture = !architectures.empty();
  const std::string wanted = by_architecture ? architectures[0] : config.text("model_type");
  std::string known;
  for (const Family& family : families()) {
    if (wanted == (by_architecture ? family.architecture : family.name)) return family;
    known += (known.empty() ? "" : ", ") + std::string(by_architecture ? family.architecture : family.name);
  }
  config.fail(by_architecture ? "architectures" : "model_type",
              fmt::format("is {}, which is not computed; these are: {}", in_quotes(wanted), known));
}

}  // namespace

std::unique_ptr<Model> Model::load(const std::filesystem::path& folder, ops::Ops& ops, const ModelOptions& options) {
  if (options.dtype != DType::kBF16 && options.dtype != DType::kF32)
    throw InputError(fmt::format("models run in BF16 or F32, not in {}", dtype_name(options.dtype)));
  const ConfigReader config = read_config(folder);
  const Family& family = find_family(config);
  reject_uncomputed_fields(config);
  LoadContext context{.folder = folder, .config = config, .model = {}, .ops = ops, .options = options};
  context.model.family = family.name;
  context.model.architecture = family.architecture;
  read_vocabulary(config, folder, context.model);
  return family.load(context);
}

}  // namespace tinyserve
