#include "model/row_split.h"

#include <gtest/gtest.h>

#include <numeric>

namespace tinyserve {
namespace {

// Sequences of (tokens in the cache, rows in the step, first sparse position).
struct Seq {
  int32_t kv_len, rows, from;
};
constexpr int32_t kNever = std::numeric_limits<int32_t>::max();

struct Case {
  explicit Case(const std::vector<Seq>& seqs) {
    cu.push_back(0);
    for (const Seq& s : seqs) {
      for (int32_t p = s.kv_len - s.rows; p < s.kv_len; ++p) positions.push_back(p);
      cu.push_back(static_cast<int32_t>(positions.size()));
      lens.push_back(s.kv_len);
      selections.push_back({.from = s.from, .exact = 7, .coded = 8});
    }
    slots.resize(positions.size());
    table.resize(seqs.size() * 3);
    split.reserve(static_cast<int64_t>(positions.size()), static_cast<int64_t>(seqs.size()));
    split.split({.num_seqs = static_cast<int32_t>(seqs.size()), .num_tokens = cu.back(), .cu_query_lens = cu.data(), .kv_lens = lens.data(),
                 .page_table = table.data(), .page_table_stride = 3, .positions = positions.data(), .slots = slots.data()},
                selections);
  }
  // "first row: rows of each sequence/its tokens" of each run.
  std::string runs() const {
    std::string out;
    for (const RowSplit::Run& r : split.runs()) {
      out += std::to_string(r.first_row) + ":";
      for (int32_t s = 0; s < r.layout.num_seqs; ++s)
        out += " " + std::to_string(r.layout.cu_query_lens[s + 1] - r.layout.cu_query_lens[s]) + "/" + std::to_string(r.layout.kv_lens[s]);
      EXPECT_EQ(r.layout.num_tokens, r.layout.cu_query_lens[r.layout.num_seqs]);
      EXPECT_EQ(r.layout.positions, positions.data() + r.first_row);
      out += "; ";
    }
    return out;
  }
  std::string rows() const {
    std::string out;
    for (const ops::SparseRow& r : split.rows()) {
      EXPECT_EQ(r.position, positions[static_cast<size_t>(r.row)]);
      EXPECT_EQ(r.exact, 7);
      out += std::to_string(r.row) + "@" + std::to_string(r.seq) + " ";
    }
    return out;
  }
  std::vector<int32_t> cu, lens, positions, table;
  std::vector<int64_t> slots;
  std::vector<SequenceSelection> selections;
  RowSplit split;
};

TEST(RowSplit, AllDenseIsOneRun) {
  const Case c({{30, 1, kNever}, {40, 40, kNever}, {9, 1, 100}});
  EXPECT_EQ(c.runs(), "0: 1/30 40/40 1/9; ");
  EXPECT_FALSE(c.split.any_sparse());
}

TEST(RowSplit, SparseRowsCutRuns) {
  const Case c({{30, 1, kNever}, {40, 1, 5}, {41, 1, 5}, {20, 4, kNever}, {8, 1, kNever}});
  EXPECT_EQ(c.runs(), "0: 1/30; 3: 4/20 1/8; ");
  EXPECT_EQ(c.rows(), "1@1 2@2 ");
}

// A preempted sequence comes back: its prompt is dense, the tokens it had generated are not.
TEST(RowSplit, ASequenceMayBeginDenseAndGoOnSparse) {
  const Case c({{30, 30, 25}, {10, 2, kNever}, {50, 3, 50}, {50, 3, 49}});
  EXPECT_EQ(c.runs(), "0: 25/25; 30: 2/10 3/50 2/49; ");
  EXPECT_EQ(c.rows(), "25@0 26@0 27@0 28@0 29@0 37@3 ");
}

TEST(RowSplit, IdleSequencesStayInTheirPlace) {
  const Case c({{30, 0, 3}, {10, 2, kNever}, {50, 0, 3}, {60, 1, kNever}, {60, 0, kNever}, {9, 1, 0}, {5, 0, 0}});
  EXPECT_EQ(c.runs(), "0: 2/10 0/50 1/60 0/60; ");
  EXPECT_EQ(c.rows(), "3@5 ");
}

}  // namespace
}  // namespace tinyserve
