// The plain form of every elementwise loop.
#include <math.h>
#include <string.h>

#include "../formats/half.h"
#include "../include/nibble_operations.h"
#include "elementwise_kernels.h"

// MARK: Conversions

void nibble_widen_float32_generic(const void *source, float *out, size_t count) { memmove(out, source, count * 4); }

void nibble_widen_float64_generic(const void *source, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) {
    double value;
    memcpy(&value, (const char *)source + i * 8, 8);
    out[i] = (float)value;
  }
}

static uint16_t load16(const void *source, size_t i) {
  uint16_t value;
  memcpy(&value, (const char *)source + i * 2, 2);
  return value;
}

static void store16(void *out, size_t i, uint16_t value) { memcpy((char *)out + i * 2, &value, 2); }

static void widen_float16_generic(const void *source, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = half_to_float(load16(source, i));
}

static void widen_bfloat16_generic(const void *source, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = bfloat_to_float(load16(source, i));
}

void nibble_widen_float8_e4m3_generic(const void *source, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = float8_e4m3_to_float(((const uint8_t *)source)[i]);
}

void nibble_widen_float8_e5m2_generic(const void *source, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = float8_e5m2_to_float(((const uint8_t *)source)[i]);
}

void nibble_narrow_float32_generic(const float *source, void *out, size_t count) { memmove(out, source, count * 4); }

void nibble_narrow_float64_generic(const float *source, void *out, size_t count) {
  for (size_t i = 0; i < count; i++) {
    double value = source[i];
    memcpy((char *)out + i * 8, &value, 8);
  }
}

static void narrow_float16_generic(const float *source, void *out, size_t count) {
  for (size_t i = 0; i < count; i++) store16(out, i, float_to_half(source[i]));
}

static void narrow_bfloat16_generic(const float *source, void *out, size_t count) {
  for (size_t i = 0; i < count; i++) store16(out, i, float_to_bfloat(source[i]));
}

// MARK: Element by element

static void scale_generic(const float *x, float scale, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = x[i] * scale;
}

static void add_generic(const float *a, const float *b, float scale, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = a[i] + b[i] * scale;
}

static void clip_generic(float *x, float limit, size_t count) {
  for (size_t i = 0; i < count; i++) x[i] = x[i] > limit ? limit : x[i] < -limit ? -limit : x[i];
}

static float sigmoid(float x) { return 1 / (1 + expf(-x)); }

static float activated_generic(int32_t activation, float parameter, float x) {
  switch (activation) {
    case nibble_relu:
      return x < 0 ? 0 : x;
    case nibble_relu_squared:
      return x < 0 ? 0 : x * x;
    case nibble_gelu:
      return 0.5f * x * (1 + erff(x * 0.70710678f));
    case nibble_gelu_tanh:
      return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case nibble_quick_gelu:
      return x * sigmoid(1.702f * x);
    case nibble_silu:
      return x * sigmoid(x);
    case nibble_sigmoid:
      return sigmoid(x);
    case nibble_tanh:
      return tanhf(x);
    case nibble_soft_cap:
      return parameter * tanhf(x / parameter);
    default:
      return x;
  }
}

static void activate_generic(int32_t activation, float parameter, const float *x, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = activated_generic(activation, parameter, x[i]);
}

static void gate_generic(int32_t activation, float parameter, const float *a, const float *b, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = activated_generic(activation, parameter, a[i]) * b[i];
}

static void clamped_glu_generic(float limit, float alpha, const float *a, const float *b, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) {
    float gate = a[i] > limit ? limit : a[i], up = b[i] > limit ? limit : b[i] < -limit ? -limit : b[i];
    out[i] = (up + 1) * gate * sigmoid(alpha * gate);
  }
}

// MARK: Normalization and rotation

static float sum_generic(const float *x, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += x[i];
  return (float)sum;
}

static float square_sum_generic(const float *x, float centre, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += (double)(x[i] - centre) * (x[i] - centre);
  return (float)sum;
}

static void normalize_generic(const float *x, float centre, float factor, const float *weight, const float *bias,
                              const float *residual, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) {
    float value = (x[i] - centre) * factor;
    if (weight) value *= weight[i];
    if (bias) value += bias[i];
    out[i] = residual ? residual[i] + value : value;
  }
}

static void rotate(float *a, float *b, float cosine, float sine) {
  float first = *a, second = *b;
  *a = first * cosine - second * sine;
  *b = second * cosine + first * sine;
}

static void rotate_halves_generic(float *x, const float *cosines, const float *sines, size_t half) {
  for (size_t i = 0; i < half; i++) rotate(&x[i], &x[i + half], cosines[i], sines[i]);
}

void nibble_rotate_pairs_generic(float *x, const float *cosines, const float *sines, size_t half) {
  for (size_t i = 0; i < half; i++) rotate(&x[2 * i], &x[2 * i + 1], cosines[i], sines[i]);
}

// MARK: Selection

static float maximum_generic(const float *x, size_t count) {
  float best = -INFINITY;
  for (size_t i = 0; i < count; i++)
    if (x[i] > best) best = x[i];
  return best;
}

static size_t find_generic(const float *x, float value, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (x[i] == value) return i;
  return count;
}

// x == maximum is 1 even where both are infinite.
static void exponentials_generic(const float *x, float maximum, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) {
    float value = x[i] == maximum ? 1 : expf(x[i] - maximum);
    out[i] = value == value ? value : 0;
  }
}

const elementwise_kernels nibble_elementwise_generic = {
    .widen = {nibble_widen_float32_generic, widen_float16_generic, widen_bfloat16_generic, nibble_widen_float64_generic,
              nibble_widen_float8_e4m3_generic, nibble_widen_float8_e5m2_generic},
    .narrow = {nibble_narrow_float32_generic, narrow_float16_generic, narrow_bfloat16_generic, nibble_narrow_float64_generic},
    .scale = scale_generic,
    .add = add_generic,
    .clip = clip_generic,
    .sum = sum_generic,
    .square_sum = square_sum_generic,
    .normalize = normalize_generic,
    .rotate_halves = rotate_halves_generic,
    .rotate_pairs = nibble_rotate_pairs_generic,
    .activate = activate_generic,
    .gate = gate_generic,
    .clamped_glu = clamped_glu_generic,
    .maximum = maximum_generic,
    .find = find_generic,
    .exponentials = exponentials_generic,
};
