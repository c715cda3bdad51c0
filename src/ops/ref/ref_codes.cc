#include "ops/ref/ref_codes.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tinyserve::ops::ref {
namespace {

// A group of 4 axes x 16 tokens. part(token, axis) gives the bits.
template <class Part>
uint8_t* write_group(int32_t bits, uint8_t* to, Part&& part) {
  for (int32_t t = 0; t < kCodePage; ++t) {
    uint32_t word = 0;
    for (int32_t j = 0; j < 4; ++j) word |= static_cast<uint32_t>(part(t, j)) << (bits * j);
    if (bits == 2) to[t] = static_cast<uint8_t>(word);
    if (bits == 4) to[2 * t] = static_cast<uint8_t>(word), to[2 * t + 1] = static_cast<uint8_t>(word >> 8);
  }
  return to + 8 * bits;
}

int32_t read_part(int32_t bits, const uint8_t* group, int32_t t, int32_t j) {
  return bits == 2 ? group[t] >> (2 * j) & 3 : group[2 * t + j / 2] >> (4 * (j % 2)) & 15;
}

float largest(const float* x) {
  float m = 0;
  for (int32_t i = 0; i < 16; ++i) m = std::max(m, std::abs(x[i]));
  return m;
}

// The scale as it is kept, so that a code is chosen for what will be read.
BFloat16 scale_for(const float* x, float half) { return to_bfloat16(largest(x) / half); }

int32_t code(float x, float scale, float half) {
  if (scale == 0) return static_cast<int32_t>(half + 0.5f);
  return static_cast<int32_t>(std::clamp(std::nearbyint(x / scale + half), 0.0f, 2 * half));
}

}  // namespace

void write_key_codes(const HeadBits& bits, int32_t head_dim, const float* u, uint8_t* coarse, uint8_t* fine) {
  std::fill_n(coarse, coarse_bytes(head_dim), uint8_t{0});
  std::fill_n(fine, fine_bytes(head_dim), uint8_t{0});
  for (int32_t g = 0; g < head_dim / 4; ++g) {
    const auto whole = [&](int32_t t, int32_t j) { return code_of(u[t * head_dim + 4 * g + j]); };
    const auto upper = [&](int32_t t, int32_t j) { return whole(t, j) >> 2; };
    const auto lower = [&](int32_t t, int32_t j) { return whole(t, j) & 3; };
    const int32_t c = bits.coarse(g), f = bits.fine(g);
    if (c == 4) coarse = write_group(4, coarse, whole);
    if (c == 2) coarse = write_group(2, coarse, upper);
    if (c == 2 && f == 4) fine = write_group(2, fine, lower);
    if (c == 0 && f == 2) fine = write_group(2, fine, upper);
    if (c == 0 && f == 4) fine = write_group(4, fine, whole);
  }
}

void read_key_codes(const HeadBits& bits, int32_t head_dim, const uint8_t* coarse, const uint8_t* fine, int8_t* levels) {
  for (int32_t g = 0; g < head_dim / 4; ++g) {
    const int32_t c = bits.coarse(g), f = fine ? bits.fine(g) : c;
    for (int32_t t = 0; t < kCodePage; ++t)
      for (int32_t j = 0; j < 4; ++j) {
        int8_t& level = levels[t * head_dim + 4 * g + j];
        level = 0;
        if (f == 0) continue;
        if (f == 2) level = kLevels2[read_part(2, c == 2 ? coarse : fine, t, j)];
        else if (c == 2) level = kLevels4[read_part(2, coarse, t, j) << 2 | read_part(2, fine, t, j)];
        else level = kLevels4[read_part(4, c == 4 ? coarse : fine, t, j)];
      }
    coarse += 8 * c;
    if (f > c) fine += 8 * (f - c);
  }
}

void write_mean(int32_t head_dim, const float* mean, uint8_t* to) {
  uint8_t* scales = to + head_dim / 2;
  for (int32_t b = 0; b < head_dim / 16; ++b) {
    const BFloat16 scale = scale_for(mean + 16 * b, 7.5f);
    for (int32_t i = 0; i < 8; ++i) {
      const int32_t low = code(mean[16 * b + i], to_float(scale), 7.5f);
      const int32_t high = code(mean[16 * b + 8 + i], to_float(scale), 7.5f);
      to[8 * b + i] = static_cast<uint8_t>(low | high << 4);
    }
    std::memcpy(scales + 2 * b, &scale.bits, 2);
  }
}

void read_mean(int32_t head_dim, const uint8_t* from, float* mean) {
  for (int32_t b = 0; b < head_dim / 16; ++b) {
    BFloat16 scale;
    std::memcpy(&scale.bits, from + head_dim / 2 + 2 * b, 2);
    for (int32_t i = 0; i < 16; ++i) {
      const int32_t nibble = from[8 * b + i % 8] >> (i < 8 ? 0 : 4) & 15;
      mean[16 * b + i] = (static_cast<float>(nibble) - 7.5f) * to_float(scale);
    }
  }
}

void write_value(int32_t head_dim, const float* value, uint64_t* to) {
  for (int32_t b = 0; b < head_dim / 16; ++b) {
    const BFloat16 scale = scale_for(value + 16 * b, 3.5f);
    to[b] = uint64_t{scale.bits} << 48;
    for (int32_t i = 0; i < 16; ++i)
      to[b] |= static_cast<uint64_t>(code(value[16 * b + i], to_float(scale), 3.5f)) << (3 * i);
  }
}

void read_value(int32_t head_dim, const uint64_t* from, float* value) {
  for (int32_t b = 0; b < head_dim / 16; ++b) {
    const float scale = to_float(BFloat16{static_cast<uint16_t>(from[b] >> 48)});
    for (int32_t i = 0; i < 16; ++i) value[16 * b + i] = (static_cast<float>(from[b] >> (3 * i) & 7) - 3.5f) * scale;
  }
}

}  // namespace tinyserve::ops::ref
