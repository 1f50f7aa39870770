// Choosing the next token from logits.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nibble_levels.h"
#include "nibble_selection_record.h"

/// Floats of scratch that one thread needs to sample.
size_t nibble_select_floats(size_t vocabulary);

/// The largest logit's index, the lowest among equals; or NIBBLE_NO_TOKEN or NIBBLE_NOT_A_NUMBER.
int32_t nibble_greedy(const nibble_kernels *kernels, const float *logits, size_t count);

/// Items of nibble_slots_task: rows. Items of nibble_slot_part_task: parts of row `row`, `part` logits each, a multiple of 32.
typedef struct {
  const nibble_kernels *kernels;
  float *logits;         // [R, V]: adjusted in place
  const int32_t *slots;  // [R]
  const int32_t *counters;
  int32_t *tokens;                         // [R]: ids or NIBBLE_NO_…
  const nibble_selection_record *records;  // [slots]
  const int32_t *bias_tokens;              // [slots, bias_limit]
  const float *bias_values;
  int32_t *counts;       // [slots, V]: 2 × generated + 1 if the prompt holds it
  const int32_t *masks;  // [slots, words]
  int32_t *latest;       // [slots]: receives the slot's token
  size_t slot_count, vocabulary, words, bias_limit;
  /// nibble_select_floats(V) for each thread, where a temperature is above 0.
  float *scratch;
  /// nibble_slots_task leaves greedy rows out.
  bool skips_greedy;
  size_t row, part;
  int32_t *best;  // [parts]: the greedy choice of each
} nibble_slots_arguments;
void nibble_slots_task(void *arguments, size_t begin, size_t end, int thread);
void nibble_slot_part_task(void *arguments, size_t begin, size_t end, int thread);
/// Chooses the token of `row` from the parts' choices.
void nibble_slot_parts_finish(const nibble_slots_arguments *arguments, size_t parts);

/// Items: rows of log probabilities, see Backend.scores.
typedef struct {
  const nibble_kernels *kernels;
  const float *logits;    // [n, V]
  const int32_t *chosen;  // [n]
  float *values;          // [n, 2 + k]
  int32_t *ids;           // [n, k]
  size_t vocabulary, k;   // k ≤ NIBBLE_MOST_SCORES
} nibble_scores_arguments;
void nibble_scores_task(void *arguments, size_t begin, size_t end, int thread);
