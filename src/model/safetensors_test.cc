#include "model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"

namespace tinyserve {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::vector<std::byte> file_of(uint64_t claimed, std::string_view header, size_t data_bytes) {
  std::vector<std::byte> bytes(8 + header.size() + data_bytes);
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>(claimed >> (8 * i));
  std::memcpy(bytes.data() + 8, header.data(), header.size());
  return bytes;
}

std::vector<SafetensorsEntry> parse(std::string_view header, size_t data_bytes) {
  const std::vector<std::byte> bytes = file_of(header.size(), header, data_bytes);
  return parse_safetensors(bytes, "bad.safetensors");
}

template <class Fn>
std::string error_of(Fn&& fn) {
  try {
    fn();
  } catch (const InputError& e) {
    return e.what();
  }
  return "no error";
}

std::string error_of(std::string_view header, size_t data_bytes) {
  return error_of([&] { parse(header, data_bytes); });
}

TEST(Safetensors, ReadsWhatIsThere) {
  const auto entries = parse(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
      R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"none":{"dtype":"I64","shape":[0,7],"data_offsets":[16,16]}}   )",
      16);
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].name, "b");
  EXPECT_EQ(entries[0].dtype, "BF16");
  EXPECT_EQ(entries[0].shape, (Shape{2, 3}));
  EXPECT_EQ(entries[0].end - entries[0].begin, 12u);
  EXPECT_EQ(entries[1].end, entries[0].begin);
  EXPECT_EQ(entries[2].shape, (Shape{0, 7}));
}

TEST(Safetensors, AcceptsAnEmptyModel) { EXPECT_TRUE(parse("{}", 0).empty()); }

TEST(Safetensors, AcceptsADtypeFromTheFuture) {  // it cannot be computed with, but other tensors can
  EXPECT_EQ(parse(R"({"a":{"dtype":"F3","shape":[8],"data_offsets":[0,3]}})", 3).size(), 1u);
}

TEST(Safetensors, RejectsFilesThatAreTooShort) {
  for (size_t size = 0; size < 8; ++size) {
    const std::vector<std::byte> bytes(size);
    EXPECT_THAT(error_of([&] { parse_safetensors(bytes, "short.safetensors"); }),
                AllOf(HasSubstr("short.safetensors"), HasSubstr("too few")));
  }
}

TEST(Safetensors, RejectsHeaderLengthsBeyondTheFile) {
  for (const uint64_t claimed : {uint64_t{1} << 60, ~uint64_t{0}, ~uint64_t{0} - 7, kMaxSafetensorsHeader + 1}) {
    const auto bytes = file_of(claimed, "{}", 0);
    EXPECT_THAT(error_of([&] { parse_safetensors(bytes, "bad.safetensors"); }),
                AllOf(HasSubstr("bad.safetensors"), HasSubstr("limit")));
  }
  for (const uint64_t claimed : {uint64_t{3}, kMaxSafetensorsHeader}) {
    const auto bytes = file_of(claimed, "{}", 0);
    EXPECT_THAT(error_of([&] { parse_safetensors(bytes, "bad.safetensors"); }),
                AllOf(HasSubstr("bad.safetensors"), HasSubstr("truncated")));
  }
}

TEST(Safetensors, RejectsHeadersThatAreNotJson) {
  const std::string deep = std::string(100'000, '[');
  const std::string deep_objects = [] {
    std::string s;
    for (int i = 0; i < 50'000; ++i) s += R"({"a":)";
    return s;
  }();
  for (const std::string& header :
       {std::string(""), std::string("{"), std::string("{\"a\":}"), std::string("{} {}"), std::string("{}\0", 3),
        std::string("{\"\xff\xfe\":1}"), std::string("[1]"), std::string("1"), std::string("null"),
        std::string("\"a\""), std::string("true"), deep, deep_objects})
    EXPECT_THAT(error_of(header, 0), HasSubstr("bad.safetensors")) << header.substr(0, 40);
}

struct Hostile {
  const char* what;
  const char* header;
  size_t data_bytes;
  const char* message;
};

TEST(Safetensors, RejectsHostileEntriesNamingTensorAndFile) {
  const Hostile kCases[] = {
      {"listed twice",
       R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
       2, "twice"},
      {"field twice", R"({"w":{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,1]}})", 1, "'dtype' twice"},
      {"no dtype", R"({"w":{"shape":[1],"data_offsets":[0,1]}})", 1, "no 'dtype'"},
      {"no shape", R"({"w":{"dtype":"U8","data_offsets":[0,1]}})", 1, "no 'shape'"},
      {"no offsets", R"({"w":{"dtype":"U8","shape":[1]}})", 1, "no 'data_offsets'"},
      {"unknown field", R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"stride":[1]}})", 1, "unknown field"},
      {"one offset", R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1, "two data_offsets"},
      {"three offsets", R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 1, "two data_offsets"},
      {"negative offset", R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}})", 1, "negative data offset"},
      {"negative dimension", R"({"w":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1, "negative dimension"},
      {"fraction", R"({"w":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", 1, "whole number"},
      {"offset of 2^70", R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1180591620717411303424]}})", 1,
       "whole number"},
      {"backwards", R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", 1, "before it begins"},
      {"beyond the file", R"({"w":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})", 8, "truncated"},
      {"offset of 2^64-1",
       R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551615,18446744073709551615]}})", 8,
       "truncated"},
      {"wrong size", R"({"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,8]}})", 8, "takes 16 bytes"},
      {"shape overflow", R"({"w":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,8]}})", 8,
       "63 bits"},
      {"overflow behind a zero",
       R"({"w":{"dtype":"F32","shape":[0,1099511627776,1099511627776],"data_offsets":[0,0]}})", 0, "63 bits"},
      {"overflow of bytes", R"({"w":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0,
       "63 bits"},
      {"dimension of 2^63", R"({"w":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,0]}})", 0,
       "dimension"},
      {"nine dimensions", R"({"w":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1,
       "8 dimensions"},
      {"overlap",
       R"({"v":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"w":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})",
       7, "overlap"},
      {"same place",
       R"({"v":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
       4, "overlap"},
      {"hole",
       R"({"v":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"w":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}})",
       5, "before tensor 'w' belong to no tensor"},
      {"half a byte", R"({"w":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1, "whole byte"},
      {"a list", R"({"w":[1,2]})", 0, "array"},
      {"a number", R"({"w":3})", 0, "number"},
      {"null", R"({"w":null})", 0, "null"},
      {"nested object", R"({"w":{"dtype":{"a":1},"shape":[1],"data_offsets":[0,1]}})", 1, "object"},
      {"nested list", R"({"w":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1, "array"},
      {"string as shape", R"({"w":{"dtype":"U8","shape":"1","data_offsets":[0,1]}})", 1, "string"},
      {"number as dtype", R"({"w":{"dtype":5,"shape":[1],"data_offsets":[0,1]}})", 1, "number"},
  };
  for (const Hostile& c : kCases)
    EXPECT_THAT(error_of(c.header, c.data_bytes),
                AllOf(HasSubstr("bad.safetensors"), HasSubstr("'w'"), HasSubstr(c.message)))
        << c.what;
}

TEST(Safetensors, RejectsBytesThatBelongToNoTensor) {
  EXPECT_THAT(error_of(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 3), HasSubstr("2 bytes after"));
}

TEST(Safetensors, RejectsMetadataThatIsNotText) {
  EXPECT_THAT(error_of(R"({"__metadata__":{"a":1}})", 0), HasSubstr("__metadata__"));
  EXPECT_THAT(error_of(R"({"__metadata__":{"a":{"b":"c"}}})", 0), HasSubstr("__metadata__"));
  EXPECT_NE(error_of(R"({"__metadata__":"a"})", 0), "no error");
}

TEST(Safetensors, MessagesShowHostileNamesSafely) {
  const std::string name = "\\u001b[31m" + std::string(10'000, 'x');
  const std::string message = error_of("{\"" + name + "\":3}", 0);
  EXPECT_EQ(message.find('\x1b'), std::string::npos);
  EXPECT_LT(message.size(), 500u);
  EXPECT_THAT(message, HasSubstr("\\x1b"));
}

}  // namespace
}  // namespace tinyserve
