#pragma once
#include <span>
#include <vector>

#include "ops/ops.h"

namespace tinyserve {

/// Dense attention of some rows of a batch, for policies that leave a layer as it is.
class DenseRows {
 public:
  /// Writes the rows of args.out that `rows` name, as Ops::attention does.
  void attend(ops::Ops& ops, const ops::AttentionArgs& args, const ops::BatchLayout& batch,
              std::span<const ops::SparseRow> rows);

 private:
  void attend_run(ops::Ops& ops, ops::AttentionArgs args, const ops::BatchLayout& batch,
                  std::span<const ops::SparseRow> rows);

  std::vector<int32_t> table_, cu_, lens_, positions_;
};

}  // namespace tinyserve
