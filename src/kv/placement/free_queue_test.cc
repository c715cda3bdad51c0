#include <gtest/gtest.h>

#include "kv/page_pool.h"

namespace tinyserve {
namespace {

TEST(FreeQueue, TakesTheLongestFreeWhateverItsStateAndAppendsReleases) {
  PagePool pool(8, {.policy = "free_queue"});
  std::vector<PageRef> refs;
  ASSERT_TRUE(pool.allocate({.count = 6}, refs));
  for (int32_t page = 0; page < 6; ++page) ASSERT_EQ(refs[page].page(), page);
  for (int32_t page : {0, 1, 2}) pool.keep(page);
  for (int32_t page : {2, 5, 0, 1}) refs[page].reset();  // queue: 6 7 2 5 0 1
  pool.share(2);                                         // revived and given up again: now the most recent
  pool.forget(0);                                        // keeps its place
  std::vector<PageRef> next;
  ASSERT_TRUE(pool.allocate({.count = 6}, next));
  std::vector<int32_t> order;
  for (const PageRef& ref : next) order.push_back(ref.page());
  EXPECT_EQ(order, (std::vector<int32_t>{6, 7, 5, 0, 1, 2}));
}

}  // namespace
}  // namespace tinyserve
