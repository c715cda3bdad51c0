// Nothing allocates in a step: counted by replacing operator new in this test program.

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "model/model_test_util.h"

namespace {
std::atomic<bool> counting{false};
std::atomic<int64_t> allocations{0};
}  // namespace

// noinline: the compiler would see malloc behind new and warn about delete.
[[gnu::noinline]] void* operator new(size_t size) {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* p = std::malloc(size ? size : 1)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace tinyserve {
namespace {

namespace fs = std::filesystem;
const fs::path kGoldenFolder = golden_folder();

std::vector<int32_t> some_tokens(int32_t count) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back(2 + i * 37 % 250);
  return tokens;
}

class AllocationTest : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Families, AllocationTest,
                         testing::Values("llama-yarn", "mistral", "qwen2", "qwen3", "gpt2", "opt", "opt-post-norm",
                                         "gemma2"));

TEST_P(AllocationTest, ForwardAllocatesNothing) {
  TestModel model(kGoldenFolder / GetParam(), "cpu", {.dtype = DType::kBF16});
  model.around_forward = [](bool begins) { counting = begins; };
  allocations = 0;
  model.step({{0, 0, some_tokens(60), {59}}, {1, 0, some_tokens(40), {}}, {2, 0, some_tokens(20), {0, 19}}});
  model.step({{0, 60, some_tokens(1), {0}}, {1, 40, some_tokens(30), {29}}, {2, 20, some_tokens(1), {0}}});
  EXPECT_EQ(allocations, 0);
}

TEST(AllocationCount, SeesThoseOfRef) {  // which makes no promise
  TestModel model(kGoldenFolder / "opt", "ref", {.dtype = DType::kBF16});
  model.around_forward = [](bool begins) { counting = begins; };
  allocations = 0;
  model.step({{0, 0, some_tokens(3), {2}}});
  EXPECT_GT(allocations, 0);
}

}  // namespace
}  // namespace tinyserve
