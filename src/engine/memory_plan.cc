#include "engine/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "base/error.h"
#include "select/policies.h"

namespace tinyserve {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

/// The number in a one-line file; kUnlimited when there is none ("max", no such file).
int64_t read_number(const std::string& path) {
  std::ifstream file(path);
  int64_t value;
  return file >> value ? value : kUnlimited;
}

/// `key: value kB` of /proc/meminfo, or `key value` of memory.stat, as it stands; 0 when missing.
int64_t read_field(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string word;
  int64_t value = 0;
  while (file >> word) {
    if (word == key && file >> value) return value;
  }
  return 0;
}

/// What is left under the limit of the process's control group. Page cache that can be dropped is not counted as taken.
int64_t control_group_left() {
  int64_t left = kUnlimited;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const bool v2 = line.starts_with("0::");
    if (!v2 && line.find(":memory:") == std::string::npos) continue;
    std::string folder = line.substr(line.find(':', line.find(':') + 1) + 1);
    const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    while (true) {  // limits of all ancestors hold; inside a container the own group may be the root
      const std::string at = root + (folder == "/" ? "" : folder);
      const int64_t limit = read_number(at + (v2 ? "/memory.max" : "/memory.limit_in_bytes"));
      const int64_t usage = read_number(at + (v2 ? "/memory.current" : "/memory.usage_in_bytes"));
      if (limit != kUnlimited && usage != kUnlimited)
        left = std::min(left, std::max<int64_t>(0, limit - usage + read_field(at + "/memory.stat", "inactive_file")));
      if (folder.empty() || folder == "/") break;
      folder.resize(folder.rfind('/'));
    }
  }
  return left;
}

}  // namespace

int64_t available_memory() {
  const int64_t system = read_field("/proc/meminfo", "MemAvailable:") * 1024;
  return std::min(system > 0 ? system : int64_t{1} << 30, control_group_left());
}

CodeShape code_shape(const EngineConfig& config) {
  if (!find_policy(config.selection.policy).codes || !config.maps) return {};
  return {.layers = config.maps->coded_layers(), .values = config.selection.value_codes};
}

MemoryPlan plan_memory(const KvShape& shape, int32_t model_max_positions, int64_t weight_bytes,
                       const EngineConfig& config, int64_t available_bytes, const CodeShape& codes) {
  if (config.page_size < 1 || config.page_size > 256)
    throw InputError(fmt::format("page size must be between 1 and 256 tokens, got {}", config.page_size));
  if (config.max_running < 1 || config.max_running > 65536)
    throw InputError(
        fmt::format("the number of running sequences must be between 1 and 65536, got {}", config.max_running));
  if (config.max_context < 0 || config.kv_bytes < 0 || config.num_pages < 0)
    throw InputError("sizes of context and KV memory must not be negative");
  if (config.max_context > model_max_positions)
    throw InputError(fmt::format("a context of {} tokens is more than the {} this model was made for",
                                 config.max_context, model_max_positions));
  MemoryPlan plan;
  plan.weight_bytes = weight_bytes;
  plan.available_bytes = available_bytes;
  plan.kv_token_bytes = shape.token_bytes();
  plan.code_page_bytes = codes.page_bytes(shape);
  plan.kv_page_bytes = plan.kv_token_bytes * config.page_size + plan.code_page_bytes;
  const int64_t context = config.max_context > 0 ? config.max_context : model_max_positions;
  const int64_t pages_per_request = (context + config.page_size - 1) / config.page_size;
  int64_t pages = config.num_pages;
  if (pages == 0 && config.kv_bytes > 0) pages = config.kv_bytes / plan.kv_page_bytes;
  if (pages == 0 && config.kv_bytes == 0) {
    const int64_t comfortable = std::max((int64_t{4} << 30) / plan.kv_page_bytes, 2 * pages_per_request);
    const int64_t left = std::max<int64_t>(0, available_bytes - config.tiers.host_bytes);
    pages = std::min({config.max_running * pages_per_request, comfortable, left / 2 / plan.kv_page_bytes});
  }
  if (pages < 1)
    throw InputError(
        fmt::format("KV memory for one page of {} tokens is {} bytes; there is less. Give the cache more memory "
                    "or free some",
                    config.page_size, plan.kv_page_bytes));
  if (pages > std::numeric_limits<int32_t>::max() / config.page_size)
    throw InputError(fmt::format("a KV cache of {} pages is more than can be addressed; ask for less", pages));
  if (config.max_context > 0 && pages < pages_per_request)
    throw InputError(
        fmt::format("a context of {} tokens needs {} bytes of KV memory, but the cache has {} ({} tokens); ask for "
                    "a shorter context or more memory",
                    config.max_context, pages_per_request * plan.kv_page_bytes, pages * plan.kv_page_bytes,
                    pages * config.page_size));
  plan.num_pages = static_cast<int32_t>(pages);
  plan.kv_bytes = pages * plan.kv_page_bytes;
  plan.kv_tokens = pages * config.page_size;
  plan.max_context = static_cast<int32_t>(std::min(context, plan.kv_tokens));
  return plan;
}

}  // namespace tinyserve
