// 16- and 8-bit floats in integer arithmetic.
#pragma once

#include <stdint.h>
#include <string.h>

static inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

static inline float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static inline float half_to_float(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000) << 16, size = half & 0x7FFF;
  if (size >= 0x7C00) return float_of(sign | 0x7F800000 | (size & 0x3FF) << 13);
  if (size >= 0x400) return float_of(sign | ((size << 13) + (112u << 23)));
  float magnitude = (float)size * 0x1p-24f;
  return float_of(sign | bits_of(magnitude));
}

// To nearest, ties to even.
static inline uint16_t float_to_half(float value) {
  uint32_t bits = bits_of(value), size = bits & 0x7FFFFFFF;
  uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
  if (size > 0x7F800000) return sign | 0x7E00 | (uint16_t)(size >> 13 & 0x3FF);
  if (size >= 0x477FF000) return sign | 0x7C00;
  if (size < 0x38800000) {
    // Subnormal: in a sum near 0.5 the last bit weighs 2⁻²⁴, as a subnormal half's does.
    float aligned = float_of(size) + 0.5f;
    return sign | (uint16_t)(bits_of(aligned) - 0x3F000000);
  }
  size += 0xFFF + (size >> 13 & 1);
  return sign | (uint16_t)((size - (112u << 23)) >> 13);
}

static inline float bfloat_to_float(uint16_t bfloat) { return float_of((uint32_t)bfloat << 16); }

static inline uint16_t float_to_bfloat(float value) {
  uint32_t bits = bits_of(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// e4m3fn: no infinities, NaN is all ones.
static inline float float8_e4m3_to_float(uint8_t code) {
  uint32_t sign = (uint32_t)(code & 0x80) << 24, size = code & 0x7F;
  if (size == 0x7F) return float_of(sign | 0x7FC00000);
  if (size < 8) return float_of(sign | bits_of((float)size * 0x1p-9f));
  return float_of(sign | ((size << 20) + (120u << 23)));
}

// e5m2 is the upper half of a binary16.
static inline float float8_e5m2_to_float(uint8_t code) { return half_to_float((uint16_t)(code << 8)); }
