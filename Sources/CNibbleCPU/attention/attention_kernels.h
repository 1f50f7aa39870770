// The innermost loops of attention, over one block of 32 keys. `plain.c` is the plain form; the templates are compiled once per
// instruction level.
#pragma once

#include <stddef.h>
#include <stdint.h>

/// Rows of scratch are padded to this many floats, the widest vector.
enum { lane_padding = 16, keys_per_block = 32 };

/// Queries are rows of `query_stride` floats, scores rows of 32. Arrays of functions are indexed by the cache's dtype
/// (float32, float16, bfloat16).
typedef struct {
  /// scores[m][j] = queries[m] · keys[j], keys as the cache stores them. `size` is a multiple of `lanes`. Kernels may read
  /// queries up to the next multiple of 8 rows, and read and score all 32 keys. `ahead` is the block that comes next.
  void (*score_direct[3])(const float *queries, size_t query_stride, size_t rows, const void *keys, const void *ahead,
                          size_t size, size_t count, float *scores);
  /// acc[m] = acc[m] × correction[m] + Σ_j<count p[m][j] × values[j], values as the cache stores them.
  void (*accumulate_direct[3])(const float *p, size_t rows, const float *correction, const void *values, const void *ahead,
                               size_t size, size_t count, float *acc, size_t acc_stride);
  /// packed[d][j] = keys[j][d] for the first `count` keys. The rest is unspecified; its scores are masked.
  void (*pack_keys[3])(const void *keys, size_t size, size_t count, float *packed);
  /// scores[m][j] = Σ_d queries[m][d] × packed[d][j]
  void (*score_packed)(const float *queries, size_t query_stride, size_t rows, const float *packed, size_t size, float *scores);
  /// As accumulate_direct, for float32 values in rows of `stride` floats, a multiple of lane_padding, as acc's.
  void (*accumulate_packed)(const float *p, size_t rows, const float *correction, const float *values, size_t stride,
                            size_t count, float *acc);
  /// Turns one row's 32 scores into exp(score − new maximum) and returns the factor by which earlier sums shrink. A score of −∞
  /// becomes 0.
  float (*softmax_block)(float *scores, float *maximum, float *sum);

  /// By bits / 4: out[j][i] = minimum + code × scale for the first `count` positions of one head in one block of a quantized
  /// cache (cache_codes.h), in rows of `stride` floats.
  void (*expand_codes[3])(const void *block, size_t size, size_t group_size, size_t count, float *out, size_t stride);

  /// Floats of a vector; 1 for the plain table, whose direct kernels take any size.
  size_t lanes;
} attention_kernels;

extern const attention_kernels nibble_attention_generic;
#if defined(__x86_64__)
extern const attention_kernels nibble_attention_avx2, nibble_attention_avx512;
#elif defined(__aarch64__)
extern const attention_kernels nibble_attention_neon;
#endif
