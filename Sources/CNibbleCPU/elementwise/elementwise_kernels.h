// The innermost loops over vectors of floats. `plain.c` is the plain form; `templates/elementwise.inc` is compiled once per
// instruction level.
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef struct {
  /// To and from float32, by dtype of nibble_operations.h. Rounds to nearest, ties to even.
  void (*widen[6])(const void *source, float *out, size_t count);
  void (*narrow[4])(const float *source, void *out, size_t count);

  void (*scale)(const float *x, float scale, float *out, size_t count);
  /// out = a + b × scale
  void (*add)(const float *a, const float *b, float scale, float *out, size_t count);
  /// Limits x to ±limit.
  void (*clip)(float *x, float limit, size_t count);

  float (*sum)(const float *x, size_t count);
  /// Σ (x − centre)²
  float (*square_sum)(const float *x, float centre, size_t count);
  /// out = (x − centre) × factor × weight + bias + residual; each of the three may be NULL.
  void (*normalize)(const float *x, float centre, float factor, const float *weight, const float *bias, const float *residual,
                    float *out, size_t count);

  /// Rotates pairs (i, i + half).
  void (*rotate_halves)(float *x, const float *cosines, const float *sines, size_t half);
  /// Rotates pairs (2i, 2i + 1).
  void (*rotate_pairs)(float *x, const float *cosines, const float *sines, size_t half);

  void (*activate)(int32_t activation, float parameter, const float *x, float *out, size_t count);
  /// out = activation(a) × b
  void (*gate)(int32_t activation, float parameter, const float *a, const float *b, float *out, size_t count);

  /// out = (clamp(b, ±limit) + 1) × a′ × σ(alpha × a′) with a′ = min(a, limit)
  void (*clamped_glu)(float limit, float alpha, const float *a, const float *b, float *out, size_t count);

  /// The largest element that is not NaN, −∞ if there is none.
  float (*maximum)(const float *x, size_t count);
  /// The first i with x[i] == value, or count.
  size_t (*find)(const float *x, float value, size_t count);
  /// out = exp(x − maximum), 0 for NaN.
  void (*exponentials)(const float *x, float maximum, float *out, size_t count);
} elementwise_kernels;

extern const elementwise_kernels nibble_elementwise_generic;
#if defined(__x86_64__)
extern const elementwise_kernels nibble_elementwise_avx2, nibble_elementwise_avx512;
#elif defined(__aarch64__)
extern const elementwise_kernels nibble_elementwise_neon;
#endif

// Plain conversions that no level has a faster form of.
void nibble_widen_float32_generic(const void *source, float *out, size_t count);
void nibble_widen_float64_generic(const void *source, float *out, size_t count);
void nibble_widen_float8_e4m3_generic(const void *source, float *out, size_t count);
void nibble_widen_float8_e5m2_generic(const void *source, float *out, size_t count);
void nibble_narrow_float32_generic(const float *source, void *out, size_t count);
void nibble_narrow_float64_generic(const float *source, void *out, size_t count);
void nibble_rotate_pairs_generic(float *x, const float *cosines, const float *sines, size_t half);
