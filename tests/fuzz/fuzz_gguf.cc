// Any bytes are either a GGUF file whose tensors lie inside it and whose values can all be read, or an InputError.

#include <cstdint>
#include <cstdlib>
#include <span>

#include "base/error.h"
#include "model/gguf/gguf_file.h"

namespace {

using namespace tinyserve;

void expect(bool condition) {
  if (!condition) std::abort();
}

template <class Fn>
void read(Fn&& fn) {
  try {
    fn();
  } catch (const InputError& error) {
    expect(error.what()[0] != '\0');
  }
}

void read_tensor(std::span<const std::byte> bytes, const GgufTensor& tensor) {
  expect(tensor.begin <= tensor.end && tensor.end <= bytes.size() && tensor.shape.size() <= kMaxGgufDims);
  const std::byte* data = bytes.data() + tensor.begin;
  const size_t size = tensor.end - tensor.begin;
  if (tensor.dtype) {
    const TensorView view{.data = data, .dtype = *tensor.dtype, .shape = tensor.shape};
    expect(view.size_bytes() == size);
    std::vector<float> values(static_cast<size_t>(view.size()));
    view.read(0, view.size(), values.data());  // every element: the sanitizers see reads outside
  }
  if (tensor.blocks) {
    const BlockLayout layout = block_layout(*tensor.blocks);
    const int64_t blocks = num_elements(tensor.shape) / layout.values;
    expect(static_cast<size_t>(blocks * layout.bytes) == size);
    std::vector<float> values(static_cast<size_t>(blocks * layout.values));
    dequantize(*tensor.blocks, data, blocks, values.data());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  read([&] {
    const GgufFile file = parse_gguf(bytes, "fuzz.gguf");
    expect(file.metadata.size() <= kMaxGgufKeys && file.tensors.size() <= kMaxGgufTensors);
    size_t total = 0;
    for (const GgufTensor& tensor : file.tensors) {
      total += tensor.end - tensor.begin;
      read_tensor(bytes, tensor);
    }
    expect(total <= size);
    for (const char* key : {"general.architecture", "general.alignment", "tokenizer.ggml.tokens",
                            "tokenizer.ggml.scores", "tokenizer.ggml.token_type", "a.key", "b.key"}) {
      const GgufMetadata& m = file.metadata;
      if (!m.has(key)) continue;
      read([&] { m.get_integer(key, INT64_MIN, INT64_MAX); });
      read([&] { m.get_number(key, -1e300, 1e300); });
      read([&] { m.get_flag(key, false); });
      read([&] { expect(m.get_text(key).size() <= size); });
      read([&] { expect(m.get_texts(key).size() <= size); });
      read([&] { m.get_integers(key, INT64_MIN, INT64_MAX); });
      read([&] { m.get_floats(key); });
    }
  });
  return 0;
}
