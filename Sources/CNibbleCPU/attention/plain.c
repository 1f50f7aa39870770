// The plain form of every loop of attention.
#include <math.h>
#include <string.h>

#include "../formats/half.h"
#include "attention_kernels.h"

#define LEVEL generic
#include "templates/expand.inc"

static float softmax_block_generic(float *scores, float *maximum, float *sum) {
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

static void score_packed_generic(const float *queries, size_t query_stride, size_t rows, const float *packed, size_t size,
                                 float *scores) {
  for (size_t m = 0; m < rows; m++)
    for (size_t j = 0; j < keys_per_block; j++) {
      float sum = 0;
      for (size_t d = 0; d < size; d++) sum += queries[m * query_stride + d] * packed[d * keys_per_block + j];
      scores[m * keys_per_block + j] = sum;
    }
}

static void accumulate_packed_generic(const float *p, size_t rows, const float *correction, const float *values, size_t stride,
                                      size_t count, float *acc) {
  for (size_t m = 0; m < rows; m++)
    for (size_t d = 0; d < stride; d++) {
      float sum = acc[m * stride + d] * correction[m];
      for (size_t j = 0; j < count; j++) sum += p[m * keys_per_block + j] * values[j * stride + d];
      acc[m * stride + d] = sum;
    }
}

#define DIRECT(NAME, LOAD)                                                                                                   \
  static void score_##NAME##_generic(const float *queries, size_t query_stride, size_t rows, const void *keys,               \
                                     const void *ahead, size_t size, size_t count, float *scores) {                          \
    (void)ahead;                                                                                                             \
    for (size_t m = 0; m < rows; m++)                                                                                        \
      for (size_t j = 0; j < count; j++) {                                                                                   \
        float sum = 0;                                                                                                       \
        for (size_t d = 0; d < size; d++) sum += queries[m * query_stride + d] * LOAD(keys, j * size + d);                   \
        scores[m * keys_per_block + j] = sum;                                                                                \
      }                                                                                                                      \
  }                                                                                                                          \
  static void accumulate_##NAME##_generic(const float *p, size_t rows, const float *correction, const void *values,          \
                                          const void *ahead, size_t size, size_t count, float *acc, size_t acc_stride) {     \
    (void)ahead;                                                                                                             \
    for (size_t m = 0; m < rows; m++)                                                                                        \
      for (size_t d = 0; d < size; d++) {                                                                                    \
        float sum = acc[m * acc_stride + d] * correction[m];                                                                 \
        for (size_t j = 0; j < count; j++) sum += p[m * keys_per_block + j] * LOAD(values, j * size + d);                    \
        acc[m * acc_stride + d] = sum;                                                                                       \
      }                                                                                                                      \
  }                                                                                                                          \
  static void pack_##NAME##_generic(const void *keys, size_t size, size_t count, float *packed) {                            \
    for (size_t d = 0; d < size; d++)                                                                                        \
      for (size_t j = 0; j < keys_per_block; j++) packed[d * keys_per_block + j] = j < count ? LOAD(keys, j * size + d) : 0; \
  }

#define LOAD_FLOAT32(memory, i) ((const float *)(memory))[i]
#define LOAD_FLOAT16(memory, i) half_to_float(((const uint16_t *)(memory))[i])
#define LOAD_BFLOAT16(memory, i) bfloat_to_float(((const uint16_t *)(memory))[i])
DIRECT(float32, LOAD_FLOAT32)
DIRECT(float16, LOAD_FLOAT16)
DIRECT(bfloat16, LOAD_BFLOAT16)

const attention_kernels nibble_attention_generic = {
    .score_direct = {score_float32_generic, score_float16_generic, score_bfloat16_generic},
    .accumulate_direct = {accumulate_float32_generic, accumulate_float16_generic, accumulate_bfloat16_generic},
    .pack_keys = {pack_float32_generic, pack_float16_generic, pack_bfloat16_generic},
    .score_packed = score_packed_generic,
    .accumulate_packed = accumulate_packed_generic,
    .softmax_block = softmax_block_generic,
    .expand_codes = {expand2_generic, expand4_generic, expand8_generic},
    .lanes = 1,
};
