// The operations of recurrent mixers (NibbleCore/Recurrence.swift, which defines them). Letters: T tokens, R rows, C channels,
// k taps, H heads, K key size, V value size, P head size, N state size, G groups.
#pragma once

#include "nibble_operations.h"

enum {
  nibble_channel_block = 64,  // channels of a convolution's item
  nibble_largest_taps = 8,
  nibble_delta_slice = 32,          // value columns of a prompt's item
  nibble_largest_state_size = 256,  // of K, V, P and N
};

/// The rows of a call and the blocks of their states.
typedef struct {
  const int32_t *query_offsets;  // [R + 1]
  const int32_t *lengths;        // [R]
  const int32_t *block_table;    // [R, table_width]
  size_t rows, table_width, blocks;
  int32_t *out_of_range;  // becomes 1 where a row's block is none of the table or of the states; the row is left out
} nibble_recurrent_rows;

/// A matrix [T, width] from its first column on.
typedef struct {
  const float *first;
  size_t width;
} nibble_columns;

/// Items: rows × blocks of nibble_channel_block channels.
typedef struct {
  const nibble_kernels *kernels;
  nibble_recurrent_rows rows;
  nibble_columns input;
  const float *input_gate, *output_gate;  // first column, the input's width, or NULL
  const float *weight;                    // [C, taps]
  const float *bias;                      // [C] or NULL
  float *inputs;                          // [blocks, C, taps − 1]
  float *out;                             // [T, C]
  size_t channels, taps;
  int32_t activation;
  float parameter;
} nibble_convolve_arguments;
void nibble_convolve_task(void *arguments, size_t begin, size_t end, int thread);

/// Items: rows × value heads × slices of `slice` value columns.
typedef struct {
  const nibble_kernels *kernels;
  nibble_recurrent_rows rows;
  nibble_columns mixed;           // [T, 2·Hk·K + Hv·V]
  nibble_columns a, b;            // [T, Hv]
  const float *rate, *time_bias;  // [Hv]
  float *matrix;                  // [blocks, Hv, K, V]
  float *out;                     // [T, Hv·V]
  size_t key_heads, value_heads, key_size, value_size, slice;
} nibble_gated_delta_arguments;
void nibble_gated_delta_task(void *arguments, size_t begin, size_t end, int thread);

/// Items: rows × heads × slices of `slice` elements of a head.
typedef struct {
  const nibble_kernels *kernels;
  nibble_recurrent_rows rows;
  nibble_columns mixed;                  // [T, H·P + 2·G·N]
  nibble_columns dt;                     // [T, H]
  const float *rate, *time_bias, *skip;  // [H]
  float *matrix;                         // [blocks, H, P, N]
  float *out;                            // [T, H·P]
  size_t heads, head_size, groups, state_size, slice;
  float least_time, largest_time, time_scale;
} nibble_state_space_arguments;
void nibble_state_space_task(void *arguments, size_t begin, size_t end, int thread);

/// Items: runs of `width` elements.
typedef struct {
  const nibble_kernels *kernels;
  const float *input;  // [T, runs · width]
  nibble_columns gate;
  float *out;  // may be `input`
  size_t width, runs;
  nibble_head_layout layout;  // of the gate
  nibble_norm norm;
  size_t weight_stride;  // elements from one run's weights to the next one's: 0 or `width`
  int32_t has_norm, gate_first;
  int32_t activation;
  float parameter, gate_scale;
} nibble_gated_norm_arguments;
void nibble_gated_norm_task(void *arguments, size_t begin, size_t end, int thread);
