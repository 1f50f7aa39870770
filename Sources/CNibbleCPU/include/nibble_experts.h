// The experts of mixtures. Letters: T tokens, X experts, k experts of a token.
#pragma once

#include <stddef.h>
#include <stdint.h>

/// Sorts the T × k pairs of token and expert by expert, ascending, tokens ascending: expert e has pairs
/// starts[e] ..< starts[e + 1] (starts: [X + 1]). `pairs` [T × k]: for each place, the index of its pair in `ids`.
void nibble_group_by_expert(const int32_t *ids, size_t pair_count, size_t X, int32_t *starts, int32_t *pairs);

/// Rows of pairs, in the order of nibble_group_by_expert, and the tokens' rows.
typedef struct {
  const int32_t *pairs;
  const float *weights;  // [T, k]
  float *tokens;         // [T, width]
  float *rows;           // [count, width]
  size_t k, count, width;
} nibble_expert_rows_arguments;
/// Items: pairs. rows[i] = tokens[pairs[i] / k]
void nibble_gather_expert_rows_task(void *arguments, size_t begin, size_t end, int thread);
/// Items: columns. tokens[pairs[i] / k] += rows[i] × weights[pairs[i]]
void nibble_scatter_expert_rows_task(void *arguments, size_t begin, size_t end, int thread);
