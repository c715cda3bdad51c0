#pragma once
#include <cstdint>
#include <vector>

namespace tinyserve {

/// A = sum_i values[i] v_i v_i^T with orthonormal v_i, values falling.
struct SymmetricEigen {
  std::vector<double> values;   ///< [n]
  std::vector<double> vectors;  ///< [n, n], row i is v_i
};

/// Of a symmetric matrix a [n, n], by cyclic Jacobi rotations: exact to rounding, and n is a head's dimension.
SymmetricEigen symmetric_eigen(std::vector<double> a, int32_t n);

}  // namespace tinyserve
