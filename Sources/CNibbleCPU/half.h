// Conversions between float32 and the 16-bit floats in plain C, for places without vector conversions.
#pragma once

#include <stdint.h>
#include <string.h>

static inline uint32_t nibble_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float nibble_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float nibble_bf16_to_f32(uint16_t half) { return nibble_from_bits((uint32_t)half << 16); }

/// Round to nearest, ties to even; a NaN stays a quiet NaN.
static inline uint16_t nibble_f32_to_bf16(float value) {
  uint32_t bits = nibble_bits(value);
  uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  uint32_t quiet = (bits >> 16) | 0x40;
  return (uint16_t)((bits & 0x7FFFFFFF) > 0x7F800000 ? quiet : rounded);
}

static inline float nibble_f16_to_f32(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000) << 16, magnitude = half & 0x7FFF;
  // Scaling by 2^112 moves the exponent's bias and makes denormals normal, exactly.
  float value = nibble_from_bits(magnitude << 13) * 0x1p112f;
  if (magnitude >= 0x7C00) value = nibble_from_bits(0x7F800000 | magnitude << 13);
  return nibble_from_bits(nibble_bits(value) | sign);
}

/// Round to nearest, ties to even; overflow gives infinity.
static inline uint16_t nibble_f32_to_f16(float value) {
  uint32_t bits = nibble_bits(value), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return (uint16_t)(sign | 0x7E00);
  if (magnitude >= 0x47800000) return (uint16_t)(sign | 0x7C00);  // 65536 and above
  if (magnitude < 0x38800000) {
    // Below 2^-14: adding 0.5 leaves the denormal's mantissa, rounded, in the low bits.
    return (uint16_t)(sign | (nibble_bits(nibble_from_bits(magnitude) + 0.5f) - 0x3F000000));
  }
  return (uint16_t)(sign | ((magnitude + 0xFFF + ((magnitude >> 13) & 1) - 0x38000000) >> 13));
}

static inline float nibble_round_to_bf16(float value) { return nibble_bf16_to_f32(nibble_f32_to_bf16(value)); }
static inline float nibble_round_to_f16(float value) { return nibble_f16_to_f32(nibble_f32_to_f16(value)); }

/// e4m3fn: no infinities, NaN is all ones.
static inline float nibble_f8_e4m3_to_f32(uint8_t code) {
  uint32_t sign = (uint32_t)(code & 0x80) << 24, size = code & 0x7F;
  if (size == 0x7F) return nibble_from_bits(sign | 0x7FC00000);
  if (size < 8) return nibble_from_bits(sign | nibble_bits((float)size * 0x1p-9f));
  return nibble_from_bits(sign | ((size << 20) + (120u << 23)));
}

/// e5m2 is the upper half of a binary16.
static inline float nibble_f8_e5m2_to_f32(uint8_t code) { return nibble_f16_to_f32((uint16_t)(code << 8)); }
