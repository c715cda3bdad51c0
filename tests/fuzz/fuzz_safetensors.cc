// Any bytes are either a safetensors file whose entries lie inside it, or an InputError.

#include <cstdint>
#include <cstdlib>
#include <span>

#include "base/error.h"
#include "model/safetensors.h"

namespace {

void expect(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tinyserve;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    size_t total = 0;
    for (const SafetensorsEntry& entry : parse_safetensors(bytes, "fuzz.safetensors")) {
      expect(entry.begin >= 8 && entry.begin <= entry.end && entry.end <= size);
      expect(entry.shape.size() <= kMaxTensorRank);
      total += entry.end - entry.begin;
      for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
        if (entry.dtype != dtype_name(dtype)) continue;
        const TensorView view{.data = bytes.data() + entry.begin, .dtype = dtype, .shape = entry.shape};
        expect(view.size_bytes() == entry.end - entry.begin);
        std::vector<float> values(static_cast<size_t>(view.size()));
        view.read(0, view.size(), values.data());  // every element: the sanitizers see reads outside
      }
    }
    expect(total <= size);
  } catch (const InputError& error) {
    expect(error.what()[0] != '\0');
  }
  return 0;
}
