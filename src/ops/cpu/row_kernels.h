#pragma once
// What the row-wise operations do to one row (or one piece of a row), as function pointers taken once for the chosen
// instruction set; cpu_ops.cc cuts the rows over threads. A row's result depends on nothing but the row: sums run in an
// order given by the width alone.

#include <cstdint>

#include "ops/ops.h"

namespace tinyserve::ops::cpu {

/// out[i] (+)= scale * F32(row[i]); `row` may be unaligned.
using EmbedRow = void (*)(const std::byte* row, DType dtype, int64_t width, float scale, bool accumulate, float* out);
/// out may be x.
using RmsNormRow = void (*)(const float* x, int64_t width, const float* weight, float eps, float* out);
/// out may be x; bias may be null.
using LayerNormRow = void (*)(const float* x, int64_t width, const float* weight, const float* bias, float eps, float* out);
/// out[i] = act(x[i]) * gate[i]; gate null: out[i] = act(x[i]). out may be x.
using ActivationRow = void (*)(Activation act, const float* x, const float* gate, int64_t width, float* out);
using AddRow = void (*)(float* x, const float* y, int64_t width);
using SoftcapRow = void (*)(float cap, float* x, int64_t width);
/// Token `t` of AppendArgs, whole: norms, rotation, conversion, store to `slot`.
using AppendToken = void (*)(const AppendArgs& args, int64_t t, int64_t slot);

EmbedRow embed_row();
RmsNormRow rms_norm_row();
LayerNormRow layer_norm_row();
ActivationRow activation_row();
AddRow add_row();
SoftcapRow softcap_row();
AppendToken append_token();

/// All of them; read under a ScopedIsa.
struct RowKernels {
  EmbedRow embed = embed_row();
  RmsNormRow rms_norm = rms_norm_row();
  LayerNormRow layer_norm = layer_norm_row();
  ActivationRow activation = activation_row();
  AddRow add = add_row();
  SoftcapRow softcap = softcap_row();
  AppendToken append = append_token();
};

}  // namespace tinyserve::ops::cpu
