// Where packed weights lie: panels of 16 rows; a panel's weights first, then its scales, 64 bytes aligned.
#pragma once
#include <cstdint>

#include "chatwright_kernels.h"

constexpr int PANEL = 16, GROUP = 32;

struct Layout {
  int64_t group_bytes;  // weights of a group of 32 columns x 16 rows
  int64_t scale_bytes;  // and its scales, minima included
};

inline Layout layout_of(int format) {
  switch (format) {
    case CW_F32: return {GROUP * PANEL * 4, 0};
    case CW_BF16: return {GROUP * PANEL * 2, 0};
    case CW_I8: return {GROUP * PANEL, PANEL * 2};
    case CW_I4: return {GROUP * PANEL / 2, PANEL * 2};
    case CW_I4M: return {GROUP * PANEL / 2, PANEL * 4};
    case CW_I4MF: return {GROUP * PANEL / 2, PANEL * 8};
  }
  return {0, 0};
}

inline int64_t groups_of(int64_t columns) { return (columns + GROUP - 1) / GROUP; }
inline int64_t panels_of(int64_t rows) { return (rows + PANEL - 1) / PANEL; }
inline int64_t panel_bytes(int format, int64_t columns) {
  const Layout l = layout_of(format);
  return (groups_of(columns) * (l.group_bytes + l.scale_bytes) + 63) / 64 * 64;
}
inline bool is_integer(int format) { return format >= CW_I8; }

// One row of packed weights as floats (pack.cpp).
void unpack_row(int format, const void *packed, int64_t columns, int64_t row, float *to);
