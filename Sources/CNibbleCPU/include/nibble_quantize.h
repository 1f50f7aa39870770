// Quantization: FP4 and NF4 with plain or nested scales, and row-wise int8, byte for byte as bitsandbytes does it on CUDA.
// `dtype` is one of nibble_operations.h.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "nibble_levels.h"

/// Nothing is quantized to MXFP4.
typedef enum { NIBBLE_FP4 = 0, NIBBLE_NF4 = 1, NIBBLE_MXFP4 = 2 } nibble_codebook;

/// The 16 values of a codebook.
const float *nibble_codebook_values(nibble_codebook codebook);
/// The 256 ascending values of the signed dynamic map that nested scales index.
const float *nibble_dynamic_map(void);

/// Quantizes elements `first ..< first + count` of a flattened weight: `first` is a multiple of the block size, and so is
/// `count` unless it reaches the tensor's end. `codes` and `absmax` are the whole tensor's.
/// Returns the index of the first NaN or infinity, or -1.
ptrdiff_t nibble_quantize_4bit(const nibble_kernels *kernels, const void *source, int32_t dtype, size_t first, size_t count,
                               size_t block_size, nibble_codebook codebook, uint8_t *codes, float *absmax);

/// destination[0 ..< count] = elements `first ..< first + count` of the flattened weight, each rounded once to `dtype`.
void nibble_dequantize_4bit(const nibble_kernels *kernels, const uint8_t *codes, const float *absmax, size_t first, size_t count,
                            size_t block_size, nibble_codebook codebook, int32_t dtype, void *destination);

/// The same into float32.
void nibble_expand_4bit(const nibble_kernels *kernels, const uint8_t *codes, const float *absmax, size_t first, size_t count,
                        size_t block_size, nibble_codebook codebook, float *out);

/// Quantizes `count` scales in blocks of 256 against the dynamic map, after subtracting their mean, which is returned.
float nibble_quantize_scales(const float *absmax, size_t count, uint8_t *codes, float *nested_absmax);

/// Scales `first ..< first + count`: map[code] × nested_absmax[i / 256] + offset, rounded after each step. Without nested_absmax:
/// 2^(code − 127).
void nibble_dequantize_scales(const uint8_t *codes, const float *nested_absmax, float offset, size_t first, size_t count,
                              float *absmax);

/// Rounds rows of K elements to float16 and quantizes each against its absmax. Returns the index of the first NaN or
/// infinity (before or after rounding) counted from `source`, or -1.
ptrdiff_t nibble_quantize_int8(const nibble_kernels *kernels, const void *source, int32_t dtype, size_t rows, size_t K,
                               int8_t *values, float *scales);

/// values × scales / 127, rounded once to `dtype`.
void nibble_dequantize_int8(const nibble_kernels *kernels, const int8_t *values, const float *scales, size_t rows, size_t K,
                            int32_t dtype, void *destination);

/// Rounds to float16 or bfloat16 and back, in place.
void nibble_round_floats(const nibble_kernels *kernels, float *values, size_t count, int32_t dtype);
