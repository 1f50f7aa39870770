// Weights as other quantizers than bitsandbytes store them, to float32: w = (value − zero) × scale, each step rounded once.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "nibble_levels.h"

/// What a code stands for. Codes of the first four take a byte; of the others there are two a byte, the first in the low nibble.
typedef enum {
  NIBBLE_CODE_E4M3 = 0,
  NIBBLE_CODE_E5M2 = 1,
  NIBBLE_CODE_INT8 = 2,
  NIBBLE_CODE_UINT8 = 3,
  NIBBLE_CODE_E2M1 = 4,
  NIBBLE_CODE_UINT4 = 5,
} nibble_code;

/// The scales of one row: column k has scales[k / block × step] and, unless `zeros` is NULL, zeros[k / block × step].
typedef struct {
  const float *scales, *zeros;
  size_t block, step;
} nibble_row_scales;

/// One row of `width` columns.
void nibble_decode_row(const nibble_kernels *kernels, nibble_code code, const uint8_t *codes, size_t width,
                       const nibble_row_scales *row, float *out);

/// One row of codes of `bits` bits, a byte each, whose column k has scales[groups[k]] and zeros[groups[k]].
void nibble_decode_grouped_row(const uint8_t *codes, size_t width, const int32_t *groups, size_t group_count, const float *scales,
                               const float *zeros, int32_t bits, float *out);

/// Codes of 2, 4 or 8 bits, packed along the columns of the transposed weight (GPTQ), to a byte each: the first of
/// words[w × stride + r] goes to codes[r × codes_stride + w × 32 / bits].
void nibble_unpack_columns(const uint32_t *words, size_t stride, size_t word_rows, size_t rows, int32_t bits, uint8_t *codes,
                           size_t codes_stride);

/// Codes of 4 bits, eight rows a word in the order 0, 2, 4, 6, 1, 3, 5, 7 (AWQ), to a byte each: those of
/// words[k × stride + w] go to column k of rows 8w ..< 8w + 8. A stride of a power of two would map all rows to one cache set.
void nibble_unpack_row_words(const uint32_t *words, size_t stride, size_t row_words, size_t width, uint8_t *codes,
                             size_t codes_stride);

/// The index of the first NaN or infinity, or -1.
ptrdiff_t nibble_first_non_finite(const nibble_kernels *kernels, const float *values, size_t count);
