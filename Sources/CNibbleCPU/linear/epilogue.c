// From sums to results: bias, outliers, activation, scale, residual.
#pragma STDC FP_CONTRACT OFF

#include <string.h>

#include "../include/nibble_operations.h"
#include "../kernels.h"

static void store_results(const nibble_linear_arguments *call, const nibble_linear_layer *layer, size_t tile, size_t first_row,
                          size_t rows, const float *bias, float *sums) {
  if (layer->low_rank.ahead) {
    for (size_t i = 0; i < rows * NIBBLE_TILE; i++) sums[i] += layer->low_rank.ahead[first_row * NIBBLE_TILE + i];
  } else if (layer->low_rank.ranks) {
    call->kernels->linear->expand(call, layer, tile, first_row, rows, bias, sums);
  }
  if (call->activation != nibble_identity)
    nibble_activate(call->kernels, call->activation, call->parameter, sums, sums, rows * NIBBLE_TILE);
  size_t column = layer->column + tile * NIBBLE_TILE, columns = linear_smaller(NIBBLE_TILE, layer->N - tile * NIBBLE_TILE);
  for (size_t i = 0; i < rows; i++) {
    size_t t = first_row + i;
    const float *y = sums + i * NIBBLE_TILE;
    float factor = call->row_scale ? call->scale * call->row_scale[t] : call->scale;
    float *out = call->output + t * call->output_stride + column;
    if (call->residual) {
      const float *residual = call->residual + t * call->residual_stride + column;
      for (size_t n = 0; n < columns; n++) out[n] = y[n] * factor + residual[n];
    } else {
      for (size_t n = 0; n < columns; n++) out[n] = y[n] * factor;
    }
  }
}

void linear_load_lanes(const float *values, const nibble_linear_layer *layer, size_t tile, float *lanes) {
  memset(lanes, 0, NIBBLE_TILE * sizeof(float));
  size_t columns = linear_smaller(NIBBLE_TILE, layer->N - tile * NIBBLE_TILE);
  if (values) memcpy(lanes, values + tile * NIBBLE_TILE, columns * sizeof(float));
}

void linear_finish(const nibble_linear_arguments *call, const nibble_linear_layer *layer, size_t tile, size_t first_row,
                   size_t rows, float *sums) {
  bool is_rounded = call->form == NIBBLE_INPUT_F16 || call->form == NIBBLE_INPUT_BF16;
  int32_t dtype = call->form == NIBBLE_INPUT_F16 ? nibble_float16 : nibble_bfloat16;
  float bias[NIBBLE_TILE];
  linear_load_lanes(layer->bias, layer, tile, bias);
  if (layer->bias) {
    if (is_rounded) nibble_round_floats(call->kernels, bias, NIBBLE_TILE, dtype);
    for (size_t i = 0; i < rows; i++)
      for (size_t n = 0; n < NIBBLE_TILE; n++) sums[i * NIBBLE_TILE + n] += bias[n];
  }
  if (is_rounded) nibble_round_floats(call->kernels, sums, rows * NIBBLE_TILE, dtype);
  store_results(call, layer, tile, first_row, rows, bias, sums);
}

/// Adds the products of row t's outliers, in float32.
static void add_outliers(const nibble_linear_arguments *call, const nibble_linear_layer *layer, size_t tile, size_t t,
                         const float *scales, float *y) {
  const float *x = call->x + t * call->K;
  const int32_t *outliers = call->work.outliers + t * call->K;
  size_t columns = linear_smaller(NIBBLE_TILE, layer->N - tile * NIBBLE_TILE);
  const int8_t *w = (const int8_t *)layer->values + tile * NIBBLE_TILE * call->K;
  for (size_t n = 0; n < columns; n++, w += call->K) {
    float sum = 0;
    for (int32_t i = 0; i < call->work.outlier_counts[t]; i++)
      sum += x[outliers[i]] * ((float)w[outliers[i]] * scales[n] * INT8_VALUE_SCALE);
    y[n] += sum;
  }
}

void linear_finish_int8(const nibble_linear_arguments *call, const nibble_linear_layer *layer, size_t tile, size_t first_row,
                        size_t rows, float *sums) {
  float bias[NIBBLE_TILE], scales[NIBBLE_TILE];
  linear_load_lanes(layer->bias, layer, tile, bias);
  linear_load_lanes(layer->scales, layer, tile, scales);
  for (size_t i = 0; i < rows; i++) {
    float *y = sums + i * NIBBLE_TILE;
    if (call->rounds_to_half) {
      // bitsandbytes' product is a float16, to which it adds the bias.
      nibble_round_floats(call->kernels, y, NIBBLE_TILE, nibble_float16);
      for (size_t n = 0; n < NIBBLE_TILE; n++) y[n] += bias[n];
      nibble_round_floats(call->kernels, y, NIBBLE_TILE, nibble_float16);
    }
    if (call->work.outlier_counts[first_row + i]) add_outliers(call, layer, tile, first_row + i, scales, y);
  }
  store_results(call, layer, tile, first_row, rows, bias, sums);
}
