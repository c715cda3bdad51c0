#include "text/sentencepiece_model.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <optional>

#include "base/error.h"
#include "text/charsmap.h"

namespace tinyserve {
namespace {

class SentencePieceModel : public TokenModel {
 public:
  SentencePieceModel(std::string_view proto, std::string_view where) {
    const auto status = processor_.LoadFromSerializedProto({proto.data(), proto.size()});
    if (!status.ok()) throw InputError(fmt::format("{} is not a usable SentencePiece model: {}", where, status.ToString()));
  }

  void encode(std::string_view piece, EncodeScratch&, std::vector<int32_t>& out) const override {
    std::vector<int> ids;
    const auto status = processor_.Encode({piece.data(), piece.size()}, &ids);
    if (!status.ok()) throw InputError(fmt::format("SentencePiece cannot encode this text: {}", status.ToString()));
    out.insert(out.end(), ids.begin(), ids.end());
  }
  int32_t find(std::string_view token) const override {
    const int id = processor_.PieceToId({token.data(), token.size()});
    return has(id) && this->token(id) == token ? id : -1;
  }
  bool has(int32_t id) const override { return id >= 0 && id < id_end(); }
  std::string_view token(int32_t id) const override { return processor_.IdToPiece(id); }
  size_t size() const override { return processor_.GetPieceSize(); }
  int32_t id_end() const override { return processor_.GetPieceSize(); }
  const sentencepiece::SentencePieceProcessor& processor() const { return processor_; }

 private:
  sentencepiece::SentencePieceProcessor processor_;
};

// The library's ModelProto is not in its public headers, and the few fields we need are simple: a walk over protobuf's
// wire format (https://protobuf.dev/programming-guides/encoding). The library has checked the message before.
struct Field {
  uint32_t number;
  uint64_t value;          // of a varint
  std::string_view bytes;  // of a length-delimited field
};

std::optional<Field> next_field(std::string_view& data) {
  const auto varint = [&]() -> std::optional<uint64_t> {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && !data.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(data.front());
      data.remove_prefix(1);
      value |= uint64_t{byte & 127u} << shift;
      if (byte < 128) return value;
    }
    return std::nullopt;
  };
  if (data.empty()) return std::nullopt;
  const auto key = varint();
  if (!key) return std::nullopt;
  Field field{static_cast<uint32_t>(*key >> 3), 0, {}};
  size_t length = 0;
  switch (*key & 7) {
    case 0: {
      const auto value = varint();
      if (!value) return std::nullopt;
      field.value = *value;
      return field;
    }
    case 1: length = 8; break;
    case 5: length = 4; break;
    case 2: {
      const auto value = varint();
      if (!value) return std::nullopt;
      length = *value;
      break;
    }
    default: return std::nullopt;
  }
  if (length > data.size()) return std::nullopt;
  field.bytes = data.substr(0, length);
  data.remove_prefix(length);
  return field;
}

}  // namespace

SentencePieceFile load_sentencepiece(std::string_view proto, std::string_view where) {
  SentencePieceFile file;
  file.unknown_surface = " \xE2\x81\x87 ";  // " ⁇ ", the library's default
  // sentencepiece_model.proto: ModelProto.trainer_spec 2, normalizer_spec 3, denormalizer_spec 5;
  // TrainerSpec.unk_surface 44; NormalizerSpec.precompiled_charsmap 2, add_dummy_prefix 3.
  std::string_view rest = proto;
  while (const auto field = next_field(rest)) {
    if (field->number != 2 && field->number != 3 && field->number != 5) continue;
    std::string_view spec = field->bytes;
    while (const auto inner = next_field(spec)) {
      if (field->number == 2 && inner->number == 44) file.unknown_surface = inner->bytes;
      // The library follows a broken map out of bounds: ours is checked, so check it with ours.
      if (field->number != 2 && inner->number == 2 && !inner->bytes.empty())
        Charsmap(inner->bytes, fmt::format("{}: precompiled_charsmap", where));
      if (field->number == 3 && inner->number == 3) file.add_dummy_prefix = inner->value != 0;
    }
  }
  auto model = std::make_unique<SentencePieceModel>(proto, where);
  const auto& processor = model->processor();
  file.unk_id = processor.unk_id();
  file.bos_id = processor.bos_id();
  file.eos_id = processor.eos_id();
  file.pad_id = processor.pad_id();
  for (int id = 0; id < processor.GetPieceSize(); ++id)
    if (processor.IsControl(id)) file.control_ids.push_back(id);
  file.model = std::move(model);
  return file;
}

}  // namespace tinyserve
