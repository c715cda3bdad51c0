#include "cli/selection_setup.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdlib>

#include "base/error.h"
#include "base/log.h"
#include "cli/calibration_text.h"
#include "cli/flags.h"
#include "cli/model_runtime.h"
#include "cli/progress.h"
#include "cli/weights_digest.h"
#include "model/calibration.h"
#include "select/policies.h"
#include "text/tokenizer.h"

namespace tinyserve::cli {
namespace {

namespace fs = std::filesystem;

constexpr int32_t kCalibrationTokens = 8192;
constexpr int kFit = 3;  // counts the ways maps were fitted here: what an older program kept is not taken

/// Empty when there is no folder to keep things in.
fs::path cache_folder() {
  const auto variable = [](const char* name) { return fs::path(std::getenv(name) ? std::getenv(name) : ""); };
  if (const fs::path cache = variable("XDG_CACHE_HOME"); cache.is_absolute()) return cache / "tinyserve";
  if (const fs::path home = variable("HOME"); home.is_absolute()) return home / ".cache" / "tinyserve";
  return {};
}

/// Where the maps that belong to a model lie: in its folder, or beside its GGUF file under that file's name.
fs::path beside(const fs::path& model) {
  std::error_code error;
  return fs::is_directory(model, error) ? model / "tinyserve_selection.json" : fs::path(model.string() + ".tinyserve_selection.json");
}

SelectionMaps fit(ModelRuntime& runtime) {
  const auto tokenizer = Tokenizer::load(runtime.folder());
  std::vector<int32_t> tokens = tokenizer->encode(kCalibrationText, true, false);
  if (tokens.size() > kCalibrationTokens) tokens.resize(kCalibrationTokens);
  Progress progress("tokens read to fit selection", static_cast<int64_t>(tokens.size()));
  SelectionMaps maps = calibrate(runtime.model(), runtime.ops(), tokens, kCalibrationTokens, [&](int32_t n) { progress.add(n); });
  progress.clear();
  return maps;
}

}  // namespace

void add_selection_flags(FlagGroup& group, SelectionConfig& config) {
  std::string help = "How answers attend to long contexts:";
  for (const Policy& p : policies())
    if (p.serves) help += fmt::format(" {} ({}),", p.name, p.help);
  help.pop_back();
  group.choice("--policy", policy_names(true), help, [&config](const std::string& v) { config.policy = v; })
      .number("--budget", config.budget, 1, 1 << 20, "Tokens that a policy reads exactly, per query and KV head, beside the first page and the newest")
      .decimal("--budget-share", config.budget_share, 0, 1, "Read this share of the context exactly instead; --coded grows with it", "off")
      .decimal("--top-p-mass", config.top_p, 0, 1, "tinyserve: of --budget tokens only the fewest best that have this share of the attention", "off")
      .decimal("--epsilon", config.epsilon, 0, 0.999, "tinyserve: move the budget so that this share of the attention, as audited, is estimated and not read", "off")
      .toggle("--audit", config.audit, "tinyserve: look up what one page and one token of each read weigh in truth, for the account in the answer")
      .decimal("--audit-dense", config.audit_dense, 0, 1, "tinyserve: recompute this share of (query, layer) densely to check the audit; slow", "none");
  add_selection_detail_flags(group, config);
}

void add_selection_detail_flags(FlagGroup& group, SelectionConfig& config) {
  group.number("--select-from", config.from, 0, 1 << 30, "Contexts of fewer tokens attend densely")
      .number("--coded", config.coded, 0, 1 << 20, "tinyserve: further tokens, per query and KV head, whose values are read as 3-bit codes")
      .toggle("--value-codes", config.value_codes, "tinyserve: keep codes of values (11% of K/V memory); without, --coded tokens' values are read as they are")
      .text("--selection-maps", config.maps_file, "FILE", "tinyserve: maps of the model's keys, made by `tinyserve learn`",
            "tinyserve_selection.json beside the model, or fitted once to a built-in text and kept in the cache folder");
}

EngineConfig engine_config_for(ModelRuntime& runtime, EngineConfig config) {
  config.maps = obtain_maps(runtime, config.selection.maps_file, find_policy(config.selection.policy).codes);
  return runtime.with_fingerprint(std::move(config));
}

std::shared_ptr<const SelectionMaps> obtain_maps(ModelRuntime& runtime, const std::string& file, bool needed) {
  if (!needed) return nullptr;
  const KvShape shape = runtime.model().kv_shape();
  const std::vector<bool> selectable = runtime.model().selectable_layers();
  std::error_code error;
  const auto load = [&](const fs::path& path) { return std::make_shared<const SelectionMaps>(SelectionMaps::load(path, shape, selectable)); };
  if (!file.empty()) return load(file);
  if (const fs::path path = beside(runtime.folder()); fs::exists(path, error)) return load(path);
  const std::string name = fmt::format("selection-{}.json", weights_digest(runtime.folder()));
  for (const fs::path& path : shipped_places(fs::path("models/selection") / name))
    if (fs::exists(path, error)) return load(path);
  fs::path cached = cache_folder();
  if (!cached.empty()) cached /= fmt::format("selection-{}-{}.json", weights_digest(runtime.folder()), kFit);
  if (!cached.empty() && fs::exists(cached, error)) try {
      return load(cached);
    } catch (const InputError& e) {  // of an older version, or damaged: made again
      log_warn(e.what());
    }
  auto maps = std::make_shared<const SelectionMaps>(fit(runtime));
  if (cached.empty()) return maps;
  try {
    fs::create_directories(cached.parent_path(), error);
    maps->save(cached);
  } catch (const InputError& e) {
    log_warn(fmt::format("maps of the model's keys will be fitted again next time: {}", e.what()));
  }
  return maps;
}

}  // namespace tinyserve::cli
