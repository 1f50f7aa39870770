// Reading a quantized cache. Included once by each instruction set's file: plain loops that the compiler turns into its
// vectors. SELECT_EXPAND names the function that fills the table.
#include "cache_codes.h"
#include "half.h"
#include "kernels.h"

#include <string.h>

static inline __attribute__((always_inline)) void expand_group(const uint8_t *codes, size_t count, const int bits, float scale,
                                                               float minimum, float *restrict out) {
  size_t bytes = nibble_group_bytes(count, bits);
  for (size_t first = 0; first < count; first += bytes) {
    const int shift = (int)(first / bytes) * bits;
    size_t end = count - first < bytes ? count - first : bytes;
    for (size_t i = 0; i < end; i++) out[first + i] = minimum + (float)(codes[i] >> shift & ((1 << bits) - 1)) * scale;
  }
}

static inline __attribute__((always_inline)) void expand(const void *block, size_t size, size_t group_size, size_t count,
                                                         float *out, size_t stride, const int bits) {
  size_t row = nibble_code_bytes(size, group_size, bits), groups = nibble_groups(size, group_size);
  const uint8_t *scales = (const uint8_t *)block + keys_per_block * row;
  for (size_t j = 0; j < count; j++) {
    const uint8_t *codes = (const uint8_t *)block + j * row;
    for (size_t g = 0; g < groups; g++) {
      uint16_t pair[2];
      memcpy(pair, scales + (j * groups + g) * 4, 4);
      float scale = half_to_float(pair[0]), minimum = half_to_float(pair[1]), *place = out + j * stride + g * group_size;
      size_t length = size - g * group_size;
      // A group of constant size is unrolled.
      if (length >= 64 && group_size == 64) {
        expand_group(codes, 64, bits, scale, minimum, place);
        codes += nibble_group_bytes(64, bits);
      } else {
        length = length < group_size ? length : group_size;
        expand_group(codes, length, bits, scale, minimum, place);
        codes += nibble_group_bytes(length, bits);
      }
    }
    memset(out + j * stride + size, 0, (stride - size) * sizeof(float));
  }
}

static void expand2(const void *block, size_t size, size_t group_size, size_t count, float *out, size_t stride) {
  expand(block, size, group_size, count, out, stride, 2);
}

static void expand4(const void *block, size_t size, size_t group_size, size_t count, float *out, size_t stride) {
  expand(block, size, group_size, count, out, stride, 4);
}

static void expand8(const void *block, size_t size, size_t group_size, size_t count, float *out, size_t stride) {
  expand(block, size, group_size, count, out, stride, 8);
}

void SELECT_EXPAND(nibble_kernels *table) {
  table->expand_codes[0] = expand2;
  table->expand_codes[1] = expand4;
  table->expand_codes[2] = expand8;
}
