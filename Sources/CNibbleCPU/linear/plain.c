// The plain form of linear layers: what every kernel must compute, in the order that reads best.
#pragma STDC FP_CONTRACT OFF

#include <math.h>
#include <string.h>

#include "../formats/codebooks.h"
#include "../formats/half.h"
#include "../include/nibble_operations.h"
#include "linear_kernels.h"

static bool needs_input_generic(const nibble_linear_arguments *call) { return call->form != NIBBLE_INPUT_F32; }

static size_t packed_element_generic(const nibble_linear_arguments *call) {
  return call->form == NIBBLE_INPUT_INT8 ? sizeof(int8_t) : 0;
}

static float round_to_half_generic(float value) { return half_to_float(float_to_half(value)); }

static float round_to_generic(float value, nibble_input_form form) {
  if (form == NIBBLE_INPUT_F16) return round_to_half_generic(value);
  return form == NIBBLE_INPUT_BF16 ? bfloat_to_float(float_to_bfloat(value)) : value;
}

// MARK: Input

/// Lists row t's outliers and quantizes the rest to round(x × 127 / absmax).
static void quantize_row_generic(const nibble_linear_arguments *call, size_t t) {
  const float *x = call->x + t * call->K;
  size_t stride = linear_packed_stride(call);
  int8_t *codes = (int8_t *)call->work.packed + t * stride;
  const uint8_t *shared = call->threshold > 0 && call->shares_outlier_columns ? call->work.column_flags : NULL;
  int32_t *outliers = call->threshold > 0 ? call->work.outliers + t * call->K : NULL, count = 0;
  float absmax = 0;
  for (size_t k = 0; k < call->K; k++) {
    float magnitude = fabsf(call->rounds_to_half ? round_to_half_generic(x[k]) : x[k]);
    bool is_outlier = outliers && magnitude >= call->threshold;
    if (outliers && (shared ? shared[k] : is_outlier)) outliers[count++] = (int32_t)k;
    if (!is_outlier && magnitude > absmax) absmax = magnitude;
  }
  float factor = absmax > 1e-30f ? 127 * (1 / absmax) : 0;
  int32_t sum = 0, next = 0;
  memset(codes, 0, stride);
  for (size_t k = 0; k < call->K; k++) {
    if (next < count && outliers[next] == (int32_t)k) {
      next++;
      continue;
    }
    float value = call->rounds_to_half ? round_to_half_generic(x[k]) : x[k];
    codes[k] = (int8_t)nearbyintf(value * factor);
    sum += codes[k];
  }
  call->work.row_absmax[t] = absmax;
  call->work.row_sums[t] = sum;
  call->work.outlier_counts[t] = count;
}

static void prepare_input_generic(const nibble_linear_arguments *call, size_t begin, size_t end) {
  for (size_t t = begin; t < end; t++) {
    if (call->form == NIBBLE_INPUT_INT8) {
      quantize_row_generic(call, t);
      continue;
    }
    for (size_t i = t * call->K; i < (t + 1) * call->K; i++) call->work.rounded[i] = round_to_generic(call->x[i], call->form);
  }
}

// MARK: Weights

static float four_bit_value_generic(const nibble_linear_layer *layer, linear_scales scales, size_t K, size_t n, size_t k) {
  size_t element = n * K + k, block = element / layer->block_size, byte = element / 2;
  if (layer->kind == NIBBLE_WEIGHT_4BIT_TILED) {
    size_t tile = n / NIBBLE_TILE, lane = n % NIBBLE_TILE;
    byte = ((tile * (K / 8) + k / 8) * NIBBLE_TILE + lane) * 4 + k % 8 / 2;
    block = (tile * (K / layer->block_size) + k / layer->block_size) * NIBBLE_TILE + lane;
  }
  uint8_t codes = ((const uint8_t *)layer->values)[byte];
  return nibble_codebook_values(layer->codebook)[element & 1 ? codes & 15 : codes >> 4] * scales.scales[block - scales.first];
}

static float weight_value_generic(const nibble_linear_arguments *call, const nibble_linear_layer *layer, linear_scales scales,
                                  size_t n, size_t k) {
  if (layer->kind == NIBBLE_WEIGHT_DENSE) {
    size_t element = n * call->K + k;
    if (layer->dtype == nibble_float32) return ((const float *)layer->values)[element];
    uint16_t half = ((const uint16_t *)layer->values)[element];
    return layer->dtype == nibble_float16 ? half_to_float(half) : bfloat_to_float(half);
  }
  return round_to_generic(four_bit_value_generic(layer, scales, call->K, n, k), call->form);
}

// MARK: Products

static float float_product_generic(const nibble_linear_arguments *call, const nibble_linear_layer *layer, linear_scales scales,
                                   size_t t, size_t n) {
  const float *x = (call->form == NIBBLE_INPUT_F32 ? call->x : call->work.rounded) + t * call->K;
  float sum = 0, bias = layer->bias ? round_to_generic(layer->bias[n], call->form) : 0;
  for (size_t k = 0; k < call->K; k++) sum += x[k] * weight_value_generic(call, layer, scales, n, k);
  return round_to_generic(sum + bias, call->form);
}

static float int8_product_generic(const nibble_linear_arguments *call, const nibble_linear_layer *layer, size_t t, size_t n) {
  const int8_t *x = (const int8_t *)call->work.packed + t * linear_packed_stride(call);
  const int8_t *w = (const int8_t *)layer->values + n * call->K;
  uint32_t sum = 0;  // Wraps around as the vector instructions do.
  for (size_t k = 0; k < call->K; k++) sum += (uint32_t)(x[k] * w[k]);
  float bias = layer->bias ? layer->bias[n] : 0;
  float scaled = (float)(int32_t)sum * call->work.row_absmax[t] * layer->scales[n];
  float y;
  if (call->rounds_to_half) {
    y = round_to_half_generic(scaled * INT8_PRODUCT_SCALE);
    if (layer->bias) y = round_to_half_generic(y + bias);
  } else {
    y = fmaf(scaled, INT8_PRODUCT_SCALE, bias);
  }
  float correction = 0;
  for (int32_t i = 0; i < call->work.outlier_counts[t]; i++) {
    int32_t k = call->work.outliers[t * call->K + (size_t)i];
    correction += call->x[t * call->K + (size_t)k] * ((float)w[k] * layer->scales[n] * INT8_VALUE_SCALE);
  }
  return y + correction;
}

// MARK: Adapters

static float matrix_value_generic(const void *values, int32_t dtype, size_t index) {
  if (dtype == nibble_float32) return ((const float *)values)[index];
  uint16_t half = ((const uint16_t *)values)[index];
  return dtype == nibble_float16 ? half_to_float(half) : bfloat_to_float(half);
}

static void shrink_generic(const nibble_linear_arguments *call, const nibble_linear_layer *layer, size_t unit) {
  const nibble_low_rank *low = &layer->low_rank;
  for (size_t t = 0; t < call->T; t++) {
    for (size_t r = unit; r < low->ranks; r += low->ranks / RANK_UNIT) {
      float sum = 0, weight = linear_adapter_weight(call, t, low->adapters[r]);
      for (size_t k = 0; k < call->K; k++)
        sum += call->x[t * call->K + k] * matrix_value_generic(low->a, low->a_dtype, r * call->K + k);
      // A row that does not use the adapter must not see its overflows.
      call->work.low_rank[t * call->ranks + low->first + r] = weight == 0 ? 0 : weight * low->scales[r] * sum;
    }
  }
}

/// y, which includes the layer's bias, with the low-rank sums of output n of row t.
static float add_low_rank_generic(const nibble_linear_arguments *call, const nibble_linear_layer *layer, size_t t, size_t n,
                                  float y) {
  const nibble_low_rank *low = &layer->low_rank;
  const float *u = call->work.low_rank + t * call->ranks + low->first;
  float delta = 0, factor = 1, bias = layer->bias ? round_to_generic(layer->bias[n], call->form) : 0;
  for (size_t r = 0; r < low->ranks;) {
    int32_t adapter = low->adapters[r];
    float weight = linear_adapter_weight(call, t, adapter), sum = 0;
    for (; r < low->ranks && low->adapters[r] == adapter; r++)
      if (weight != 0) sum += u[r] * matrix_value_generic(low->b, low->b_dtype, n * low->ranks + r);
    if (weight == 0) continue;
    size_t at = (size_t)adapter * layer->N + n;
    if (low->biases) sum += weight * low->biases[at];
    if (low->gains) factor += low->gains[at] - 1;
    delta += low->gains ? low->gains[at] * sum : sum;
  }
  return (y - bias) * factor + bias + delta;
}

static void gemv_generic(const nibble_linear_arguments *call, const nibble_linear_layer *layer, linear_scales scales, size_t tile,
                         linear_scratch *scratch) {
  (void)scratch;
  size_t end = linear_smaller((tile + 1) * NIBBLE_TILE, layer->N);
  for (size_t t = 0; t < call->T; t++) {
    for (size_t n = tile * NIBBLE_TILE; n < end; n++) {
      float y = layer->kind == NIBBLE_WEIGHT_INT8 ? int8_product_generic(call, layer, t, n)
                                                  : float_product_generic(call, layer, scales, t, n);
      if (layer->low_rank.ranks) y = add_low_rank_generic(call, layer, t, n, y);
      nibble_activate(call->kernels, call->activation, call->parameter, &y, &y, 1);
      y *= call->scale;
      if (call->row_scale) y *= call->row_scale[t];
      if (call->residual) y += call->residual[t * call->residual_stride + layer->column + n];
      call->output[t * call->output_stride + layer->column + n] = y;
    }
  }
}

const linear_kernels nibble_linear_generic = {
    .needs_input = needs_input_generic,
    .packed_element = packed_element_generic,
    .prepare_input = prepare_input_generic,
    .gemv = gemv_generic,
    .shrink = shrink_generic,
};
