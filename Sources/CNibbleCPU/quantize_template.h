// The body of quantize.c for one instruction set. Elements pass through a buffer of float32 on the stack.

#include "convert_template.h"

/// max |v| as bits; NaN and infinity are above every number.
NIBBLE_INLINE uint32_t NAME(magnitude_bits)(const float *values, size_t count) {
  uint32_t largest = 0;
  for (size_t i = 0; i < count; i++) {
    uint32_t magnitude = nibble_bits(values[i]) & 0x7FFFFFFF;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

static size_t NAME(first_non_finite)(const float *values, size_t count) {
  for (size_t i = 0; i < count; i++)
    if ((nibble_bits(values[i]) & 0x7FFFFFFF) >= 0x7F800000) return i;
  return count;
}

/// CUDA's kernels flush denormals to zero.
NIBBLE_INLINE float NAME(flush)(float value) {
  return (nibble_bits(value) & 0x7FFFFFFF) < 0x00800000 ? 0.0f : value;
}

/// One code a byte for one block, whose values are scaled by `inverse`.
NIBBLE_INLINE void NAME(encode)(const float *values, size_t count, float inverse, nibble_codebook codebook, uint8_t *codes) {
  if (codebook == NIBBLE_NF4) {
    for (size_t i = 0; i < count; i++) {
      float x = NAME(flush)(values[i]) * inverse;
      int code = 0;
      for (int t = 0; t < 15; t++) code += x > nibble_nf4_thresholds[t];
      codes[i] = (uint8_t)code;
    }
  } else {
    for (size_t i = 0; i < count; i++) {
      float x = NAME(flush)(NAME(flush)(values[i]) * inverse);
      float magnitude = x < 0 ? -x : x;
      uint32_t interval = 0;
      for (int t = 0; t < 7; t++) interval += magnitude > nibble_fp4_thresholds[t];
      // Nibble i of the constant: the magnitude bits of the i-th interval.
      codes[i] = (uint8_t)((0x32547610u >> (4 * interval) & 7) | (x < 0 ? 8 : 0));
    }
  }
}

static ptrdiff_t NAME(quantize_4bit)(const void *source, nibble_float type, size_t first, size_t count, size_t block_size,
                                     nibble_codebook codebook, uint8_t *codes, float *absmax) {
  float values[LARGEST_BLOCK];
  uint8_t unpacked[LARGEST_BLOCK + 1];
  size_t end = first + count;
  for (size_t start = first; start < end; start += block_size) {
    size_t length = end - start < block_size ? end - start : block_size;
    NAME(load_floats)(source, type, start, length, values);
    uint32_t bits = NAME(magnitude_bits)(values, length);
    if (bits >= 0x7F800000) return (ptrdiff_t)(start + NAME(first_non_finite)(values, length));
    float scale = NAME(flush)(nibble_from_bits(bits));
    absmax[start / block_size] = scale;
    // With an inverse of zero every value gets the code of zero: blocks of zeros, and absmax above 2^126.
    float inverse = scale > 0 ? NAME(flush)(1.0f / scale) : 0;
    NAME(encode)(values, length, inverse, codebook, unpacked);
    if (length & 1) unpacked[length] = codebook == NIBBLE_NF4 ? 7 : 0;
    uint8_t *packed = codes + start / 2;
    for (size_t i = 0; i < (length + 1) / 2; i++) packed[i] = (uint8_t)(unpacked[2 * i] << 4 | unpacked[2 * i + 1]);
  }
  return -1;
}

/// out[i] = value of code first + i, times its block's scale.
static void NAME(expand_4bit)(const uint8_t *codes, const float *absmax, size_t first, size_t count, size_t block_size,
                              const float *table, float *restrict out) {
  size_t i = 0;
  while (i < count) {
    size_t block = (first + i) / block_size, left = (block + 1) * block_size - (first + i);
    size_t length = left < count - i ? left : count - i;
    float scale = absmax[block];
    for (size_t end = i + length; i < end; i++) {
      size_t element = first + i;
      uint8_t byte = codes[element / 2];
      out[i] = table[element & 1 ? byte & 15 : byte >> 4] * scale;
    }
  }
}

static void NAME(dequantize_4bit)(const uint8_t *codes, const float *absmax, size_t first, size_t count, size_t block_size,
                                  nibble_codebook codebook, nibble_float type, void *destination) {
  const float *table = nibble_codebook_values(codebook);
  float values[CHUNK];
  for (size_t done = 0; done < count; done += CHUNK) {
    size_t length = count - done < CHUNK ? count - done : CHUNK;
    NAME(expand_4bit)(codes, absmax, first + done, length, block_size, table, values);
    NAME(store_floats)(values, length, type, destination, done);
  }
}

static ptrdiff_t NAME(quantize_int8)(const void *source, nibble_float type, size_t rows, size_t K, int8_t *values,
                                     float *scales) {
  float chunk[CHUNK];
  for (size_t row = 0; row < rows; row++) {
    uint32_t bits = 0;
    for (size_t start = 0; start < K; start += CHUNK) {
      size_t length = K - start < CHUNK ? K - start : CHUNK;
      NAME(load_floats)(source, type, row * K + start, length, chunk);
      NAME(round_floats)(chunk, length, NIBBLE_F16);
      uint32_t largest = NAME(magnitude_bits)(chunk, length);
      if (largest >= 0x7F800000) return (ptrdiff_t)(row * K + start + NAME(first_non_finite)(chunk, length));
      bits = largest > bits ? largest : bits;
    }
    // The reference multiplies by the reciprocal: a division would round differently.
    float scale = nibble_from_bits(bits), factor = scale > 0 ? 127.0f * (1.0f / scale) : 0;
    scales[row] = scale;
    for (size_t start = 0; start < K; start += CHUNK) {
      size_t length = K - start < CHUNK ? K - start : CHUNK;
      NAME(load_floats)(source, type, row * K + start, length, chunk);
      NAME(round_floats)(chunk, length, NIBBLE_F16);
      int8_t *out = values + row * K + start;
      // Adding 1.5 × 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
      for (size_t i = 0; i < length; i++) out[i] = (int8_t)nibble_bits(chunk[i] * factor + 0x1.8p23f);
    }
  }
  return -1;
}

static void NAME(dequantize_int8)(const int8_t *values, const float *scales, size_t rows, size_t K, nibble_float type,
                                  void *destination) {
  float chunk[CHUNK];
  for (size_t row = 0; row < rows; row++) {
    for (size_t start = 0; start < K; start += CHUNK) {
      size_t length = K - start < CHUNK ? K - start : CHUNK;
      const int8_t *in = values + row * K + start;
      for (size_t i = 0; i < length; i++) chunk[i] = (float)in[i] * scales[row] * 0x1.020408p-7f;
      NAME(store_floats)(chunk, length, type, destination, row * K + start);
    }
  }
}

static const quantize_kernels NAME(kernels) = {NAME(quantize_4bit), NAME(dequantize_4bit), NAME(quantize_int8),
                                               NAME(dequantize_int8)};

#undef F16C
#undef NIBBLE_SUFFIX
