// The plain reference of every kernel.
#include "../formats/half.h"
#include "../kernels.h"
#include "../include/nibble_levels.h"
#include "../include/nibble_operations.h"

#include <math.h>

// Conversions

static void widen_float32(const void *source, float *out, size_t count) { memmove(out, source, count * 4); }

static void widen_float64(const void *source, float *out, size_t count) {
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

static void widen_float16(const void *source, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = half_to_float(load16(source, i));
}

static void widen_bfloat16(const void *source, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = bfloat_to_float(load16(source, i));
}

static void widen_float8_e4m3(const void *source, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = float8_e4m3_to_float(((const uint8_t *)source)[i]);
}

static void widen_float8_e5m2(const void *source, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = float8_e5m2_to_float(((const uint8_t *)source)[i]);
}

static void narrow_float32(const float *source, void *out, size_t count) { memmove(out, source, count * 4); }

static void narrow_float64(const float *source, void *out, size_t count) {
  for (size_t i = 0; i < count; i++) {
    double value = source[i];
    memcpy((char *)out + i * 8, &value, 8);
  }
}

static void narrow_float16(const float *source, void *out, size_t count) {
  for (size_t i = 0; i < count; i++) store16(out, i, float_to_half(source[i]));
}

static void narrow_bfloat16(const float *source, void *out, size_t count) {
  for (size_t i = 0; i < count; i++) store16(out, i, float_to_bfloat(source[i]));
}

// Element by element

static void scale(const float *x, float scale, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = x[i] * scale;
}

static void add(const float *a, const float *b, float scale, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = a[i] + b[i] * scale;
}

static void clip(float *x, float limit, size_t count) {
  for (size_t i = 0; i < count; i++) x[i] = x[i] > limit ? limit : x[i] < -limit ? -limit : x[i];
}

static float sigmoid(float x) { return 1 / (1 + expf(-x)); }

static float activated(int32_t activation, float parameter, float x) {
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

static void activate(int32_t activation, float parameter, const float *x, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = activated(activation, parameter, x[i]);
}

static void gate(int32_t activation, float parameter, const float *a, const float *b, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = activated(activation, parameter, a[i]) * b[i];
}

// Normalization and rotation

static float sum(const float *x, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += x[i];
  return (float)sum;
}

static float square_sum(const float *x, float centre, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += (double)(x[i] - centre) * (x[i] - centre);
  return (float)sum;
}

static void normalize(const float *x, float centre, float factor, const float *weight, const float *bias, const float *residual,
                      float *out, size_t count) {
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

static void rotate_halves(float *x, const float *cosines, const float *sines, size_t half) {
  for (size_t i = 0; i < half; i++) rotate(&x[i], &x[i + half], cosines[i], sines[i]);
}

static void rotate_pairs(float *x, const float *cosines, const float *sines, size_t half) {
  for (size_t i = 0; i < half; i++) rotate(&x[2 * i], &x[2 * i + 1], cosines[i], sines[i]);
}

// Selection

static float maximum(const float *x, size_t count) {
  float best = -INFINITY;
  for (size_t i = 0; i < count; i++)
    if (x[i] > best) best = x[i];
  return best;
}

static size_t find(const float *x, float value, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (x[i] == value) return i;
  return count;
}

// x == maximum is 1 even where both are infinite.
static void exponentials(const float *x, float maximum, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) {
    float value = x[i] == maximum ? 1 : expf(x[i] - maximum);
    out[i] = value == value ? value : 0;
  }
}

// Attention

static float softmax_block(float *scores, float *maximum, float *sum) {
  float best = *maximum;
  for (int j = 0; j < keys_per_block; j++)
    if (scores[j] > best) best = scores[j];
  if (best == -INFINITY) {
    memset(scores, 0, keys_per_block * sizeof(float));
    return 1;
  }
  float total = 0;
  for (int j = 0; j < keys_per_block; j++) total += scores[j] = expf(scores[j] - best);
  float correction = expf(*maximum - best);
  *sum = *sum * correction + total;
  *maximum = best;
  return correction;
}

static void score_packed(const float *queries, size_t query_stride, size_t rows, const float *packed, size_t size,
                         float *scores) {
  for (size_t m = 0; m < rows; m++)
    for (size_t j = 0; j < keys_per_block; j++) {
      float sum = 0;
      for (size_t d = 0; d < size; d++) sum += queries[m * query_stride + d] * packed[d * keys_per_block + j];
      scores[m * keys_per_block + j] = sum;
    }
}

static void accumulate_packed(const float *p, size_t rows, const float *correction, const float *values, size_t stride,
                              size_t count, float *acc) {
  for (size_t m = 0; m < rows; m++)
    for (size_t d = 0; d < stride; d++) {
      float sum = acc[m * stride + d] * correction[m];
      for (size_t j = 0; j < count; j++) sum += p[m * keys_per_block + j] * values[j * stride + d];
      acc[m * stride + d] = sum;
    }
}

#define DIRECT(NAME, LOAD)                                                                                                   \
  static void score_##NAME(const float *queries, size_t query_stride, size_t rows, const void *keys, const void *ahead,      \
                           size_t size, size_t count, float *scores) {                                                       \
    (void)ahead;                                                                                                             \
    for (size_t m = 0; m < rows; m++)                                                                                        \
      for (size_t j = 0; j < count; j++) {                                                                                   \
        float sum = 0;                                                                                                       \
        for (size_t d = 0; d < size; d++) sum += queries[m * query_stride + d] * LOAD(keys, j * size + d);                   \
        scores[m * keys_per_block + j] = sum;                                                                                \
      }                                                                                                                      \
  }                                                                                                                          \
  static void accumulate_##NAME(const float *p, size_t rows, const float *correction, const void *values, const void *ahead, \
                                size_t size, size_t count, float *acc, size_t acc_stride) {                                  \
    (void)ahead;                                                                                                             \
    for (size_t m = 0; m < rows; m++)                                                                                        \
      for (size_t d = 0; d < size; d++) {                                                                                    \
        float sum = acc[m * acc_stride + d] * correction[m];                                                                 \
        for (size_t j = 0; j < count; j++) sum += p[m * keys_per_block + j] * LOAD(values, j * size + d);                    \
        acc[m * acc_stride + d] = sum;                                                                                       \
      }                                                                                                                      \
  }                                                                                                                          \
  static void pack_##NAME(const void *keys, size_t size, size_t count, float *packed) {                                      \
    for (size_t d = 0; d < size; d++)                                                                                        \
      for (size_t j = 0; j < keys_per_block; j++) packed[d * keys_per_block + j] = j < count ? LOAD(keys, j * size + d) : 0; \
  }

#define LOAD_FLOAT32(memory, i) ((const float *)(memory))[i]
#define LOAD_FLOAT16(memory, i) half_to_float(((const uint16_t *)(memory))[i])
#define LOAD_BFLOAT16(memory, i) bfloat_to_float(((const uint16_t *)(memory))[i])
DIRECT(float32, LOAD_FLOAT32)
DIRECT(float16, LOAD_FLOAT16)
DIRECT(bfloat16, LOAD_BFLOAT16)

void nibble_kernels_generic(nibble_kernels *table) {
  *table = (nibble_kernels){
      .widen = {widen_float32, widen_float16, widen_bfloat16, widen_float64, widen_float8_e4m3, widen_float8_e5m2},
      .narrow = {narrow_float32, narrow_float16, narrow_bfloat16, narrow_float64},
      .scale = scale,
      .add = add,
      .clip = clip,
      .sum = sum,
      .square_sum = square_sum,
      .normalize = normalize,
      .rotate_halves = rotate_halves,
      .rotate_pairs = rotate_pairs,
      .activate = activate,
      .gate = gate,
      .maximum = maximum,
      .find = find,
      .exponentials = exponentials,
      .score_direct = {score_float32, score_float16, score_bfloat16},
      .accumulate_direct = {accumulate_float32, accumulate_float16, accumulate_bfloat16},
      .pack_keys = {pack_float32, pack_float16, pack_bfloat16},
      .score_packed = score_packed,
      .accumulate_packed = accumulate_packed,
      .softmax_block = softmax_block,
      .lanes = 1,
  };
}

const nibble_kernels *nibble_active_kernels;

// One table for each family of instruction sets, filled once: a change of level only changes which one is pointed to.
void nibble_kernels_select(uint32_t features) {
  static nibble_kernels generic, vector;
  if (!generic.lanes) nibble_kernels_generic(&generic), nibble_expand_generic(&generic);
  nibble_active_kernels = &generic;
#if defined(__x86_64__)
  if (features & NIBBLE_FEATURE_AVX2) {
    if (!vector.lanes) vector = generic, nibble_kernels_avx2(&vector), nibble_expand_avx2(&vector);
    nibble_active_kernels = &vector;
  }
  static nibble_kernels wide;
  if (features & NIBBLE_FEATURE_AVX512) {
    if (!wide.lanes) wide = vector, nibble_kernels_avx512(&wide), nibble_expand_avx512(&wide);
    nibble_active_kernels = &wide;
  }
#elif defined(__aarch64__)
  if (features & NIBBLE_FEATURE_NEON) {
    if (!vector.lanes) vector = generic, nibble_kernels_neon(&vector);
    nibble_active_kernels = &vector;
  }
#endif
}
