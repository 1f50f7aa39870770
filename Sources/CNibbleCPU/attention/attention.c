#include "../include/nibble_attention.h"

#include <math.h>
#include <string.h>

#include "../kernels.h"
#include "cache_codes.h"

// The query rows of a tile are (token, query head of the group): the heads of a group share keys and values.
enum { target_rows = 72, direct_rows = 8, minimum_split_blocks = 4 };

static size_t padded(size_t count) { return (count + lane_padding - 1) / lane_padding * lane_padding; }
static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

// One thread's scratch, divided, and the kernels that work in it.
typedef struct {
  const attention_kernels *kernels;
  const elementwise_kernels *elementwise;
  float *queries, *acc, *keys, *values, *scores, *correction, *maximum, *sum;
  int32_t *low, *high;
  float *codes;  // a quantized block's keys, expanded
} scratch;

static scratch scratch_of(const nibble_attention_arguments *a, float *memory) {
  size_t rows = a->tile_rows, key = padded(a->cache.key_size), value = padded(a->cache.value_size);
  scratch s;
  s.kernels = a->kernels->attention;
  s.elementwise = a->kernels->elementwise;
  s.queries = memory;
  s.acc = s.queries + rows * key;
  s.keys = s.acc + rows * value;
  s.values = s.keys + key * nibble_block_size;
  s.scores = s.values + value * nibble_block_size;
  s.correction = s.scores + rows * nibble_block_size;
  s.maximum = s.correction + rows;
  s.sum = s.maximum + rows;
  s.low = (int32_t *)(s.sum + rows);
  s.high = s.low + rows;
  s.codes = (float *)(s.high + rows);
  return s;
}

static size_t scratch_floats(const nibble_attention_arguments *a) {
  size_t key = padded(a->cache.key_size), value = padded(a->cache.value_size);
  size_t codes = a->cache.bits ? key * nibble_block_size : 0;
  return a->tile_rows * (key + value + nibble_block_size + 5) + (key + value) * nibble_block_size + codes;
}

// MARK: Planning

static void choose_tiles(nibble_attention_arguments *a, size_t threads) {
  size_t group = a->heads / a->cache.heads;
  size_t longest = larger(a->maximum_query_length, 1);
  size_t tokens = smaller(larger(target_rows / group, 1), longest);
  // Smaller tiles where there would be too few for all threads.
  while (tokens > 4 && (a->tokens + tokens - 1) / tokens * a->cache.heads < 2 * threads) tokens = (tokens + 1) / 2;
  a->tile_tokens = tokens;
  a->tile_rows = padded(tokens * group);
  a->tile_limit = a->tokens / tokens + a->rows;
}

static void choose_splits(nibble_attention_arguments *a, size_t threads) {
  size_t items = larger((a->tokens + a->tile_tokens - 1) / a->tile_tokens, 1) * a->cache.heads;
  size_t blocks = (a->maximum_length + nibble_block_size - 1) / nibble_block_size;
  a->splits = 1;
  if (a->batch_invariant || threads == 1 || items >= 2 * threads) return;
  a->splits = larger(smaller((2 * threads + items - 1) / items, blocks / minimum_split_blocks), 1);
}

size_t nibble_attention_plan(nibble_attention_arguments *a, int threads) {
  choose_tiles(a, (size_t)threads);
  choose_splits(a, (size_t)threads);
  a->span = a->bucket_table ? smaller((size_t)a->maximum_distance, larger(a->maximum_length, 1)) : 0;
  a->scratch_floats = padded(scratch_floats(a));
  a->partial_floats = a->splits > 1 ? a->tile_rows * (padded(a->cache.value_size) + 2) : 0;
  size_t floats = a->scratch_floats * (size_t)threads + a->tile_limit * a->cache.heads * a->splits * a->partial_floats;
  if (a->bucket_table) floats += padded(a->heads * (2 * a->span + 1));
  return floats * sizeof(float) + a->tile_limit * sizeof(nibble_attention_tile);
}

static void fill_tiles(nibble_attention_arguments *a) {
  a->tile_count = 0;
  for (size_t r = 0; r < a->rows; r++) {
    int32_t end = a->query_offsets[r + 1], step = (int32_t)a->tile_tokens;
    for (int32_t first = a->query_offsets[r]; first < end && a->tile_count < a->tile_limit; first += step) {
      int32_t tokens = end - first < step ? end - first : step;
      a->tiles[a->tile_count++] = (nibble_attention_tile){(int32_t)r, first, tokens};
    }
  }
}

size_t nibble_relative_bucket(int64_t relative, int is_bidirectional, size_t buckets, int64_t maximum_distance) {
  size_t count = buckets, offset = 0;
  int64_t distance = relative < 0 ? -relative : 0;
  if (is_bidirectional) {
    count /= 2;
    if (relative > 0) {
      offset = count;
      distance = relative;
    }
  }
  size_t exact = count / 2;
  if ((size_t)distance < exact) return offset + (size_t)distance;
  if (exact == 0 || (size_t)maximum_distance <= exact) return offset + (count ? count - 1 : 0);
  // In float32, as transformers computes it.
  float width = (float)log((double)maximum_distance / (double)exact);
  float place = logf((float)distance / (float)exact) / width * (float)(count - exact);
  return offset + smaller(count - 1, exact + (size_t)place);
}

static void fill_distance_bias(nibble_attention_arguments *a) {
  int64_t span = (int64_t)a->span;
  for (int64_t relative = -span; relative <= span; relative++) {
    size_t bucket = nibble_relative_bucket(relative, a->is_bidirectional, a->buckets, a->maximum_distance);
    const float *row = a->bucket_table + bucket * a->heads;
    float *out = a->distance_bias + (relative + span);
    for (size_t h = 0; h < a->heads; h++) out[h * (2 * a->span + 1)] = row[h];
  }
}

void nibble_attention_prepare(nibble_attention_arguments *a, void *workspace, int threads) {
  a->scratch = workspace;
  a->partials = a->scratch + a->scratch_floats * (size_t)threads;
  a->distance_bias = a->partials + a->tile_limit * a->cache.heads * a->splits * a->partial_floats;
  float *end = a->distance_bias + (a->bucket_table ? padded(a->heads * (2 * a->span + 1)) : 0);
  a->tiles = (nibble_attention_tile *)end;
  fill_tiles(a);
  if (a->bucket_table) fill_distance_bias(a);
}

size_t nibble_attention_items(const nibble_attention_arguments *a) { return a->tile_count * a->cache.heads * a->splits; }
size_t nibble_attention_merge_items(const nibble_attention_arguments *a) { return a->tile_count * a->cache.heads; }

// MARK: One tile

static size_t group_of(const nibble_attention_arguments *a) { return a->heads / a->cache.heads; }

static void load_queries(const nibble_attention_arguments *a, const nibble_attention_tile *tile, size_t g, scratch s,
                         size_t rows) {
  size_t group = group_of(a), size = a->cache.key_size, stride = padded(size);
  // Kernels may read rows up to the next multiple of eight.
  memset(s.queries, 0, smaller(a->tile_rows, (rows + 7) / 8 * 8) * stride * sizeof(float));
  for (size_t m = 0; m < rows; m++) {
    size_t token = (size_t)tile->first_token + m / group, head = g * group + m % group;
    const float *source =
        a->queries + token * a->width + a->query.offset + head / a->query.group * a->query.stride + head % a->query.group * size;
    s.elementwise->scale(source, a->scale, s.queries + m * stride, size);
  }
}

// Sets the keys [low, high) that each row sees, and the range that any of them sees.
static void find_visible(const nibble_attention_arguments *a, const nibble_attention_tile *tile, scratch s, size_t rows,
                         int64_t *low, int64_t *high) {
  size_t group = group_of(a);
  int64_t length = a->lengths[tile->row], limit = (int64_t)a->cache.table_width * nibble_block_size;
  if (length > limit) {
    __atomic_store_n(a->out_of_range, 1, __ATOMIC_RELAXED);
    length = limit;
  }
  *low = length > 0 ? length : 0;
  *high = 0;
  for (size_t m = 0; m < rows; m++) {
    int64_t position = a->positions[(size_t)tile->first_token + m / group];
    int64_t end = a->is_causal && position + 1 < length ? position + 1 : length;
    int64_t begin = a->window <= position ? position - a->window + 1 : 0;
    if (end < 0) end = 0;
    if (begin > end) begin = end;
    s.low[m] = (int32_t)begin;
    s.high[m] = (int32_t)end;
    if (begin < *low) *low = begin;
    if (end > *high) *high = end;
  }
}

static void add_bias(const nibble_attention_arguments *a, float *scores, size_t head, int64_t relative) {
  if (a->slopes) {
    float slope = a->slopes[head];
    for (int j = 0; j < nibble_block_size; j++) scores[j] += slope * (float)(relative + j);
  }
  if (a->bucket_table) {
    int64_t span = (int64_t)a->span;
    const float *bias = a->distance_bias + head * (2 * a->span + 1) + span;
    for (int j = 0; j < nibble_block_size; j++) {
      int64_t place = relative + j;
      scores[j] += bias[place < -span ? -span : place > span ? span : place];
    }
  }
}

static void mask(float *scores, int64_t low, int64_t high) {
  for (int64_t j = 0; j < low && j < nibble_block_size; j++) scores[j] = -INFINITY;
  for (int64_t j = high > 0 ? high : 0; j < nibble_block_size; j++) scores[j] = -INFINITY;
}

static void soften(const nibble_attention_arguments *a, const nibble_attention_tile *tile, size_t g, scratch s, size_t rows,
                   int64_t first_key) {
  size_t group = group_of(a);
  for (size_t m = 0; m < rows; m++) {
    float *scores = s.scores + m * nibble_block_size;
    if (a->soft_cap > 0) s.elementwise->activate(nibble_soft_cap, a->soft_cap, scores, scores, nibble_block_size);
    if (a->slopes || a->bucket_table)
      add_bias(a, scores, g * group + m % group, first_key - a->positions[(size_t)tile->first_token + m / group]);
    if (s.low[m] > first_key || s.high[m] < first_key + nibble_block_size)
      mask(scores, s.low[m] - first_key, s.high[m] - first_key);
    s.correction[m] = s.kernels->softmax_block(scores, &s.maximum[m], &s.sum[m]);
  }
}

static const float *widened_values(const nibble_attention_arguments *a, const void *values, scratch s, size_t count) {
  size_t size = a->cache.value_size, stride = padded(size), element = nibble_dtype_size(a->cache.dtype);
  if (a->cache.dtype == nibble_float32 && stride == size) return values;
  for (size_t j = 0; j < count; j++) {
    float *row = s.values + j * stride;
    s.elementwise->widen[a->cache.dtype]((const char *)values + j * size * element, row, size);
    memset(row + size, 0, (stride - size) * sizeof(float));
  }
  return s.values;
}

static int is_direct(const nibble_attention_arguments *a, size_t rows) { return rows <= direct_rows && !a->batch_invariant; }

// One block of a quantized cache: expands it in the thread's scratch, then proceeds as with a float32 cache.
static void attend_codes(const nibble_attention_arguments *a, const nibble_attention_tile *tile, size_t g, scratch s, size_t rows,
                         size_t block, int64_t first_key, size_t count) {
  const nibble_cache *cache = &a->cache;
  size_t key_size = cache->key_size, key_stride = padded(key_size), value_stride = padded(cache->value_size);
  size_t place = (block * cache->heads + g) * nibble_block_size;
  const char *keys = (const char *)cache->keys + place * nibble_quantized_bytes(key_size, cache->group_size, cache->bits);
  const char *values =
      (const char *)cache->values + place * nibble_quantized_bytes(cache->value_size, cache->group_size, cache->bits);
  if (is_direct(a, rows) && key_size % s.kernels->lanes == 0) {
    s.kernels->expand_codes[cache->bits / 4](keys, key_size, cache->group_size, count, s.keys, key_size);
    s.kernels->score_direct[nibble_float32](s.queries, key_stride, rows, s.keys, s.keys, key_size, count, s.scores);
  } else {
    s.kernels->expand_codes[cache->bits / 4](keys, key_size, cache->group_size, count, s.codes, key_size);
    s.kernels->pack_keys[nibble_float32](s.codes, key_size, count, s.keys);
    s.kernels->score_packed(s.queries, key_stride, rows, s.keys, key_size, s.scores);
  }
  soften(a, tile, g, s, rows, first_key);
  s.kernels->expand_codes[cache->bits / 4](values, cache->value_size, cache->group_size, count, s.values, value_stride);
  s.kernels->accumulate_packed(s.scores, rows, s.correction, s.values, value_stride, count, s.acc);
}

static void attend_block(const nibble_attention_arguments *a, const nibble_attention_tile *tile, size_t g, scratch s, size_t rows,
                         size_t block, size_t next, int64_t first_key, size_t count) {
  const nibble_cache *cache = &a->cache;
  if (cache->bits) return attend_codes(a, tile, g, s, rows, block, first_key, count);
  size_t element = nibble_dtype_size(cache->dtype);
  size_t place = (block * cache->heads + g) * nibble_block_size, place_ahead = (next * cache->heads + g) * nibble_block_size;
  const char *keys = (const char *)cache->keys + place * cache->key_size * element;
  const char *values = (const char *)cache->values + place * cache->value_size * element;
  size_t key_stride = padded(cache->key_size), value_stride = padded(cache->value_size);
  int direct = is_direct(a, rows) && cache->key_size % s.kernels->lanes == 0 && cache->value_size % s.kernels->lanes == 0;
  if (direct) {
    s.kernels->score_direct[cache->dtype](s.queries, key_stride, rows, keys,
                                          (const char *)cache->keys + place_ahead * cache->key_size * element, cache->key_size,
                                          count, s.scores);
  } else {
    s.kernels->pack_keys[cache->dtype](keys, cache->key_size, count, s.keys);
    s.kernels->score_packed(s.queries, key_stride, rows, s.keys, cache->key_size, s.scores);
  }
  soften(a, tile, g, s, rows, first_key);
  if (direct) {
    s.kernels->accumulate_direct[cache->dtype](s.scores, rows, s.correction, values,
                                               (const char *)cache->values + place_ahead * cache->value_size * element,
                                               cache->value_size, count, s.acc, value_stride);
  } else {
    s.kernels->accumulate_packed(s.scores, rows, s.correction, widened_values(a, values, s, count), value_stride, count, s.acc);
  }
}

static int is_block(const nibble_attention_arguments *a, int32_t block) { return block >= 0 && (size_t)block < a->cache.blocks; }

static void attend_keys(const nibble_attention_arguments *a, const nibble_attention_tile *tile, size_t g, scratch s, size_t rows,
                        int64_t low, int64_t high, size_t split) {
  size_t first = (size_t)low / nibble_block_size, last = ((size_t)high + nibble_block_size - 1) / nibble_block_size;
  if (high <= low) return;
  size_t begin = first + (last - first) * split / a->splits, end = first + (last - first) * (split + 1) / a->splits;
  const int32_t *table = a->cache.block_table + (size_t)tile->row * a->cache.table_width;
  for (size_t b = begin; b < end; b++) {
    int64_t first_key = (int64_t)(b * nibble_block_size);
    if (!is_block(a, table[b])) {
      __atomic_store_n(a->out_of_range, 1, __ATOMIC_RELAXED);
      continue;
    }
    int32_t next = b + 1 < end && is_block(a, table[b + 1]) ? table[b + 1] : table[b];
    attend_block(a, tile, g, s, rows, (size_t)table[b], (size_t)next, first_key,
                 smaller((size_t)(high - first_key), nibble_block_size));
  }
}

static float *partial_of(const nibble_attention_arguments *a, size_t tile, size_t g, size_t split) {
  return a->partials + ((tile * a->cache.heads + g) * a->splits + split) * a->partial_floats;
}

static float *out_of(const nibble_attention_arguments *a, const nibble_attention_tile *tile, size_t g, size_t m) {
  size_t group = group_of(a), token = (size_t)tile->first_token + m / group, head = g * group + m % group;
  return a->out + (token * a->heads + head) * a->cache.value_size;
}

// A sink is a score without a value: the softmax of the first split begins with it.
static void start_softmax(const nibble_attention_arguments *a, size_t g, size_t split, scratch s, size_t rows) {
  size_t group = group_of(a);
  int has_sink = a->sinks && split == 0;
  for (size_t m = 0; m < rows; m++) {
    s.maximum[m] = has_sink ? a->sinks[g * group + m % group] : -INFINITY;
    s.sum[m] = has_sink && s.maximum[m] > -INFINITY ? 1 : 0;
  }
}

static void attend_tile(const nibble_attention_arguments *a, size_t tile_index, size_t g, size_t split, int thread) {
  const nibble_attention_tile *tile = &a->tiles[tile_index];
  size_t rows = (size_t)tile->tokens * group_of(a), size = a->cache.value_size, stride = padded(size);
  scratch s = scratch_of(a, a->scratch + a->scratch_floats * (size_t)thread);
  int64_t low, high;
  load_queries(a, tile, g, s, rows);
  find_visible(a, tile, s, rows, &low, &high);
  memset(s.acc, 0, rows * stride * sizeof(float));
  start_softmax(a, g, split, s, rows);
  attend_keys(a, tile, g, s, rows, low, high, split);
  if (a->splits > 1) {
    float *partial = partial_of(a, tile_index, g, split);
    memcpy(partial, s.maximum, rows * sizeof(float));
    memcpy(partial + a->tile_rows, s.sum, rows * sizeof(float));
    memcpy(partial + 2 * a->tile_rows, s.acc, rows * stride * sizeof(float));
    return;
  }
  for (size_t m = 0; m < rows; m++)
    s.elementwise->scale(s.acc + m * stride, s.sum[m] > 0 ? 1 / s.sum[m] : 0, out_of(a, tile, g, m), size);
}

void nibble_attention_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_attention_arguments *a = arguments;
  for (size_t i = begin; i < end; i++) {
    size_t split = i % a->splits, g = i / a->splits % a->cache.heads, tile = i / a->splits / a->cache.heads;
    // The last tiles of a causal prompt see the most keys, so they start first.
    attend_tile(a, a->tile_count - 1 - tile, g, split, thread);
  }
}

static void merge_row(const nibble_attention_arguments *a, size_t tile, size_t g, size_t m) {
  const elementwise_kernels *k = a->kernels->elementwise;
  size_t size = a->cache.value_size, stride = padded(size);
  float *out = out_of(a, &a->tiles[tile], g, m);
  float best = -INFINITY, total = 0;
  for (size_t split = 0; split < a->splits; split++) best = fmaxf(best, partial_of(a, tile, g, split)[m]);
  memset(out, 0, size * sizeof(float));
  if (best == -INFINITY) return;
  for (size_t split = 0; split < a->splits; split++) {
    const float *partial = partial_of(a, tile, g, split);
    float weight = expf(partial[m] - best);
    total += partial[a->tile_rows + m] * weight;
    k->add(out, partial + 2 * a->tile_rows + m * stride, weight, out, size);
  }
  k->scale(out, 1 / total, out, size);
}

void nibble_attention_merge_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_attention_arguments *a = arguments;
  for (size_t i = begin; i < end; i++) {
    size_t g = i % a->cache.heads, tile = i / a->cache.heads;
    size_t rows = (size_t)a->tiles[tile].tokens * group_of(a);
    for (size_t m = 0; m < rows; m++) merge_row(a, tile, g, m);
  }
}
