// The operations as tasks over ranges of items, on top of the kernel table.
#include "../include/nibble_operations.h"

#include "../attention/cache_codes.h"
#include "../kernels.h"

#include <math.h>
#include <string.h>

#define K (*nibble_active_kernels)

size_t nibble_dtype_size(int32_t dtype) {
  static const size_t sizes[] = {4, 2, 2, 8, 1, 1};
  return sizes[dtype];
}

void nibble_activate(int32_t activation, float parameter, const float *x, float *out, size_t count) {
  K.activate(activation, parameter, x, out, count);
}

void nibble_widen(int32_t dtype, const void *source, float *out, size_t count) { K.widen[dtype](source, out, count); }
void nibble_narrow(int32_t dtype, const float *source, void *out, size_t count) { K.narrow[dtype](source, out, count); }

void nibble_convert_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_convert_arguments *a = arguments;
  size_t source_size = nibble_dtype_size(a->source_dtype), out_size = nibble_dtype_size(a->out_dtype);
  const char *source = (const char *)a->source + begin * source_size;
  char *out = (char *)a->out + begin * out_size;
  size_t count = end - begin;
  if (a->source_dtype == a->out_dtype) {
    memmove(out, source, count * out_size);
  } else if (a->out_dtype == nibble_float32) {
    K.widen[a->source_dtype](source, (float *)out, count);
  } else if (a->source_dtype == nibble_float32) {
    K.narrow[a->out_dtype]((const float *)source, out, count);
  } else {
    float chunk[256];
    for (size_t i = 0; i < count; i += 256) {
      size_t n = count - i < 256 ? count - i : 256;
      K.widen[a->source_dtype](source + i * source_size, chunk, n);
      K.narrow[a->out_dtype](chunk, out + i * out_size, n);
    }
  }
}

static void embed_row(const nibble_embed_arguments *a, size_t t) {
  size_t width = a->width;
  float *out = a->out + t * width;
  size_t row_bytes = width * nibble_dtype_size(a->table_dtype);
  K.widen[a->table_dtype]((const char *)a->table + (size_t)a->tokens[t] * row_bytes, out, width);
  if (a->scale != 1) K.scale(out, a->scale, out, width);
  if (!a->position_table) return;
  size_t size = nibble_dtype_size(a->position_dtype);
  const char *row = (const char *)a->position_table + (size_t)a->positions[t] * width * size;
  float chunk[256];
  for (size_t i = 0; i < width; i += 256) {
    size_t n = width - i < 256 ? width - i : 256;
    K.widen[a->position_dtype](row + i * size, chunk, n);
    K.add(out + i, chunk, 1, out + i, n);
  }
}

void nibble_embed_task(void *arguments, size_t begin, size_t end, int thread) {
  for (size_t t = begin; t < end; t++) embed_row(arguments, t);
}

// 1 / √(mean square + ε)
static float norm_factor(const nibble_norm *norm, float square_sum, size_t count) {
  return 1 / sqrtf(square_sum / (float)count + norm->epsilon);
}

static void normalize_run(const nibble_norm *norm, const float *x, const float *weight, const float *bias, const float *residual,
                          float *out, size_t count) {
  float centre = norm->is_layer ? K.sum(x, count) / (float)count : 0;
  float factor = norm_factor(norm, K.square_sum(x, centre, count), count);
  K.normalize(x, centre, factor, weight, bias, residual, out, count);
}

void nibble_normalize_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_normalize_arguments *a = arguments;
  for (size_t i = begin; i < end; i++) {
    size_t at = i * a->width;
    normalize_run(&a->norm, a->input + at, a->norm.weight, a->norm.bias, a->residual ? a->residual + at : NULL, a->out + at,
                  a->width);
  }
}

static float *head_of(float *row, const nibble_part *part, size_t head, size_t size) {
  return row + part->offset + head / part->group * part->stride + head % part->group * size;
}

static const float *offset_or_null(const float *base, size_t offset) { return base ? base + offset : NULL; }

static void norm_each_head(float *row, const nibble_part *part, size_t heads, size_t size, const nibble_norm *norm,
                           size_t norm_width) {
  for (size_t h = 0; h < heads; h++) {
    float *x = head_of(row, part, h, size);
    size_t at = norm_width > size ? h * size : 0;
    normalize_run(norm, x, offset_or_null(norm->weight, at), offset_or_null(norm->bias, at), NULL, x, size);
  }
}

static void norm_all_heads(float *row, const nibble_part *part, size_t heads, size_t size, const nibble_norm *norm) {
  float centre = 0, squares = 0;
  size_t count = heads * size;
  if (norm->is_layer) {
    for (size_t h = 0; h < heads; h++) centre += K.sum(head_of(row, part, h, size), size);
    centre /= (float)count;
  }
  for (size_t h = 0; h < heads; h++) squares += K.square_sum(head_of(row, part, h, size), centre, size);
  float factor = norm_factor(norm, squares, count);
  for (size_t h = 0; h < heads; h++) {
    float *x = head_of(row, part, h, size);
    K.normalize(x, centre, factor, offset_or_null(norm->weight, h * size), offset_or_null(norm->bias, h * size), NULL, x, size);
  }
}

static void clip_heads(float *row, const nibble_part *part, size_t heads, size_t size, float limit) {
  for (size_t h = 0; h < heads; h++) K.clip(head_of(row, part, h, size), limit, size);
}

static void norm_heads(const nibble_rotate_arguments *a, float *row, const nibble_part *part, size_t heads,
                       const nibble_norm *norm, size_t norm_width) {
  if (a->norm_scope == 1) norm_each_head(row, part, heads, a->cache.key_size, norm, norm_width);
  if (a->norm_scope == 2 && heads) norm_all_heads(row, part, heads, a->cache.key_size, norm);
}

static void rotate_heads(const nibble_rotate_arguments *a, float *row, const nibble_part *part, size_t heads, size_t position) {
  if (!a->cosines) return;
  size_t half = a->rotated / 2;
  const float *cosines = a->cosines + position * half, *sines = a->sines + position * half;
  for (size_t h = 0; h < heads; h++) {
    float *x = head_of(row, part, h, a->cache.key_size);
    if (a->is_interleaved) {
      K.rotate_pairs(x, cosines, sines, half);
    } else {
      K.rotate_halves(x, cosines, sines, half);
    }
  }
}

static void store_heads(const nibble_rotate_arguments *a, float *row, const nibble_part *part, size_t size, void *memory,
                        size_t block, size_t slot) {
  const nibble_cache *cache = &a->cache;
  if (cache->bits) {
    size_t bytes = nibble_block_size * nibble_quantized_bytes(size, cache->group_size, cache->bits);
    for (size_t g = 0; g < cache->heads; g++)
      nibble_store_codes(head_of(row, part, g, size), size, cache->group_size, cache->bits,
                         (char *)memory + (block * cache->heads + g) * bytes, slot);
    return;
  }
  size_t element = nibble_dtype_size(cache->dtype);
  for (size_t g = 0; g < cache->heads; g++) {
    size_t at = ((block * cache->heads + g) * nibble_block_size + slot) * size * element;
    K.narrow[cache->dtype](head_of(row, part, g, size), (char *)memory + at, size);
  }
}

// The physical block of a token's position, or −1 where the position or the table's entry is out of range.
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
  const nibble_cache *cache = &a->cache;
  for (size_t t = begin; t < end; t++) {
    int64_t block = block_of(a, t);
    if (block < 0) {
      __atomic_store_n(a->out_of_range, 1, __ATOMIC_RELAXED);
      continue;
    }
    float *row = a->projections + t * a->width;
    size_t position = (size_t)a->positions[t];
    if (a->clip < INFINITY) {
      clip_heads(row, &a->query, a->heads, cache->key_size, a->clip);
      clip_heads(row, &a->key, cache->heads, cache->key_size, a->clip);
      clip_heads(row, &a->value, cache->heads, cache->value_size, a->clip);
    }
    norm_heads(a, row, &a->query, a->heads, &a->query_norm, a->query_norm_width);
    norm_heads(a, row, &a->key, cache->heads, &a->key_norm, a->key_norm_width);
    rotate_heads(a, row, &a->query, a->heads, position);
    rotate_heads(a, row, &a->key, cache->heads, position);
    store_heads(a, row, &a->key, cache->key_size, cache->keys, (size_t)block, position % nibble_block_size);
    store_heads(a, row, &a->value, cache->value_size, cache->values, (size_t)block, position % nibble_block_size);
  }
}

void nibble_gate_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_gate_arguments *a = arguments;
  for (size_t t = begin; t < end; t++) {
    const float *row = a->input + 2 * t * a->width;
    K.gate(a->activation, a->parameter, row, row + a->width, a->out + t * a->width, a->width);
  }
}

void nibble_add_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_add_arguments *a = arguments;
  K.add(a->a + begin, a->b + begin, a->scale, a->out + begin, end - begin);
}

void nibble_gather_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_gather_arguments *a = arguments;
  for (size_t i = begin; i < end; i++)
    memcpy((char *)a->out + i * a->row_bytes, (const char *)a->input + (size_t)a->indices[i] * a->row_bytes, a->row_bytes);
}

void nibble_copy_blocks_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_copy_blocks_arguments *a = arguments;
  for (size_t i = 0; i < a->pair_count; i++) {
    size_t from = (size_t)a->pairs[2 * i], to = (size_t)a->pairs[2 * i + 1];
    if (from == to) continue;
    memcpy((char *)a->memory + to * a->block_bytes + begin, (const char *)a->memory + from * a->block_bytes + begin, end - begin);
  }
}
