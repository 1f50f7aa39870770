// The innermost loops, as a table of functions chosen once at start. `kernels_generic.c` is the plain reference;
// `kernels_vector.h` is compiled once per instruction set.
#pragma once

#include <stddef.h>
#include <stdint.h>

/// Rows of packed scratch are padded to this many floats, the widest vector.
enum { lane_padding = 16, keys_per_block = 32 };

typedef struct {
  /// By dtype of nibble_operations.h.
  void (*widen[6])(const void *source, float *out, size_t count);
  void (*narrow[4])(const float *source, void *out, size_t count);

  void (*scale)(const float *x, float scale, float *out, size_t count);
  /// out = a + b × scale
  void (*add)(const float *a, const float *b, float scale, float *out, size_t count);
  void (*clip)(float *x, float limit, size_t count);

  float (*sum)(const float *x, size_t count);
  /// Σ (x − centre)²
  float (*square_sum)(const float *x, float centre, size_t count);
  /// out = (x − centre) × factor × weight + bias + residual; each of the three may be NULL.
  void (*normalize)(const float *x, float centre, float factor, const float *weight, const float *bias, const float *residual,
                    float *out, size_t count);

  /// Rotates pairs (i, i + half), or (2i, 2i + 1).
  void (*rotate_halves)(float *x, const float *cosines, const float *sines, size_t half);
  void (*rotate_pairs)(float *x, const float *cosines, const float *sines, size_t half);

  void (*activate)(int32_t activation, float parameter, const float *x, float *out, size_t count);
  /// out = activation(a) × b
  void (*gate)(int32_t activation, float parameter, const float *a, const float *b, float *out, size_t count);

  /// The largest element that is not NaN, −∞ if there is none.
  float (*maximum)(const float *x, size_t count);
  /// The first i with x[i] == value, or count.
  size_t (*find)(const float *x, float value, size_t count);
  /// out = exp(x − maximum), 0 for NaN.
  void (*exponentials)(const float *x, float maximum, float *out, size_t count);

  // Attention over one block of 32 keys. Queries are rows of `query_stride` floats; scores rows of 32.

  /// scores[m][j] = queries[m] · keys[j], keys as they lie in the cache. `size` is a multiple of the vector, `rows` may be
  /// read up to the next multiple of 8. All 32 keys may be read and their scores written. `ahead` is the block that comes next.
  void (*score_direct[3])(const float *queries, size_t query_stride, size_t rows, const void *keys, const void *ahead,
                          size_t size, size_t count, float *scores);
  /// acc[m] = acc[m] × correction[m] + Σ_j<count p[m][j] × values[j].
  void (*accumulate_direct[3])(const float *p, size_t rows, const float *correction, const void *values, const void *ahead,
                               size_t size, size_t count, float *acc, size_t acc_stride);
  /// packed[d][j] = keys[j][d] for the count keys, 0 for the rest.
  void (*pack_keys[3])(const void *keys, size_t size, size_t count, float *packed);
  /// scores[m][j] = Σ_d queries[m][d] × packed[d][j]
  void (*score_packed)(const float *queries, size_t query_stride, size_t rows, const float *packed, size_t size, float *scores);
  /// As accumulate_direct with float32 values in rows of `stride` floats, a multiple of lane_padding, as acc's.
  void (*accumulate_packed)(const float *p, size_t rows, const float *correction, const float *values, size_t stride,
                            size_t count, float *acc);
  /// One row's 32 scores become exp(score − new maximum); returns the factor by which earlier sums shrink. −∞ scores give 0.
  float (*softmax_block)(float *scores, float *maximum, float *sum);

  /// By bits / 4 of a quantized cache: out[j][i] = minimum + code × scale of the first `count` positions of one head in one
  /// block (cache_codes.h), rows of `stride` floats.
  void (*expand_codes[3])(const void *block, size_t size, size_t group_size, size_t count, float *out, size_t stride);

  /// Floats of a vector; 1 for the generic table, whose direct kernels take any size.
  size_t lanes;
} nibble_kernels;

/// The table in use. What belongs together (a check of `lanes` and the calls that rely on it) reads this once.
extern const nibble_kernels *nibble_active_kernels;

/// Fill a table; each instruction set's overrides what the generic one set.
void nibble_kernels_generic(nibble_kernels *table);
void nibble_kernels_avx2(nibble_kernels *table);
void nibble_kernels_avx512(nibble_kernels *table);
void nibble_kernels_neon(nibble_kernels *table);
/// What reads a quantized cache (cache_expand.h).
void nibble_expand_generic(nibble_kernels *table);
void nibble_expand_avx2(nibble_kernels *table);
void nibble_expand_avx512(nibble_kernels *table);
void nibble_kernels_select(uint32_t features);
