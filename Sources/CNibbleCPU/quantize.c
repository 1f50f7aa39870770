// FP4, NF4, nested scales and row-wise int8. Every step is a separately rounded float32 operation, as in the reference.
#pragma STDC FP_CONTRACT OFF

#include "nibble_quantize.h"

#include <string.h>

#include "codebooks.h"
#include "half.h"
#include "nibble_dispatch.h"
#include "simd.h"

enum { LARGEST_BLOCK = 4096, CHUNK = 1024, NESTED_BLOCK = 256 };

typedef struct {
  typeof(nibble_quantize_4bit) *quantize_4bit;
  typeof(nibble_dequantize_4bit) *dequantize_4bit;
  typeof(nibble_quantize_int8) *quantize_int8;
  typeof(nibble_dequantize_int8) *dequantize_int8;
} quantize_kernels;

#define NIBBLE_SUFFIX _generic
#define F16C 0
#include "quantize_template.h"

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target(NIBBLE_TARGET_AVX2))), apply_to = function)
#define NIBBLE_SUFFIX _avx2
#define F16C 1
#include "quantize_template.h"
#pragma clang attribute pop
#endif

static const quantize_kernels *kernels = &kernels_generic;

void nibble_quantize_select(uint32_t features) {
  kernels = &kernels_generic;
#if defined(__x86_64__)
  if (features & NIBBLE_FEATURE_AVX2) kernels = &kernels_avx2;
#endif
}

ptrdiff_t nibble_quantize_4bit(const void *source, nibble_float type, size_t first, size_t count, size_t block_size,
                               nibble_codebook codebook, uint8_t *codes, float *absmax) {
  return kernels->quantize_4bit(source, type, first, count, block_size, codebook, codes, absmax);
}

void nibble_dequantize_4bit(const uint8_t *codes, const float *absmax, size_t first, size_t count, size_t block_size,
                            nibble_codebook codebook, nibble_float type, void *destination) {
  kernels->dequantize_4bit(codes, absmax, first, count, block_size, codebook, type, destination);
}

ptrdiff_t nibble_quantize_int8(const void *source, nibble_float type, size_t rows, size_t K, int8_t *values, float *scales) {
  return kernels->quantize_int8(source, type, rows, K, values, scales);
}

void nibble_dequantize_int8(const int8_t *values, const float *scales, size_t rows, size_t K, nibble_float type,
                            void *destination) {
  kernels->dequantize_int8(values, scales, rows, K, type, destination);
}

// MARK: Nested scales (few values: plain C does)

/// The nearest entry of the dynamic map; x on a midpoint takes the even index.
static uint8_t nearest_in_map(float x) {
  const float *map = nibble_dynamic_values;
  if (!(x > map[0])) return 0;
  int low = 0, high = 255;  // map[low] <= x, and x < map[high] or high is the last
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (map[middle] <= x) low = middle;
    else high = middle;
  }
  float midpoint = (map[low] + map[high]) * 0.5f;
  if (x == midpoint) return (uint8_t)(low & 1 ? high : low);
  return (uint8_t)(x < midpoint ? low : high);
}

float nibble_quantize_scales(const float *absmax, size_t count, uint8_t *codes, float *nested_absmax) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += absmax[i];
  float offset = count ? (float)(sum / (double)count) : 0;
  for (size_t start = 0; start < count; start += NESTED_BLOCK) {
    size_t end = start + NESTED_BLOCK < count ? start + NESTED_BLOCK : count;
    float largest = 0;
    for (size_t i = start; i < end; i++) {
      float difference = absmax[i] - offset, magnitude = difference < 0 ? -difference : difference;
      largest = magnitude > largest ? magnitude : largest;
    }
    if (largest < 0x1p-126f) largest = 0;
    nested_absmax[start / NESTED_BLOCK] = largest;
    float inverse = largest > 0 ? 1.0f / largest : 0;
    for (size_t i = start; i < end; i++) codes[i] = largest > 0 ? nearest_in_map((absmax[i] - offset) * inverse) : 0;
  }
  return offset;
}

void nibble_dequantize_scales(const uint8_t *codes, const float *nested_absmax, float offset, size_t first, size_t count,
                              float *absmax) {
  for (size_t i = 0; i < count; i++) {
    float scaled = nibble_dynamic_values[codes[first + i]] * nested_absmax[(first + i) / NESTED_BLOCK];
    absmax[i] = scaled + offset;
  }
}
