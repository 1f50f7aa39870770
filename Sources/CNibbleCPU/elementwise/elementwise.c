// Conversions, embeddings, norms, gates, sums and copies as tasks over ranges of items.
#include <math.h>
#include <string.h>

#include "../include/nibble_operations.h"
#include "../kernels.h"
#include "norm.h"

size_t nibble_dtype_size(int32_t dtype) {
  static const size_t sizes[] = {4, 2, 2, 8, 1, 1};
  return sizes[dtype];
}

void nibble_activate(const nibble_kernels *kernels, int32_t activation, float parameter, const float *x, float *out,
                     size_t count) {
  kernels->elementwise->activate(activation, parameter, x, out, count);
}

void nibble_widen(const nibble_kernels *kernels, int32_t dtype, const void *source, float *out, size_t count) {
  kernels->elementwise->widen[dtype](source, out, count);
}
void nibble_narrow(const nibble_kernels *kernels, int32_t dtype, const float *source, void *out, size_t count) {
  kernels->elementwise->narrow[dtype](source, out, count);
}

void nibble_convert_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_convert_arguments *a = arguments;
  const elementwise_kernels *k = a->kernels->elementwise;
  size_t source_size = nibble_dtype_size(a->source_dtype), out_size = nibble_dtype_size(a->out_dtype);
  const char *source = (const char *)a->source + begin * source_size;
  char *out = (char *)a->out + begin * out_size;
  size_t count = end - begin;
  if (a->source_dtype == a->out_dtype) {
    memmove(out, source, count * out_size);
  } else if (a->out_dtype == nibble_float32) {
    k->widen[a->source_dtype](source, (float *)out, count);
  } else if (a->source_dtype == nibble_float32) {
    k->narrow[a->out_dtype]((const float *)source, out, count);
  } else {
    float chunk[256];
    for (size_t i = 0; i < count; i += 256) {
      size_t n = count - i < 256 ? count - i : 256;
      k->widen[a->source_dtype](source + i * source_size, chunk, n);
      k->narrow[a->out_dtype](chunk, out + i * out_size, n);
    }
  }
}

static void embed_row(const nibble_embed_arguments *a, size_t t) {
  const elementwise_kernels *k = a->kernels->elementwise;
  size_t width = a->width;
  float *out = a->out + t * width;
  size_t row_bytes = width * nibble_dtype_size(a->table_dtype);
  k->widen[a->table_dtype]((const char *)a->table + (size_t)a->tokens[t] * row_bytes, out, width);
  if (a->scale != 1) k->scale(out, a->scale, out, width);
  if (!a->position_table) return;
  size_t size = nibble_dtype_size(a->position_dtype);
  const char *row = (const char *)a->position_table + (size_t)a->positions[t] * width * size;
  float chunk[256];
  for (size_t i = 0; i < width; i += 256) {
    size_t n = width - i < 256 ? width - i : 256;
    k->widen[a->position_dtype](row + i * size, chunk, n);
    k->add(out + i, chunk, 1, out + i, n);
  }
}

void nibble_embed_task(void *arguments, size_t begin, size_t end, int thread) {
  for (size_t t = begin; t < end; t++) embed_row(arguments, t);
}

float nibble_norm_factor(const nibble_norm *norm, float square_sum, size_t count) {
  return 1 / sqrtf(square_sum / (float)count + norm->epsilon);
}

void nibble_normalize(const nibble_kernels *kernels, const nibble_norm *norm, const float *x, const float *weight,
                      const float *bias, const float *residual, float *out, size_t count) {
  const elementwise_kernels *k = kernels->elementwise;
  float centre = norm->is_layer ? k->sum(x, count) / (float)count : 0;
  float factor = nibble_norm_factor(norm, k->square_sum(x, centre, count), count);
  k->normalize(x, centre, factor, weight, bias, residual, out, count);
}

void nibble_normalize_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_normalize_arguments *a = arguments;
  for (size_t i = begin; i < end; i++) {
    size_t at = i * a->width;
    nibble_normalize(a->kernels, &a->norm, a->input + at, a->norm.weight, a->norm.bias, a->residual ? a->residual + at : NULL,
                     a->out + at, a->width);
  }
}

void nibble_gate_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_gate_arguments *a = arguments;
  const elementwise_kernels *k = a->kernels->elementwise;
  for (size_t t = begin; t < end; t++) {
    const float *row = a->input + 2 * t * a->width;
    float *out = a->out + t * a->width;
    if (a->is_clamped_glu)
      k->clamped_glu(a->limit, a->alpha, row, row + a->width, out, a->width);
    else
      k->gate(a->activation, a->parameter, row, row + a->width, out, a->width);
  }
}

void nibble_multiply_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_multiply_arguments *a = arguments;
  for (size_t t = begin; t < end; t++)
    a->kernels->elementwise->gate(a->identity, 0, a->input + t * a->width, a->factors + t * a->factors_width,
                                  a->out + t * a->width, a->width);
}

void nibble_add_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_add_arguments *a = arguments;
  a->kernels->elementwise->add(a->a + begin, a->b + begin, a->scale, a->out + begin, end - begin);
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
