// Attention over the block-wise cache: softmax(cap(QKᵀ × scale) + bias + mask) · V in one pass with an online softmax (Milakov
// and Gimelshein 2018; FlashAttention, arXiv 2205.14135).
#pragma once

#include "nibble_operations.h"

/// Consecutive tokens of one row that are handled together.
typedef struct {
  int32_t row, first_token, tokens;
} nibble_attention_tile;

typedef struct {
  const nibble_kernels *kernels;
  const float *queries;
  float *out;  // [T, H × value size]
  size_t width, heads;
  nibble_head_layout query;
  nibble_cache cache;
  const int32_t *positions, *query_offsets, *lengths;
  size_t tokens, rows, maximum_query_length, maximum_length;
  float scale;
  float soft_cap;  // 0 for none
  int64_t window;  // INT64_MAX for none
  int32_t is_causal;
  /// Read keys in one order whatever the call's tokens and the threads, so that a row's result does not depend on them.
  int32_t batch_invariant;
  const float *slopes;        // ALiBi [H], or NULL
  const float *bucket_table;  // T5 [buckets, H], or NULL
  size_t buckets;
  int32_t is_bidirectional;
  int64_t maximum_distance;
  const float *sinks;     // [H]: a score more in the softmax's denominator, or NULL
  int32_t *out_of_range;  // becomes 1 when a length exceeds the block table, or a block number the cache

  // Filled by nibble_attention_plan and nibble_attention_prepare.
  size_t tile_tokens, tile_rows, tile_limit, splits, span;
  size_t scratch_floats, partial_floats;
  size_t tile_count;
  nibble_attention_tile *tiles;
  float *distance_bias;  // [H, 2 × span + 1]: the bias by key − query, limited to ±span
  float *scratch, *partials;
} nibble_attention_arguments;

/// Chooses tiles and splits. Returns the bytes of workspace needed; 0 when sizes overflow.
size_t nibble_attention_plan(nibble_attention_arguments *arguments, int threads);
/// Divides the workspace and fills tiles and the distance bias.
void nibble_attention_prepare(nibble_attention_arguments *arguments, void *workspace, int threads);
/// Items of the two tasks.
size_t nibble_attention_items(const nibble_attention_arguments *arguments);
size_t nibble_attention_merge_items(const nibble_attention_arguments *arguments);
void nibble_attention_task(void *arguments, size_t begin, size_t end, int thread);
/// Merges the partial results of rows whose keys were split over threads; needed when `splits` > 1.
void nibble_attention_merge_task(void *arguments, size_t begin, size_t end, int thread);

/// T5's bucket for key − query.
size_t nibble_relative_bucket(int64_t relative, int is_bidirectional, size_t buckets, int64_t maximum_distance);
