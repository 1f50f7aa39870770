// FP4, NF4, nested scales and row-wise int8. Every step is a separately rounded float32 operation, as in bitsandbytes.
#pragma STDC FP_CONTRACT OFF

#include "../include/nibble_quantize.h"

#include <string.h>

#include "../formats/codebooks.h"
#include "../formats/half.h"
#include "../include/nibble_operations.h"
#include "../kernels.h"

enum { LARGEST_BLOCK = 4096, CHUNK = 1024, NESTED_BLOCK = 256, NON_FINITE = 0x7F800000 };

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static const void *element(const void *source, int32_t dtype, size_t index) {
  return (const char *)source + index * nibble_dtype_size(dtype);
}

static size_t first_non_finite(const float *values, size_t count) {
  size_t i = 0;
  while (i < count && (bits_of(values[i]) & 0x7FFFFFFF) < NON_FINITE) i++;
  return i;
}

// MARK: 4 bits

/// bitsandbytes' CUDA kernels flush denormals to zero.
static float flushed(float value) { return value < 0x1p-126f ? 0 : value; }

ptrdiff_t nibble_quantize_4bit(const nibble_kernels *kernels, const void *source, int32_t dtype, size_t first, size_t count,
                               size_t block_size, nibble_codebook codebook, uint8_t *codes, float *absmax) {
  float values[LARGEST_BLOCK];
  uint8_t unpacked[LARGEST_BLOCK + 1];
  for (size_t start = first, end = first + count; start < end; start += block_size) {
    size_t length = smaller(block_size, end - start);
    nibble_widen(kernels, dtype, element(source, dtype, start), values, length);
    uint32_t bits = kernels->quantize->magnitude_bits(values, length);
    if (bits >= NON_FINITE) return (ptrdiff_t)(start + first_non_finite(values, length));
    float scale = flushed(float_of(bits));
    absmax[start / block_size] = scale;
    // The inverse is zero for a block of zeros and for an absmax above 2^126; then every value gets the code of zero.
    float inverse = scale > 0 ? flushed(1 / scale) : 0;
    kernels->quantize->encode[codebook](values, length, inverse, unpacked);
    if (length & 1) unpacked[length] = codebook == NIBBLE_NF4 ? 7 : 0;
    uint8_t *packed = codes + start / 2;
    for (size_t i = 0; i < (length + 1) / 2; i++) packed[i] = (uint8_t)(unpacked[2 * i] << 4 | unpacked[2 * i + 1]);
  }
  return -1;
}

void nibble_expand_4bit(const nibble_kernels *kernels, const uint8_t *codes, const float *absmax, size_t first, size_t count,
                        size_t block_size, nibble_codebook codebook, float *out) {
  const float *table = nibble_codebook_values(codebook);
  for (size_t i = first, end = first + count; i < end;) {
    float scale = absmax[i / block_size];
    if (i & 1) {
      *out++ = table[codes[i / 2] & 15] * scale;
      i++;
      continue;
    }
    size_t length = smaller(block_size - i % block_size, end - i);
    kernels->quantize->decode(codes + i / 2, length, table, scale, out);
    i += length;
    out += length;
  }
}

void nibble_dequantize_4bit(const nibble_kernels *kernels, const uint8_t *codes, const float *absmax, size_t first, size_t count,
                            size_t block_size, nibble_codebook codebook, int32_t dtype, void *destination) {
  float values[CHUNK];
  for (size_t done = 0; done < count; done += CHUNK) {
    size_t length = smaller(CHUNK, count - done);
    nibble_expand_4bit(kernels, codes, absmax, first + done, length, block_size, codebook, values);
    nibble_narrow(kernels, dtype, values, (char *)destination + done * nibble_dtype_size(dtype), length);
  }
}

// MARK: int8

void nibble_round_floats(const nibble_kernels *kernels, float *values, size_t count, int32_t dtype) {
  uint16_t narrow[CHUNK];
  for (size_t start = 0; dtype != nibble_float32 && start < count; start += CHUNK) {
    size_t length = smaller(CHUNK, count - start);
    nibble_narrow(kernels, dtype, values + start, narrow, length);
    nibble_widen(kernels, dtype, narrow, values + start, length);
  }
}

static void load_halves(const nibble_kernels *kernels, const void *source, int32_t dtype, size_t first, size_t count,
                        float *out) {
  nibble_widen(kernels, dtype, element(source, dtype, first), out, count);
  if (dtype != nibble_float16) nibble_round_floats(kernels, out, count, nibble_float16);
}

ptrdiff_t nibble_quantize_int8(const nibble_kernels *kernels, const void *source, int32_t dtype, size_t rows, size_t K,
                               int8_t *values, float *scales) {
  float chunk[CHUNK];
  for (size_t row = 0; row < rows; row++) {
    uint32_t bits = 0;
    for (size_t k = 0; k < K; k += CHUNK) {
      size_t length = smaller(CHUNK, K - k);
      load_halves(kernels, source, dtype, row * K + k, length, chunk);
      uint32_t largest = kernels->quantize->magnitude_bits(chunk, length);
      if (largest >= NON_FINITE) return (ptrdiff_t)(row * K + k + first_non_finite(chunk, length));
      bits = largest > bits ? largest : bits;
    }
    // bitsandbytes multiplies by the reciprocal; a division would round differently.
    float scale = float_of(bits), factor = scale > 0 ? 127 * (1 / scale) : 0;
    scales[row] = scale;
    for (size_t k = 0; k < K; k += CHUNK) {
      size_t length = smaller(CHUNK, K - k);
      load_halves(kernels, source, dtype, row * K + k, length, chunk);
      kernels->quantize->round_int8(chunk, length, factor, values + row * K + k);
    }
  }
  return -1;
}

void nibble_dequantize_int8(const nibble_kernels *kernels, const int8_t *values, const float *scales, size_t rows, size_t K,
                            int32_t dtype, void *destination) {
  float chunk[CHUNK];
  for (size_t row = 0; row < rows; row++) {
    for (size_t k = 0; k < K; k += CHUNK) {
      size_t length = smaller(CHUNK, K - k), first = row * K + k;
      kernels->quantize->scale_int8(values + first, length, scales[row], chunk);
      nibble_narrow(kernels, dtype, chunk, (char *)destination + first * nibble_dtype_size(dtype), length);
    }
  }
}

// MARK: Nested scales, which are few: plain C suffices

/// The nearest entry of the dynamic map; x on a midpoint takes the even index.
static uint8_t nearest_in_map(float x) {
  const float *map = nibble_dynamic_values;
  if (!(x > map[0])) return 0;
  int low = 0, high = 255;  // map[low] <= x, and x < map[high] or high is the last
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (map[middle] <= x)
      low = middle;
    else
      high = middle;
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
  if (!nested_absmax) {
    for (size_t i = 0; i < count; i++) {
      uint32_t bits = codes[first + i] ? (uint32_t)codes[first + i] << 23 : 0x400000;
      memcpy(absmax + i, &bits, sizeof bits);
    }
    return;
  }
  for (size_t i = 0; i < count; i++) {
    float scaled = nibble_dynamic_values[codes[first + i]] * nested_absmax[(first + i) / NESTED_BLOCK];
    absmax[i] = scaled + offset;
  }
}
