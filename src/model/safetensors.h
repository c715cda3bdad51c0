#pragma once
// The safetensors container: an 8-byte little-endian header length, a JSON header, then the tensors' bytes. Parsed from
// a span of bytes, so that hostile files can be tested without a disk. Nothing is allocated by a size the file claims
// before that size was compared with the file's own.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor_view.h"

namespace tinyserve {

/// The format's own limit on the header.
constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;
constexpr size_t kMaxTensorRank = 8;

/// One tensor as the header describes it; begin <= end <= file size.
struct SafetensorsEntry {
  std::string name;
  std::string dtype;  ///< as written: "F32", "BF16", "I64", ...; may be one that TinyServe cannot compute with
  Shape shape;        ///< dimensions >= 0; their product fits in int64
  size_t begin = 0;   ///< first byte, from the start of the file
  size_t end = 0;     ///< one past the last byte
};

/// Reads and checks the header of a whole file. Every entry lies inside the file, entries do not overlap, leave no
/// holes and end where the file ends (what the reference implementation demands too), names are unique, and for known
/// dtypes the bytes are exactly shape * dtype. Throws InputError naming `file`, and the tensor where one is at fault.
std::vector<SafetensorsEntry> parse_safetensors(std::span<const std::byte> bytes, std::string_view file);

}  // namespace tinyserve
