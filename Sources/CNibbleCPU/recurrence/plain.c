// The plain form of the loops of recurrence_kernels.h.
#include "../include/nibble_recurrence.h"
#include "recurrence_kernels.h"

static void convolve_step_generic(const float *past, const float *x, const float *weight, const float *bias, float *next,
                                  float *out, size_t taps, size_t count) {
  for (size_t c = 0; c < count; c++) {
    float window[nibble_largest_taps];
    for (size_t j = 0; j + 1 < taps; j++) window[j] = past[c * (taps - 1) + j];
    window[taps - 1] = x[c];
    float sum = bias ? bias[c] : 0;
    for (size_t j = 0; j < taps; j++) sum += weight[c * taps + j] * window[j];
    for (size_t j = 0; j + 1 < taps; j++) next[c * (taps - 1) + j] = window[j + 1];
    out[c] = sum;
  }
}

static void convolve_generic(const float *const *inputs, const float *weights, const float *bias, float *out, size_t taps,
                             size_t count) {
  for (size_t c = 0; c < count; c++) {
    float sum = bias ? bias[c] : 0;
    for (size_t j = 0; j < taps; j++) sum += weights[j * nibble_channel_block + c] * inputs[j][c];
    out[c] = sum;
  }
}

static void delta_generic(const float *from, float *state, size_t stride, const float *q, const float *k, const float *v,
                          float decay, float beta, float *out, size_t key_size, size_t columns) {
  for (size_t c = 0; c < columns; c++) {
    float held = 0, sum = 0;
    for (size_t i = 0; i < key_size; i++) held += from[i * stride + c] * k[i];
    float difference = beta * (v[c] - decay * held);
    for (size_t i = 0; i < key_size; i++) {
      float value = decay * from[i * stride + c] + k[i] * difference;
      state[i * stride + c] = value;
      sum += value * q[i];
    }
    out[c] = sum;
  }
}

static void state_space_generic(const float *from, float *state, const float *x, const float *b, const float *c, float decay,
                                float dt, float skip, float *out, size_t rows, size_t size) {
  for (size_t p = 0; p < rows; p++) {
    float sum = 0;
    for (size_t n = 0; n < size; n++) {
      float value = decay * from[p * size + n] + dt * x[p] * b[n];
      state[p * size + n] = value;
      sum += value * c[n];
    }
    out[p] = sum + skip * x[p];
  }
}

const recurrence_kernels nibble_recurrence_generic = {
    .convolve_step = convolve_step_generic,
    .convolve = convolve_generic,
    .delta = delta_generic,
    .state_space = state_space_generic,
};
