#include "../include/nibble_experts.h"

#include <string.h>

void nibble_group_by_expert(const int32_t *ids, size_t pair_count, size_t X, int32_t *starts, int32_t *pairs) {
  memset(starts, 0, (X + 1) * sizeof *starts);
  for (size_t i = 0; i < pair_count; i++) starts[ids[i] + 1]++;
  for (size_t e = 0; e < X; e++) starts[e + 1] += starts[e];
  // Filling moves each start to its end; afterwards they are shifted back.
  for (size_t i = 0; i < pair_count; i++) pairs[starts[ids[i]]++] = (int32_t)i;
  for (size_t e = X; e > 0; e--) starts[e] = starts[e - 1];
  starts[0] = 0;
}

void nibble_gather_expert_rows_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_expert_rows_arguments *a = arguments;
  for (size_t i = begin; i < end; i++)
    memcpy(a->rows + i * a->width, a->tokens + (size_t)a->pairs[i] / a->k * a->width, a->width * sizeof *a->rows);
}

void nibble_scatter_expert_rows_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_expert_rows_arguments *a = arguments;
  for (size_t i = 0; i < a->count; i++) {
    float *token = a->tokens + (size_t)a->pairs[i] / a->k * a->width, weight = a->weights[a->pairs[i]];
    const float *row = a->rows + i * a->width;
    for (size_t j = begin; j < end; j++) token[j] += row[j] * weight;
  }
}
