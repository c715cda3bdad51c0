#pragma once
#include <filesystem>

#include "server/config.h"

namespace tinyserve::cli {

/// What generation_config.json says about sampling: temperature, top_p, top_k, min_p, repetition_penalty; do_sample false
/// means greedy. Empty when there is no such file. Throws InputError naming the field that cannot be used.
DefaultSampling read_default_sampling(const std::filesystem::path& folder);

}  // namespace tinyserve::cli
