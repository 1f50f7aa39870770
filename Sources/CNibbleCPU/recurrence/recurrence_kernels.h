// The innermost loops of recurrent mixers. `plain.c` is the plain form; `templates/recurrence.inc` is compiled once per
// instruction level.
#pragma once

#include <stddef.h>

typedef struct {
  /// One token of up to 64 channels: out = bias + Σ weight · (past, x), next = past without its oldest input, and x. `past` and
  /// `next` are [count, taps − 1] and may be the same, `weight` is [count, taps]; `bias` may be NULL.
  void (*convolve_step)(const float *past, const float *x, const float *weight, const float *bias, float *next, float *out,
                        size_t taps, size_t count);
  /// Many tokens: out[c] = bias[c] + Σ_j weights[j · 64 + c] · inputs[j][c] for one of them. `bias` may be NULL.
  void (*convolve)(const float *const *inputs, const float *weights, const float *bias, float *out, size_t taps, size_t count);

  /// One token of the gated delta rule for `columns` of a head's state [key_size, stride]: reads `from`, writes `state`, which
  /// may be the same.
  void (*delta)(const float *from, float *state, size_t stride, const float *q, const float *k, const float *v, float decay,
                float beta, float *out, size_t key_size, size_t columns);

  /// One token of Mamba 2 for `rows` of a head's state [rows, size]: state = decay · from + dt · x ⊗ b, out = state · c + skip ·
  /// x.
  void (*state_space)(const float *from, float *state, const float *x, const float *b, const float *c, float decay, float dt,
                      float skip, float *out, size_t rows, size_t size);
} recurrence_kernels;

extern const recurrence_kernels nibble_recurrence_generic;
#if defined(__x86_64__)
extern const recurrence_kernels nibble_recurrence_avx2, nibble_recurrence_avx512;
#elif defined(__aarch64__)
extern const recurrence_kernels nibble_recurrence_neon;
#endif
