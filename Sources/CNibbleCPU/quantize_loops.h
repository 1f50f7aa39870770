// The loops of quantize_kernels.h in plain C, which compilers vectorize. Compiled once per instruction set by a file that
// defines TABLE (the name of the table) and turns its target on. Every step is a separately rounded float32 operation.
#pragma STDC FP_CONTRACT OFF

#include "codebooks.h"
#include "half.h"
#include "quantize_kernels.h"

static uint32_t magnitude_bits(const float *values, size_t count) {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; i++) {
    uint32_t magnitude = bits_of(values[i]) & 0x7FFFFFFF;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

/// CUDA's kernels flush denormals to zero.
static inline float flushed(float value) { return (bits_of(value) & 0x7FFFFFFF) < 0x00800000 ? 0.0f : value; }

static void encode_fp4(const float *values, size_t count, float inverse, uint8_t *codes) {
  for (size_t i = 0; i < count; i++) {
    float x = flushed(flushed(values[i]) * inverse);
    float magnitude = x < 0 ? -x : x;
    uint32_t interval = 0;
    for (int t = 0; t < 7; t++) interval += magnitude > nibble_fp4_thresholds[t];
    // Nibble i of the constant: the magnitude bits of the i-th interval.
    codes[i] = (uint8_t)((0x32547610u >> (4 * interval) & 7) | (x < 0 ? 8 : 0));
  }
}

static void encode_nf4(const float *values, size_t count, float inverse, uint8_t *codes) {
  for (size_t i = 0; i < count; i++) {
    float x = flushed(values[i]) * inverse;
    uint32_t code = 0;
    for (int t = 0; t < 15; t++) code += x > nibble_nf4_thresholds[t];
    codes[i] = (uint8_t)code;
  }
}

static void decode(const uint8_t *codes, size_t count, const float *table, float scale, float *out) {
  float scaled[16];
  for (int i = 0; i < 16; i++) scaled[i] = table[i] * scale;
  for (size_t i = 0; i + 2 <= count; i += 2) {
    out[i] = scaled[codes[i / 2] >> 4];
    out[i + 1] = scaled[codes[i / 2] & 15];
  }
  if (count & 1) out[count - 1] = scaled[codes[count / 2] >> 4];
}

static void round_int8(const float *values, size_t count, float factor, int8_t *out) {
  // Adding 1.5 × 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
  for (size_t i = 0; i < count; i++) out[i] = (int8_t)bits_of(values[i] * factor + 0x1.8p23f);
}

static void scale_int8(const int8_t *values, size_t count, float scale, float *out) {
  for (size_t i = 0; i < count; i++) out[i] = (float)values[i] * scale * 0x1.020408p-7f;
}

const quantize_kernels TABLE = {magnitude_bits, {encode_fp4, encode_nf4}, decode, round_int8, scale_int8};
