// float16 by hand, for where the processor has no instruction for it, and for packing.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

inline float half_to_float(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
  float result;
  if (magnitude >= 0x7c00) {  // infinity, NaN
    const uint32_t bits = sign | 0x7f800000 | (magnitude << 13 & 0x7fffff);
    memcpy(&result, &bits, 4);
    return result;
  }
  // The exponent is off by 112, and the product also normalises subnormal numbers.
  const uint32_t bits = magnitude << 13;
  memcpy(&result, &bits, 4);
  result *= 0x1p112f;
  return sign ? -result : result;
}

inline uint16_t float_to_half(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return sign | 0x7e00;
  if (bits >= 0x477ff000) return sign | 0x7c00;  // rounds to infinity
  if (bits < 0x38800000) {                       // subnormal: float addition rounds at the right bit
    float magnitude;
    memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    memcpy(&bits, &magnitude, 4);
    return sign | (uint16_t)(bits - 0x3f000000);
  }
  bits += 0xfff + (bits >> 13 & 1);  // to nearest, ties to even
  return sign | (uint16_t)((bits >> 13) - (112 << 10));
}
