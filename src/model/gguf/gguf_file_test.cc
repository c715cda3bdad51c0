#include "model/gguf/gguf_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/error.h"
#include "model/gguf/gguf_model.h"
#include "model/gguf/gguf_test_util.h"

namespace tinyserve {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint32_t kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4K = 12, kIq4Xs = 23;

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

template <class Fn>
std::string error_from(Fn&& fn) {
  try {
    fn();
  } catch (const InputError& e) {
    return e.what();
  }
  return "no error";
}

std::string error_of(const std::string& file) {
  return error_from([&] { parse_gguf(bytes_of(file), "bad.gguf"); });
}

TEST(Gguf, ReadsEveryTypeOfMetadata) {
  GgufBuilder b;
  b.raw_key("a.u8", GgufType::kUint8, GgufBuilder::number(uint8_t{200}));
  b.raw_key("a.i8", GgufType::kInt8, GgufBuilder::number(int8_t{-3}));
  b.raw_key("a.u16", GgufType::kUint16, GgufBuilder::number(uint16_t{60000}));
  b.raw_key("a.i16", GgufType::kInt16, GgufBuilder::number(int16_t{-300}));
  b.u32("a.u32", 4'000'000'000u);
  b.raw_key("a.i32", GgufType::kInt32, GgufBuilder::number(int32_t{-70000}));
  b.raw_key("a.u64", GgufType::kUint64, GgufBuilder::number(uint64_t{1} << 40));
  b.raw_key("a.i64", GgufType::kInt64, GgufBuilder::number(int64_t{-1} << 40));
  b.f32("a.f32", 1.5f);
  b.raw_key("a.f64", GgufType::kFloat64, GgufBuilder::number(1e300));
  b.flag("a.yes", true).flag("a.no", false).text("a.text", "h\xC3\xA9llo").text("a.empty", "");
  b.texts("a.texts", {"x", "", "yz"});
  b.numbers<float>("a.floats", GgufType::kFloat32, {1, -2});
  b.numbers<int16_t>("a.shorts", GgufType::kInt16, {1, -2, 3});
  b.array("a.nested", GgufType::kArray, 2,
          GgufBuilder::number(uint32_t{0}) + GgufBuilder::number(uint64_t{1}) + "A" + GgufBuilder::number(uint32_t{8}) +
              GgufBuilder::number(uint64_t{1}) + GgufBuilder::string("text"));
  const std::string file = b.build();
  const GgufMetadata m = parse_gguf(bytes_of(file), "f.gguf").metadata;
  EXPECT_EQ(m.size(), 18u);
  EXPECT_EQ(m.get_integer("a.u8", 0, 255), 200);
  EXPECT_EQ(m.get_integer("a.i8", -9, 9), -3);
  EXPECT_EQ(m.get_integer("a.u16", 0, 99999), 60000);
  EXPECT_EQ(m.get_integer("a.i16", -999, 0), -300);
  EXPECT_EQ(m.get_integer("a.u32", 0, INT64_MAX), 4'000'000'000);
  EXPECT_EQ(m.get_integer("a.i32", -99999, 0), -70000);
  EXPECT_EQ(m.get_integer("a.u64", 0, INT64_MAX), int64_t{1} << 40);
  EXPECT_EQ(m.get_integer("a.i64", INT64_MIN, 0), -(int64_t{1} << 40));
  EXPECT_EQ(m.get_number("a.f32", 0, 2), 1.5);
  EXPECT_EQ(m.get_number("a.f64", 0, 1e301), 1e300);
  EXPECT_EQ(m.get_number("a.u8", 0, 255), 200);
  EXPECT_TRUE(m.get_flag("a.yes", false));
  EXPECT_FALSE(m.get_flag("a.no", true));
  EXPECT_TRUE(m.get_flag("a.missing", true));
  EXPECT_EQ(m.get_text("a.text"), "h\xC3\xA9llo");
  EXPECT_EQ(m.get_text("a.empty"), "");
  EXPECT_EQ(m.get_text("a.missing", "other"), "other");
  EXPECT_EQ(m.get_integer("a.missing", 0, 1, 7), 7);
  EXPECT_THAT(m.get_texts("a.texts"), ElementsAre("x", "", "yz"));
  EXPECT_THAT(m.get_floats("a.floats"), ElementsAre(1.0f, -2.0f));
  EXPECT_THAT(m.get_integers("a.shorts", -5, 5), ElementsAre(1, -2, 3));
  EXPECT_TRUE(m.has("a.nested"));
}

TEST(Gguf, NamesTheKeyOfAWrongValue) {
  GgufBuilder b;
  b.u32("a.n", 9).text("a.t", "x").f32("a.nan", std::nanf("")).texts("a.ts", {"x"});
  b.raw_key("a.huge", GgufType::kUint64, GgufBuilder::number(UINT64_MAX));
  const std::string file = b.build();
  const GgufMetadata m = parse_gguf(bytes_of(file), "f.gguf").metadata;
  EXPECT_EQ(error_from([&] { m.get_integer("a.n", 0, 8); }), "f.gguf: 'a.n' must be from 0 to 8, but is 9");
  EXPECT_EQ(error_from([&] { m.get_integer("a.none", 0, 8); }), "f.gguf: 'a.none' is missing");
  EXPECT_EQ(error_from([&] { m.get_integer("a.t", 0, 8); }),
            "f.gguf: 'a.t' must be a whole number, but is of type string");
  EXPECT_THAT(error_from([&] { m.get_integer("a.huge", 0, INT64_MAX); }), HasSubstr("but is 18446744073709551615"));
  EXPECT_THAT(error_from([&] { m.get_number("a.nan", 0, 8); }), HasSubstr("'a.nan' must be from 0 to 8"));
  EXPECT_THAT(error_from([&] { m.get_number("a.ts", 0, 8); }),
              HasSubstr("'a.ts' must be a number, but is an array of string"));
  EXPECT_THAT(error_from([&] { m.get_flag("a.n", false); }),
              HasSubstr("'a.n' must be true or false, but is of type uint32"));
  EXPECT_THAT(error_from([&] { m.get_text("a.n"); }), HasSubstr("'a.n' must be a string"));
  EXPECT_THAT(error_from([&] { m.get_texts("a.n"); }), HasSubstr("'a.n' must be an array"));
  EXPECT_THAT(error_from([&] { m.get_floats("a.ts"); }), HasSubstr("'a.ts' must be an array of float32"));
  EXPECT_THAT(error_from([&] { m.get_integers("a.ts", 0, 1); }), HasSubstr("'a.ts' must be an array of whole numbers"));
}

TEST(Gguf, ReadsTheDirectory) {
  GgufBuilder b;
  b.tensor("weights", {2, 32}, kQ4_0, std::string(36, 'q')).tensor("bias", {3}, kF32, std::string(12, 'f'));
  b.tensor("other", {1, 256}, kIq4Xs, std::string(136, 'i'))
      .tensor("none", {0, 4}, kF16, "")
      .tensor("scalar", {}, kF32, "abcd");
  const std::string file = b.build();
  const GgufFile gguf = parse_gguf(bytes_of(file), "f.gguf");
  ASSERT_EQ(gguf.tensors.size(), 5u);
  const auto data_of = [&](const GgufTensor& t) { return file.substr(t.begin, t.end - t.begin); };
  EXPECT_EQ(gguf.tensors[0].name, "weights");
  EXPECT_EQ(gguf.tensors[0].shape, (Shape{2, 32}));
  EXPECT_EQ(gguf.tensors[0].blocks, BlockFormat::kQ4_0);
  EXPECT_EQ(data_of(gguf.tensors[0]), std::string(36, 'q'));
  EXPECT_EQ(gguf.tensors[1].dtype, DType::kF32);
  EXPECT_EQ(data_of(gguf.tensors[1]), std::string(12, 'f'));
  EXPECT_EQ(gguf.tensors[2].type_name, "IQ4_XS");
  EXPECT_FALSE(gguf.tensors[2].dtype || gguf.tensors[2].blocks);
  EXPECT_EQ(data_of(gguf.tensors[2]), std::string(136, 'i'));
  EXPECT_EQ(data_of(gguf.tensors[3]), "");
  EXPECT_EQ(data_of(gguf.tensors[4]), "abcd");
}

TEST(Gguf, ReadsAnotherAlignmentAndVersion2) {
  GgufBuilder b;
  b.alignment = 128;
  b.version = 2;
  b.u32("general.alignment", 128).tensor("a", {1}, kF32, "aaaa").tensor("b", {1}, kF32, "bbbb");
  const std::string file = b.build();
  const GgufFile gguf = parse_gguf(bytes_of(file), "f.gguf");
  EXPECT_EQ(file.substr(gguf.tensors[1].begin, 4), "bbbb");
  EXPECT_EQ(gguf.tensors[1].begin % 128, 0u);
}

TEST(Gguf, ReadsAnEmptyFileOfNothing) {
  const std::string file = GgufBuilder().build();
  EXPECT_TRUE(parse_gguf(bytes_of(file), "f.gguf").tensors.empty());
}

TEST(GgufHostile, Header) {
  EXPECT_THAT(error_of(std::string()), AllOf(HasSubstr("bad.gguf: the header"), HasSubstr("truncated")));
  EXPECT_THAT(error_of(std::string("GGML0000")), HasSubstr("this is no GGUF file"));
  GgufBuilder b;
  b.version = 1;
  EXPECT_THAT(error_of(b.build()), HasSubstr("GGUF version 1; 2 and 3 are read"));
  b.version = 0x03000000;
  EXPECT_THAT(error_of(b.build()), HasSubstr("big-endian"));
}

TEST(GgufHostile, CountsOfTwoToTheSixty) {
  GgufBuilder keys, tensors;
  keys.claimed_keys = int64_t{1} << 60;
  EXPECT_THAT(error_of(keys.u32("a", 1).build()), HasSubstr("claims 1152921504606846976 metadata keys"));
  tensors.claimed_tensors = int64_t{1} << 60;
  EXPECT_THAT(error_of(tensors.u32("a", 1).build()), HasSubstr("claims 1152921504606846976 tensors"));
  for (const GgufType element : {GgufType::kUint8, GgufType::kString, GgufType::kFloat64, GgufType::kArray})
    EXPECT_THAT(error_of(GgufBuilder().array("a.list", element, uint64_t{1} << 60, "").build()),
                AllOf(HasSubstr("metadata key 'a.list' claims an array of 1152921504606846976 elements")));
}

TEST(GgufHostile, AMillionKeys) {
  GgufBuilder b;
  for (int i = 0; i < 1'000'000; ++i) b.flag(std::to_string(i), true);
  EXPECT_EQ(error_of(b.build()), "bad.gguf: the header claims 1000000 metadata keys; this file can have at most 65536");
}

TEST(GgufHostile, FilesThatEndEarly) {
  GgufBuilder b;
  b.text("a.text", "0123456789")
      .texts("a.list", {"x", "y"})
      .u32("a.n", 1)
      .flag("a.f", true)
      .tensor("t", {2, 32}, kQ4_0, std::string(36, 'q'));
  const std::string file = b.build();
  for (size_t size = 0; size < file.size(); ++size)
    EXPECT_THAT(error_of(file.substr(0, size)), HasSubstr("bad.gguf: ")) << size;
  EXPECT_EQ(error_of(file), "no error");
}

TEST(GgufHostile, StringsThatRunPastTheEnd) {
  const std::string endless = GgufBuilder::number(uint64_t{1} << 62) + "abc";
  EXPECT_THAT(error_of(GgufBuilder().raw_key("a.text", GgufType::kString, endless).build()),
              HasSubstr("metadata key 'a.text' is or holds a string of 4611686018427387904 bytes"));
  EXPECT_THAT(error_of(GgufBuilder().array("a.list", GgufType::kString, 1, endless).build()),
              HasSubstr("metadata key 'a.list' is or holds a string of 4611686018427387904 bytes"));
  GgufBuilder name;
  name.claimed_keys = 1;
  EXPECT_THAT(error_of(name.build() + endless + std::string(99, 'x')),
              HasSubstr("the name of metadata key 0 is or holds a string"));
}

TEST(GgufHostile, Keys) {
  EXPECT_THAT(error_of(GgufBuilder().u32("a.twice", 1).u32("a.twice", 2).build()),
              HasSubstr("metadata key 'a.twice' is there twice"));
  EXPECT_THAT(error_of(GgufBuilder().raw_key("a.odd", static_cast<GgufType>(13), "1234").build()),
              HasSubstr("metadata key 'a.odd' has the type 13"));
  EXPECT_THAT(error_of(GgufBuilder().array("a.odd", static_cast<GgufType>(99), 1, "1").build()),
              HasSubstr("metadata key 'a.odd' has the type 99"));
  EXPECT_THAT(error_of(GgufBuilder().raw_key("a.flag", GgufType::kBool, "\x02").build()),
              HasSubstr("'a.flag' holds the truth value 2"));
  EXPECT_THAT(error_of(GgufBuilder().array("a.flags", GgufType::kBool, 2, std::string("\0\x03", 2)).build()),
              HasSubstr("'a.flags' holds the truth value 3"));
  EXPECT_THAT(error_of(GgufBuilder().u32("", 1).u32("b", 1).build()),
              HasSubstr("the name of metadata key 0 has 0 bytes"));
  EXPECT_THAT(error_of(GgufBuilder().u32(std::string(70'000, 'k'), 1).build()),
              HasSubstr("the name of metadata key 0 has 70000 bytes"));
  for (const uint32_t alignment : {0u, 3u, 48u, 1u << 30})
    EXPECT_THAT(error_of(GgufBuilder().u32("general.alignment", alignment).build()), HasSubstr("'general.alignment'"))
        << alignment;
  std::string nested;
  for (int i = 0; i < 100; ++i) nested += GgufBuilder::number(uint32_t{9}) + GgufBuilder::number(uint64_t{1});
  EXPECT_THAT(error_of(GgufBuilder().array("a.deep", GgufType::kArray, 1, nested).build()),
              HasSubstr("'a.deep' nests arrays more than 4 deep"));
}

TEST(GgufHostile, Tensors) {
  const auto one = [](const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    return error_of(GgufBuilder().entry("t", dims, type, offset).data(256).build());
  };
  EXPECT_EQ(one({32, 2}, kQ4_0, 0), "no error");
  EXPECT_THAT(one({32, 2}, 4, 0), HasSubstr("tensor 't' has the type 4, which is not known"));
  EXPECT_THAT(one({32, 2}, 0xffffffffu, 0), HasSubstr("tensor 't' has the type 4294967295"));
  EXPECT_THAT(one({33, 2}, kQ4_0, 0), HasSubstr("tensor 't' has rows of 33 numbers, which are not whole blocks of 32"));
  EXPECT_THAT(one({128, 2}, kQ4K, 0), HasSubstr("rows of 128 numbers, which are not whole blocks of 256"));
  EXPECT_THAT(one({1, 1, 1, 1, 1}, kF32, 0), HasSubstr("tensor 't' has 5 dimensions"));
  EXPECT_THAT(one({uint64_t{1} << 60, 2}, kF32, 0), HasSubstr("tensor 't' has the shape"));
  EXPECT_THAT(one({uint64_t{1} << 60, 64}, kQ4_0, 0), HasSubstr("tensor 't' has the shape"));
  EXPECT_THAT(one({0, uint64_t{1} << 60, uint64_t{1} << 60}, kF32, 0), HasSubstr("tensor 't' has the shape"));
  EXPECT_THAT(one({UINT64_MAX}, kF32, 0), HasSubstr("tensor 't' has a dimension of"));
  EXPECT_THAT(one({64}, kF32, 32), HasSubstr("tensor 't' reaches to byte 288 of the data, but the file has only 256"));
  EXPECT_THAT(one({1}, kF32, uint64_t{1} << 60), HasSubstr("tensor 't' reaches to byte"));
  EXPECT_THAT(one({64}, kF32, UINT64_MAX - 31),
              HasSubstr("tensor 't' begins at 18446744073709551584, outside the file"));
  EXPECT_THAT(one({1}, kF32, 4), HasSubstr("tensor 't' begins at 4, which is no multiple"));
  EXPECT_THAT(error_of(GgufBuilder().entry("a", {16}, kF32, 0).entry("b", {1}, kF32, 32).data(99).build()),
              HasSubstr("tensors 'a' and 'b' overlap"));
  EXPECT_THAT(error_of(GgufBuilder().entry("a", {1}, kF32, 0).entry("a", {1}, kF32, 32).data(99).build()),
              HasSubstr("tensor 'a' is there twice"));
  EXPECT_THAT(error_of(GgufBuilder().entry("", {1}, kF32, 0).data(99).build()),
              HasSubstr("the name of tensor 0 has 0 bytes"));
  GgufBuilder endless;
  endless.claimed_tensors = 1;
  EXPECT_THAT(error_of(endless.build() + GgufBuilder::number(uint64_t{1} << 40) + std::string(99, 'x')),
              HasSubstr("the name of tensor 0 is or holds a string"));
}

class GgufShards : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("gguf_shards_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static GgufBuilder shard(uint16_t no, uint16_t count, int32_t tensors) {
    GgufBuilder b;
    b.raw_key("split.no", GgufType::kUint16, GgufBuilder::number(no))
        .raw_key("split.count", GgufType::kUint16, GgufBuilder::number(count));
    b.raw_key("split.tensors.count", GgufType::kInt32, GgufBuilder::number(tensors));
    return b;
  }
  std::string write(const std::string& name, const GgufBuilder& b) {
    std::ofstream(folder_ / name, std::ios::binary) << b.build();
    return (folder_ / name).string();
  }
  std::string error(const std::string& path) {
    return error_from([&] { GgufModel model(path); });
  }
  fs::path folder_;
};

TEST_F(GgufShards, AreOneModel) {
  const std::string first = write("m-00001-of-00002.gguf", shard(0, 2, 2).u32("a.n", 5).tensor("t", {1}, kF32, "tttt"));
  EXPECT_THAT(error(first), AllOf(HasSubstr("first of 2 shards"), HasSubstr("m-00002-of-00002.gguf is missing")));
  const std::string second = write("m-00002-of-00002.gguf", shard(1, 2, 2).tensor("u", {1}, kF32, "uuuu"));
  const GgufModel model(first);
  EXPECT_EQ(model.num_files(), 2u);
  EXPECT_EQ(model.metadata().get_integer("a.n", 0, 9), 5);
  const GgufTensor& u = model.tensors(1)[0];
  EXPECT_EQ(u.name, "u");
  EXPECT_EQ(std::memcmp(model.mapped(1).bytes().data() + u.begin, "uuuu", 4), 0);
  EXPECT_THAT(error(second), AllOf(HasSubstr("shard 2 of 2"), HasSubstr("name the first, m-00001-of-00002.gguf")));
}

TEST_F(GgufShards, ThatDoNotFitTogether) {
  const std::string first = write("m-00001-of-00002.gguf", shard(0, 2, 2).tensor("t", {1}, kF32, "tttt"));
  write("m-00002-of-00002.gguf", shard(1, 2, 2).tensor("t", {1}, kF32, "uuuu"));
  EXPECT_THAT(error(first), HasSubstr("tensor 't' is in another shard, too"));
  write("m-00002-of-00002.gguf", shard(1, 3, 2).tensor("u", {1}, kF32, "uuuu"));
  EXPECT_THAT(error(first), HasSubstr("says it is another shard than its name"));
  write("m-00002-of-00002.gguf", shard(1, 2, 2));
  EXPECT_THAT(error(first), HasSubstr("'split.tensors.count' is 2, but the shards hold 1"));
  EXPECT_THAT(error(write("renamed.gguf", shard(0, 2, 2))), HasSubstr("its name must end in -00001-of-00002.gguf"));
  EXPECT_THAT(error(write("m-00003-of-00002.gguf", shard(2, 2, 2))), HasSubstr("'split.no' must be from 0 to 1"));
}

TEST_F(GgufShards, AFileIsKnownByItsNameOrItsFirstBytes) {
  EXPECT_TRUE(is_gguf(write("model.bin", GgufBuilder())));
  std::ofstream(folder_ / "empty.gguf");
  EXPECT_TRUE(is_gguf(folder_ / "empty.gguf"));
  std::ofstream(folder_ / "text.bin") << "GG";
  EXPECT_FALSE(is_gguf(folder_ / "text.bin"));
  EXPECT_FALSE(is_gguf(folder_));
  EXPECT_FALSE(is_gguf(folder_ / "missing.gguf"));
}

}  // namespace
}  // namespace tinyserve
