// Rows of floats or of GGUF blocks become panels, and back. Runs once for each model, so plainly.
#include <algorithm>
#include <vector>

#include "halves.h"
#include "layout.h"

namespace {

// A group of 32 weights of one row.
struct Group {
  uint8_t q[GROUP];  // I8: weight + 128; I4*: 0..15
  float scale = 0, minimum = 0;
  float x[GROUP];    // F32, BF16
};

uint16_t to_bfloat(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// The error of 16 levels from `low` in steps of `step`.
float error_of(const float *x, float low, float step) {
  float error = 0;
  for (int i = 0; i < GROUP; i++) {
    const float q = std::min(15.0f, std::max(0.0f, nearbyintf((x[i] - low) / step)));
    const float e = low + q * step - x[i];
    error += e * e;
  }
  return error;
}

void quantise(int format, Group &g) {
  const float *x = g.x;
  if (format == CW_I8) {
    float most = 0;
    for (int i = 0; i < GROUP; i++) most = std::max(most, fabsf(x[i]));
    g.scale = half_to_float(float_to_half(most / 127));
    for (int i = 0; i < GROUP; i++) {
      const float q = g.scale > 0 ? nearbyintf(x[i] / g.scale) : 0;
      g.q[i] = (uint8_t)(128 + std::min(127.0f, std::max(-127.0f, q)));
    }
    return;
  }
  // Four bits: the range that leaves the least squared error, of a few around the full one.
  float least = *std::min_element(x, x + GROUP), most = *std::max_element(x, x + GROUP), best_error = INFINITY;
  if (format == CW_I4) {
    const float extreme = fabsf(least) > fabsf(most) ? least : most;
    float best = extreme / -8;
    for (int k = 0; k < 16 && extreme != 0; k++) {
      const float step = half_to_float(float_to_half(extreme / -8 * (1.06f - 0.02f * (float)k)));
      if (step == 0) continue;
      const float error = error_of(x, -8 * step, step);
      if (error < best_error) best_error = error, best = step;
    }
    g.scale = half_to_float(float_to_half(best)), g.minimum = 0;
    for (int i = 0; i < GROUP; i++) {
      const float q = g.scale != 0 ? nearbyintf(x[i] / g.scale) + 8 : 8;
      g.q[i] = (uint8_t)std::min(15.0f, std::max(0.0f, q));
    }
    return;
  }
  least = std::min(least, most);
  float best_low = least, best_step = 0;
  for (int k = 0; k < 16 && most > least; k++) {
    const float shrink = 0.02f * (float)k * 0.5f, range = most - least;
    float low = least + shrink * range, step = (range - 2 * shrink * range) / 15;
    if (format == CW_I4M) low = half_to_float(float_to_half(low)), step = half_to_float(float_to_half(step));
    if (step == 0) continue;
    const float error = error_of(x, low, step);
    if (error < best_error) best_error = error, best_low = low, best_step = step;
  }
  if (format == CW_I4M) best_low = half_to_float(float_to_half(best_low)), best_step = half_to_float(float_to_half(best_step));
  g.scale = best_step, g.minimum = best_low;
  for (int i = 0; i < GROUP; i++) {
    const float q = best_step != 0 ? nearbyintf((x[i] - best_low) / best_step) : 0;
    g.q[i] = (uint8_t)std::min(15.0f, std::max(0.0f, q));
  }
}

uint16_t read_half(const uint8_t *p) {
  uint16_t h;
  memcpy(&h, p, 2);
  return h;
}

// Group `index` of a row; columns past the end are zero.
Group read_group(int format, int source, const uint8_t *row, int64_t index, int64_t columns) {
  Group g;
  switch (source) {
    case CW_FROM_Q4_0:
    case CW_FROM_Q4_1: {
      const bool has_minimum = source == CW_FROM_Q4_1;
      const uint8_t *block = row + index * (has_minimum ? 20 : 18);
      g.scale = half_to_float(read_half(block));
      if (has_minimum) g.minimum = half_to_float(read_half(block + 2));
      block += has_minimum ? 4 : 2;
      for (int i = 0; i < 16; i++) g.q[i] = block[i] & 15, g.q[i + 16] = block[i] >> 4;
      return g;
    }
    case CW_FROM_Q4_K: {
      const uint8_t *block = row + index / 8 * 144, *packed = block + 4;
      const int64_t j = index % 8;
      const int scale = j < 4 ? packed[j] & 63 : (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
      const int minimum = j < 4 ? packed[j + 4] & 63 : packed[j + 4] >> 4 | packed[j] >> 6 << 4;
      g.scale = half_to_float(read_half(block)) * (float)scale, g.minimum = -half_to_float(read_half(block + 2)) * (float)minimum;
      const uint8_t *q = block + 16 + j / 2 * 32;
      for (int i = 0; i < GROUP; i++) g.q[i] = j % 2 ? q[i] >> 4 : q[i] & 15;
      return g;
    }
    case CW_FROM_Q8_0: {
      const uint8_t *block = row + index * 34;
      g.scale = half_to_float(read_half(block));
      for (int i = 0; i < GROUP; i++) g.q[i] = (uint8_t)((int8_t)block[2 + i] + 128);
      return g;
    }
    default: {
      const float *x = (const float *)row + index * GROUP;
      for (int i = 0; i < GROUP; i++) g.x[i] = index * GROUP + i < columns ? x[i] : 0;
      if (is_integer(format)) quantise(format, g);
      return g;
    }
  }
}

void write_group(int format, const Group &g, int lane, uint8_t *weights, uint8_t *scales) {
  if (format == CW_F32 || format == CW_BF16) {
    for (int i = 0; i < GROUP; i++) {
      if (format == CW_F32) ((float *)weights)[i * PANEL + lane] = g.x[i];
      else ((uint16_t *)weights)[i * PANEL + lane] = to_bfloat(g.x[i]);
    }
    return;
  }
  for (int i = 0; i < GROUP; i++) {
    if (format == CW_I8) {
      weights[i / 4 * 64 + lane * 4 + i % 4] = g.q[i];
    } else {  // columns 8c..8c+3 in the low halves of 64 bytes, 8c+4..8c+7 in the high ones
      uint8_t &byte = weights[i / 8 * 64 + lane * 4 + i % 4];
      byte = i % 8 < 4 ? (uint8_t)((byte & 0xf0) | g.q[i]) : (uint8_t)((byte & 0x0f) | g.q[i] << 4);
    }
  }
  if (format == CW_I4MF) {
    ((float *)scales)[lane] = g.scale, ((float *)scales)[PANEL + lane] = g.minimum;
    return;
  }
  ((uint16_t *)scales)[lane] = float_to_half(g.scale);
  if (format == CW_I4M) ((uint16_t *)scales)[PANEL + lane] = float_to_half(g.minimum);
}

}  // namespace

int64_t cw_packed_bytes(int format, int64_t rows, int64_t columns) { return panels_of(rows) * panel_bytes(format, columns); }

int cw_pack(int format, int source, const void *from, int64_t row_bytes, int64_t rows, int64_t columns, void *packed) {
  const bool fits = source == CW_FROM_F32 || (source == CW_FROM_Q8_0 && format == CW_I8) ||
                    (source == CW_FROM_Q4_0 && format == CW_I4) ||
                    (source == CW_FROM_Q4_1 && (format == CW_I4M || format == CW_I4MF)) || (source == CW_FROM_Q4_K && format == CW_I4MF);
  if (!fits || format < CW_F32 || format > CW_I4MF) return 1;
  if (source != CW_FROM_F32 && columns % (source == CW_FROM_Q4_K ? 256 : GROUP)) return 1;
  const Layout l = layout_of(format);
  const int64_t n_groups = groups_of(columns);
  memset(packed, 0, (size_t)cw_packed_bytes(format, rows, columns));
  for (int64_t r = 0; r < panels_of(rows) * PANEL; r++) {
    uint8_t *panel = (uint8_t *)packed + r / PANEL * panel_bytes(format, columns);
    for (int64_t i = 0; i < n_groups; i++) {
      uint8_t *weights = panel + i * l.group_bytes, *scales = panel + n_groups * l.group_bytes + i * l.scale_bytes;
      if (r < rows) write_group(format, read_group(format, source, (const uint8_t *)from + r * row_bytes, i, columns), (int)(r % PANEL), weights, scales);
    }
  }
  return 0;
}

void unpack_row(int format, const void *packed, int64_t columns, int64_t row, float *to) {
  const Layout l = layout_of(format);
  const int64_t n_groups = groups_of(columns);
  const uint8_t *panel = (const uint8_t *)packed + row / PANEL * panel_bytes(format, columns);
  const int lane = (int)(row % PANEL);
  for (int64_t k = 0; k < columns; k++) {
    const int64_t i = k / GROUP, j = k % GROUP;
    const uint8_t *weights = panel + i * l.group_bytes, *scales = panel + n_groups * l.group_bytes + i * l.scale_bytes;
    const uint16_t *halves = (const uint16_t *)scales;
    const float *floats = (const float *)scales;
    if (format == CW_F32) {
      to[k] = ((const float *)weights)[j * PANEL + lane];
    } else if (format == CW_BF16) {
      const uint32_t bits = (uint32_t)((const uint16_t *)weights)[j * PANEL + lane] << 16;
      memcpy(&to[k], &bits, 4);
    } else if (format == CW_I8) {
      to[k] = (float)(weights[j / 4 * 64 + lane * 4 + j % 4] - 128) * half_to_float(halves[lane]);
    } else {
      const uint8_t byte = weights[j / 8 * 64 + lane * 4 + j % 4];
      const int q = j % 8 < 4 ? byte & 15 : byte >> 4;
      if (format == CW_I4) to[k] = (float)(q - 8) * half_to_float(halves[lane]);
      else if (format == CW_I4M) to[k] = (float)q * half_to_float(halves[lane]) + half_to_float(halves[PANEL + lane]);
      else to[k] = (float)q * floats[lane] + floats[PANEL + lane];
    }
  }
}

void cw_unpack(int format, const void *packed, int64_t rows, int64_t columns, float *to) {
  for (int64_t r = 0; r < rows; r++) unpack_row(format, packed, columns, r, to + r * columns);
}
