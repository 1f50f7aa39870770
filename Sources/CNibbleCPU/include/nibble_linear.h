// Linear layers: output = activation(x · Wᵀ + bias) × scale × row_scale[t] + residual, for every form of weight.
//
// Letters: T rows of the input, K input features, N output features. A call covers layers that read the same input in the
// same form. It runs in two loops that a thread pool splits: `nibble_linear_input_task` over the T rows brings the input into
// its form, `nibble_linear_task` over tiles of 16 output features multiplies. Few rows are a GEMV, bound by memory; more are a
// GEMM, bound by arithmetic.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nibble_levels.h"
#include "nibble_quantize.h"

enum { NIBBLE_TILE = 16 };

typedef enum {
  /// float32, float16 or bfloat16 [N, K]
  NIBBLE_WEIGHT_DENSE,
  /// 4-bit codes in the canonical layout: the flattened [N, K], two a byte
  NIBBLE_WEIGHT_4BIT,
  /// 4-bit codes in tiles: [⌈N / 16⌉, K / 8, 16, 4 bytes], and plain scales as [⌈N / 16⌉, K / block, 16]
  NIBBLE_WEIGHT_4BIT_TILED,
  /// int8 [N, K] with float32 [N] scales
  NIBBLE_WEIGHT_INT8,
} nibble_weight_kind;

/// The low-rank sums of a layer, of all adapters: y[t] += Σ_i w[t, i] · gain_i ⊙ (B_i · (scale_i ⊙ A_i x[t]) + bias_i), before
/// the activation. The product without the layer's bias is multiplied by 1 + Σ_i (gain_i − 1) over the adapters with w[t, i] ≠ 0.
typedef struct {
  /// R: ranks of all adapters together, a multiple of 8, eight neighbours of one adapter; 0: there are none
  size_t ranks;
  /// [R, K] and [N, R] with their types of nibble_operations.h
  const void *a, *b;
  int32_t a_dtype, b_dtype;
  /// float32 [R], int32 [R] in ascending order
  const float *scales;
  const int32_t *adapters;
  /// float32 [adapters, N] or NULL
  const float *biases, *gains;
  /// The column of `work.low_rank` where the layer's ranks begin.
  size_t first;
  /// Of a tile that is computed: its sums, [T, 16], where they were made ahead.
  const float *ahead;
} nibble_low_rank;

typedef struct {
  nibble_weight_kind kind;
  /// of dense values: one of nibble_operations.h
  int32_t dtype;
  nibble_codebook codebook;
  size_t N, block_size;
  const void *values;
  /// NULL where the scales are nested or powers of two
  const float *scales;
  /// Nested scales, always in the canonical layout: uint8 [blocks], float32 [⌈blocks / 256⌉]. Without the latter the former are
  /// exponents of powers of two.
  const uint8_t *scale_codes;
  const float *nested_absmax;
  float nested_offset;
  /// float32 [N] or NULL
  const float *bias;
  /// The output column of the first feature.
  size_t column;
  nibble_low_rank low_rank;
} nibble_linear_layer;

/// The form in which the input is multiplied.
typedef enum {
  /// unchanged
  NIBBLE_INPUT_F32,
  /// rounded; weights and results are rounded to the same type
  NIBBLE_INPUT_F16,
  NIBBLE_INPUT_BF16,
  /// rows quantized against their absmax, without their outliers (LLM.int8())
  NIBBLE_INPUT_INT8,
  /// runs of `input_block` columns quantized against their absmax; for tiled 4-bit weights
  NIBBLE_INPUT_INT8_RUNS,
} nibble_input_form;

typedef struct {
  /// Those of the pool's level.
  const nibble_kernels *kernels;
  /// float32 [T, K]
  const float *x;
  size_t T, K;
  nibble_input_form form;
  /// float32 times 4-bit weights: float16's precision suffices, though not its range
  bool half_precision;
  /// int8 runs: their length, a divisor of K and of the layers' block sizes
  size_t input_block;
  /// int8: |x| >= threshold is an outlier; 0: there are none
  float threshold;
  /// int8: an outlier makes its column an outlier in every row of the call
  bool shares_outlier_columns;
  /// int8: round x to float16 first, and the int8 part of the result
  bool rounds_to_half;
  /// Multiply few rows in the order of many, so that a row's result does not depend on T.
  bool batch_invariant;

  const nibble_linear_layer *layers;
  size_t layer_count;

  /// Adapters: float32 [slots, adapter_stride] weights, and int32 [T] slots or NULL: slot 0. A negative slot uses none.
  const float *adapter_weights;
  size_t adapter_stride;
  const int32_t *adapter_slots;
  /// R of all layers
  size_t ranks;

  float *output;
  size_t output_stride;
  /// of nibble_operations.h, with its parameter
  int32_t activation;
  float parameter, scale;
  /// float32 [T] or NULL
  const float *row_scale;
  /// NULL, or rows like the output's; may be the output
  const float *residual;
  size_t residual_stride;

  /// Set by nibble_linear_workspace and nibble_linear_bind.
  struct {
    /// [T, K] in float32, where the form is a rounded one
    float *rounded;
    /// [T, padded K]: bfloat16, or int8 or int16 codes, as the kernels want them
    void *packed;
    /// int8: [T] absmax and sum of codes; runs: [T, K / input_block], scaled for the products
    float *row_absmax;
    int32_t *row_sums;
    /// int8: [T] counts, [T, K] ascending columns, [K] flags
    int32_t *outlier_counts, *outliers;
    uint8_t *column_flags;
    /// float32 [T, ranks]: weight × scale × A x
    float *low_rank;
    /// one piece of `scratch_bytes` per thread
    char *scratch;
    size_t scratch_bytes;
  } work;
} nibble_linear_arguments;

/// The length of int8 runs for 4-bit weights of this shape, 0 where the level has no kernels for them.
size_t nibble_linear_input_block(const nibble_kernels *kernels, size_t K, size_t block_size);

/// Bytes of workspace the call needs. Falls back to NIBBLE_INPUT_F32 where the level has no kernels for int8 runs.
size_t nibble_linear_workspace(nibble_linear_arguments *call, int threads);
/// Points `call->work` into workspace aligned to 64 bytes.
void nibble_linear_bind(nibble_linear_arguments *call, void *workspace, int threads);

/// Whether the input has to be brought into its form: a loop over T rows with nibble_linear_input_task.
bool nibble_linear_needs_input(const nibble_linear_arguments *call);
/// To be called before the loop over rows: finds the outlier columns that the call's rows share, if they do.
void nibble_linear_find_columns(nibble_linear_arguments *call);
void nibble_linear_input_task(void *call, size_t begin, size_t end, int thread);

/// Units of the loop over the layers' ranks, which comes before that over tiles; 0 without adapters.
size_t nibble_linear_rank_units(const nibble_linear_arguments *call);
void nibble_linear_rank_task(void *call, size_t begin, size_t end, int thread);

/// Tiles of all layers together.
size_t nibble_linear_tiles(const nibble_linear_arguments *call);
void nibble_linear_task(void *call, size_t begin, size_t end, int thread);

/// Calls that run in the same two loops, such as those of a mixture's experts: each has rows of its own.
typedef struct {
  nibble_linear_arguments *calls;
  size_t count;
} nibble_linear_batch;

size_t nibble_linear_batch_workspace(nibble_linear_batch *batch, int threads);
void nibble_linear_batch_bind(nibble_linear_batch *batch, void *workspace, int threads);
/// Rows of those calls whose input has to be brought into its form.
size_t nibble_linear_batch_rows(const nibble_linear_batch *batch);
void nibble_linear_batch_input_task(void *batch, size_t begin, size_t end, int thread);
/// Tiles of all calls together.
size_t nibble_linear_batch_tiles(const nibble_linear_batch *batch);
void nibble_linear_batch_task(void *batch, size_t begin, size_t end, int thread);

/// Whether K and the block size allow tiles: blocks end where rows do, and rows are whole groups of 8.
bool nibble_can_tile_4bit(size_t K, size_t block_size);
/// Rearranges tiles `begin ..< end`; rows beyond N become zeros. Codes or plain scales may be NULL.
void nibble_tile_4bit(const uint8_t *codes, const float *scales, size_t N, size_t K, size_t block_size, size_t begin, size_t end,
                      uint8_t *tiled_codes, float *tiled_scales);
/// The exact inverse.
void nibble_untile_4bit(const uint8_t *tiled_codes, const float *tiled_scales, size_t N, size_t K, size_t block_size,
                        size_t begin, size_t end, uint8_t *codes, float *scales);
