#pragma once
#include <filesystem>
#include <string>

namespace tinyserve::cli {

/// Names what a model folder or GGUF file (with its shards) computes by its contents: 32 hexadecimal digits over
/// config.json and all bytes of the weights, wherever they lie. Reads them once, at the speed of the disk. Throws
/// InputError when a file cannot be read.
std::string weights_digest(const std::filesystem::path& model);

}  // namespace tinyserve::cli
