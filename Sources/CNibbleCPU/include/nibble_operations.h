// Operations beside linear layers, attention and selection. Each has a structure of arguments and a task that handles a range of
// items on one thread of a pool (nibble_pool.h). `kernels` are those of the pool's level. Activations are float32. Letters:
// T tokens, R rows, E model width, H query heads, G key/value heads, D head size, F feed-forward width.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nibble_levels.h"

enum {
  nibble_float32 = 0,
  nibble_float16 = 1,
  nibble_bfloat16 = 2,
  nibble_float64 = 3,
  nibble_float8_e4m3 = 4,
  nibble_float8_e5m2 = 5,
};

/// Pointwise functions, as NibbleCore.Activation.
enum {
  nibble_identity = 0,
  nibble_relu = 1,
  nibble_relu_squared = 2,
  nibble_gelu = 3,
  nibble_gelu_tanh = 4,
  nibble_quick_gelu = 5,
  nibble_silu = 6,
  nibble_sigmoid = 7,
  nibble_tanh = 8,
  /// c · tanh(x / c) with c = parameter
  nibble_soft_cap = 9,
};

/// out[i] = activation(x[i]); `out` may be `x`.
void nibble_activate(const nibble_kernels *kernels, int32_t activation, float parameter, const float *x, float *out,
                     size_t count);

/// Bytes of one element.
size_t nibble_dtype_size(int32_t dtype);

/// Converts `count` floats of any dtype to float32, and back to float32, float16, bfloat16 or float64 (to nearest, ties to
/// even).
void nibble_widen(const nibble_kernels *kernels, int32_t dtype, const void *source, float *out, size_t count);
void nibble_narrow(const nibble_kernels *kernels, int32_t dtype, const float *source, void *out, size_t count);

/// Items: elements.
typedef struct {
  const nibble_kernels *kernels;
  const void *source;
  void *out;
  int32_t source_dtype, out_dtype;
} nibble_convert_arguments;
void nibble_convert_task(void *arguments, size_t begin, size_t end, int thread);

/// Items: tokens. Ids and positions have been checked.
typedef struct {
  const nibble_kernels *kernels;
  const void *table;
  const void *position_table;  // or NULL
  const int32_t *tokens, *positions;
  float *out;
  size_t width;
  float scale;
  int32_t table_dtype, position_dtype;
} nibble_embed_arguments;
void nibble_embed_task(void *arguments, size_t begin, size_t end, int thread);

typedef struct {
  const float *weight, *bias;  // or NULL
  float epsilon;
  int32_t is_layer;  // centred, else root mean square
} nibble_norm;

/// Items: runs of `width` elements.
typedef struct {
  const nibble_kernels *kernels;
  const float *input;
  const float *residual;  // or NULL
  float *out;
  size_t width;
  nibble_norm norm;
} nibble_normalize_arguments;
void nibble_normalize_task(void *arguments, size_t begin, size_t end, int thread);

/// Where heads lie in a row of projections: head h begins at offset + (h / group) × stride + (h mod group) × D.
typedef struct {
  size_t offset, stride, group;
} nibble_head_layout;

/// One layer's block-wise cache and the blocks of each row.
typedef struct {
  void *keys, *values;
  const int32_t *block_table;  // [R, table_width]
  size_t table_width, blocks, heads, key_size, value_size;
  int32_t dtype;  // of a dense cache
  int32_t bits;   // of a quantized one (NibbleCore.KeyValueQuantization), else 0
  size_t group_size;
} nibble_cache;

enum { nibble_block_size = 32 };

/// Items: tokens. `out_of_range` becomes 1 when a position lies outside the table or the rotary table; nothing is written then.
typedef struct {
  const nibble_kernels *kernels;
  float *projections;
  const int32_t *positions, *rows;
  const float *cosines, *sines;  // [P, rotated / 2], or NULL
  size_t width, heads, rotated, rotary_positions;
  nibble_head_layout query, key, value;
  nibble_cache cache;
  nibble_norm query_norm, key_norm;
  size_t query_norm_width, key_norm_width;  // elements of the weights: D, or all heads'
  int32_t norm_scope;                       // 0 none, 1 head, 2 token, 3 head after rotation
  size_t key_value_heads;                   // the cache's heads, or 0 for queries alone
  nibble_norm value_norm;                   // of each head, without weights
  int32_t norms_values;
  int32_t is_interleaved;
  float clip;  // infinite for none
  // Queries at position p are multiplied by 1 + beta * log(1 + p / length).
  float temperature_beta;      // 0 for none
  int32_t temperature_length;  // at least 1
  int32_t *out_of_range;
} nibble_rotate_arguments;
void nibble_rotate_task(void *arguments, size_t begin, size_t end, int thread);

/// Items: rows of [T, 2F].
typedef struct {
  const nibble_kernels *kernels;
  const float *input;
  float *out;
  size_t width;  // F
  int32_t activation;
  float parameter;
  /// Whether the halves go through the clamped GLU of this limit and alpha instead of the activation.
  bool is_clamped_glu;
  float limit, alpha;
} nibble_gate_arguments;
void nibble_gate_task(void *arguments, size_t begin, size_t end, int thread);

/// Items: rows of [T, width] and [T, factors_width], of which the columns from the first factor on are read.
typedef struct {
  const nibble_kernels *kernels;
  const float *input, *factors;
  float *out;
  size_t width, factors_width;
  int32_t identity;  // the code of the activation that changes nothing
} nibble_multiply_arguments;
void nibble_multiply_task(void *arguments, size_t begin, size_t end, int thread);

/// Items: elements.
typedef struct {
  const nibble_kernels *kernels;
  const float *a, *b;
  float *out;
  float scale;
} nibble_add_arguments;
void nibble_add_task(void *arguments, size_t begin, size_t end, int thread);

/// Items: indices. They have been checked.
typedef struct {
  const void *input;
  void *out;
  const int32_t *indices;
  size_t row_bytes;
} nibble_gather_arguments;
void nibble_gather_task(void *arguments, size_t begin, size_t end, int thread);

/// Items: bytes of a block. A thread copies its bytes of every pair in turn, so that later pairs see what earlier ones copied.
typedef struct {
  void *memory;
  const int32_t *pairs;  // [pair_count, 2]: from, to
  size_t pair_count, block_bytes;
} nibble_copy_blocks_arguments;
void nibble_copy_blocks_task(void *arguments, size_t begin, size_t end, int thread);
