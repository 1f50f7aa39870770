// Norms and rotary embedding of queries and keys, and the KV write.
#include <math.h>
#include <string.h>

#include "../elementwise/norm.h"
#include "../include/nibble_operations.h"
#include "../kernels.h"
#include "cache_codes.h"

static float *head_of(float *row, const nibble_head_layout *layout, size_t head, size_t size) {
  return row + layout->offset + head / layout->group * layout->stride + head % layout->group * size;
}

static const float *offset_or_null(const float *base, size_t offset) { return base ? base + offset : NULL; }

static void norm_each_head(const nibble_kernels *kernels, float *row, const nibble_head_layout *layout, size_t heads, size_t size,
                           const nibble_norm *norm, size_t norm_width) {
  for (size_t h = 0; h < heads; h++) {
    float *x = head_of(row, layout, h, size);
    size_t at = norm_width > size ? h * size : 0;
    nibble_normalize(kernels, norm, x, offset_or_null(norm->weight, at), offset_or_null(norm->bias, at), NULL, x, size);
  }
}

static void norm_all_heads(const nibble_kernels *kernels, float *row, const nibble_head_layout *layout, size_t heads, size_t size,
                           const nibble_norm *norm) {
  const elementwise_kernels *k = kernels->elementwise;
  float centre = 0, squares = 0;
  size_t count = heads * size;
  if (norm->is_layer) {
    for (size_t h = 0; h < heads; h++) centre += k->sum(head_of(row, layout, h, size), size);
    centre /= (float)count;
  }
  for (size_t h = 0; h < heads; h++) squares += k->square_sum(head_of(row, layout, h, size), centre, size);
  float factor = nibble_norm_factor(norm, squares, count);
  for (size_t h = 0; h < heads; h++) {
    float *x = head_of(row, layout, h, size);
    k->normalize(x, centre, factor, offset_or_null(norm->weight, h * size), offset_or_null(norm->bias, h * size), NULL, x, size);
  }
}

static void clip_heads(const elementwise_kernels *k, float *row, const nibble_head_layout *layout, size_t heads, size_t size,
                       float limit) {
  for (size_t h = 0; h < heads; h++) k->clip(head_of(row, layout, h, size), limit, size);
}

static void norm_heads(const nibble_rotate_arguments *a, float *row, const nibble_head_layout *layout, size_t heads,
                       const nibble_norm *norm, size_t norm_width) {
  if (a->norm_scope == 1 || a->norm_scope == 3)
    norm_each_head(a->kernels, row, layout, heads, a->cache.key_size, norm, norm_width);
  if (a->norm_scope == 2 && heads) norm_all_heads(a->kernels, row, layout, heads, a->cache.key_size, norm);
}

static void norm_queries_and_keys(const nibble_rotate_arguments *a, float *row) {
  norm_heads(a, row, &a->query, a->heads, &a->query_norm, a->query_norm_width);
  norm_heads(a, row, &a->key, a->key_value_heads, &a->key_norm, a->key_norm_width);
}

static void rotate_heads(const nibble_rotate_arguments *a, float *row, const nibble_head_layout *layout, size_t heads,
                         size_t position) {
  if (!a->cosines) return;
  const elementwise_kernels *k = a->kernels->elementwise;
  size_t half = a->rotated / 2;
  const float *cosines = a->cosines + position * half, *sines = a->sines + position * half;
  for (size_t h = 0; h < heads; h++) {
    float *x = head_of(row, layout, h, a->cache.key_size);
    if (a->is_interleaved) {
      k->rotate_pairs(x, cosines, sines, half);
    } else {
      k->rotate_halves(x, cosines, sines, half);
    }
  }
}

static void scale_queries(const nibble_rotate_arguments *a, float *row, size_t position) {
  if (a->temperature_beta == 0) return;
  float factor = 1 + a->temperature_beta * logf(1 + (float)(position / (size_t)a->temperature_length));
  for (size_t h = 0; h < a->heads; h++) {
    float *x = head_of(row, &a->query, h, a->cache.key_size);
    for (size_t d = 0; d < a->cache.key_size; d++) x[d] *= factor;
  }
}

static void store_heads(const nibble_rotate_arguments *a, float *row, const nibble_head_layout *layout, size_t size, void *memory,
                        size_t block, size_t slot) {
  const nibble_cache *cache = &a->cache;
  if (cache->bits) {
    size_t bytes = nibble_block_size * nibble_quantized_bytes(size, cache->group_size, cache->bits);
    for (size_t g = 0; g < cache->heads; g++)
      nibble_store_codes(head_of(row, layout, g, size), size, cache->group_size, cache->bits,
                         (char *)memory + (block * cache->heads + g) * bytes, slot);
    return;
  }
  size_t element = nibble_dtype_size(cache->dtype);
  for (size_t g = 0; g < cache->heads; g++) {
    size_t at = ((block * cache->heads + g) * nibble_block_size + slot) * size * element;
    a->kernels->elementwise->narrow[cache->dtype](head_of(row, layout, g, size), (char *)memory + at, size);
  }
}

// The block that holds a token's position, or −1 where the position or the table's entry is out of range.
static int64_t block_of(const nibble_rotate_arguments *a, size_t t) {
  int64_t position = a->positions[t];
  const nibble_cache *cache = &a->cache;
  if (position < 0 || (size_t)position / nibble_block_size >= cache->table_width) return -1;
  if (a->cosines && (size_t)position >= a->rotary_positions) return -1;
  int64_t block = cache->block_table[(size_t)a->rows[t] * cache->table_width + (size_t)position / nibble_block_size];
  return block >= 0 && (size_t)block < cache->blocks ? block : -1;
}

void nibble_rotate_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_rotate_arguments *a = arguments;
  const elementwise_kernels *k = a->kernels->elementwise;
  const nibble_cache *cache = &a->cache;
  for (size_t t = begin; t < end; t++) {
    int64_t block = block_of(a, t);
    if (block < 0) {
      __atomic_store_n(a->out_of_range, 1, __ATOMIC_RELAXED);
      continue;
    }
    float *row = a->projections + t * a->width;
    size_t position = (size_t)a->positions[t];
    if (a->norm_scope != 3) norm_queries_and_keys(a, row);
    if (a->norms_values) norm_each_head(a->kernels, row, &a->value, a->key_value_heads, cache->value_size, &a->value_norm, 0);
    if (a->clip < INFINITY) {
      clip_heads(k, row, &a->query, a->heads, cache->key_size, a->clip);
      clip_heads(k, row, &a->key, a->key_value_heads, cache->key_size, a->clip);
      clip_heads(k, row, &a->value, a->key_value_heads, cache->value_size, a->clip);
    }
    rotate_heads(a, row, &a->query, a->heads, position);
    rotate_heads(a, row, &a->key, a->key_value_heads, position);
    if (a->norm_scope == 3) norm_queries_and_keys(a, row);
    scale_queries(a, row, position);
    if (!a->key_value_heads) continue;
    store_heads(a, row, &a->key, cache->key_size, cache->keys, (size_t)block, position % nibble_block_size);
    store_heads(a, row, &a->value, cache->value_size, cache->values, (size_t)block, position % nibble_block_size);
  }
}
