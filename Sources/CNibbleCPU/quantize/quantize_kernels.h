// The innermost loops of the quantizers, over float32.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../include/nibble_quantize.h"
#include "../include/nibble_stored.h"

/// Columns first ..< first + count of a row: `codes` and `out` begin with column `first`. A code takes a byte.
typedef void decode_codes(const uint8_t *codes, size_t first, size_t count, const nibble_row_scales *row, float *out);

typedef struct {
  /// max |v| as the bits of a float: NaN and infinity are above every number.
  uint32_t (*magnitude_bits)(const float *values, size_t count);
  /// One code a byte for a block whose values are multiplied by `inverse`.
  void (*encode[2])(const float *values, size_t count, float inverse, uint8_t *codes);
  /// out[i] = table[code] × scale for `count` codes, two a byte, from the high nibble of codes[0] on.
  void (*decode)(const uint8_t *codes, size_t count, const float *table, float scale, float *out);
  /// round(v × factor), ties to even
  void (*round_int8)(const float *values, size_t count, float factor, int8_t *out);
  /// q × scale × (1 / 127)
  void (*scale_int8)(const int8_t *values, size_t count, float scale, float *out);
  /// By nibble_code.
  decode_codes *decode_codes[6];
} quantize_kernels;

extern const quantize_kernels nibble_quantize_generic;
#if defined(__x86_64__)
extern const quantize_kernels nibble_quantize_avx2;
#endif
