// Choosing the next token from logits.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "nibble_levels.h"

/// In place of a token where every logit is −∞.
#define NIBBLE_NO_TOKEN (-1)
/// In place of a token where a logit is NaN.
#define NIBBLE_NOT_A_NUMBER (-2)

/// Items: rows.
typedef struct {
  const nibble_kernels *kernels;
  const float *logits;  // [R, V]
  int32_t *tokens;      // [R]: ids, NIBBLE_NO_TOKEN or NIBBLE_NOT_A_NUMBER
  const int32_t *counters;
  size_t vocabulary;
  float temperature, top_p, min_p;
  size_t top_k;
  uint64_t seed, first_stream;
  /// nibble_select_floats(V) for each thread, when the temperature is above 0.
  float *scratch;
} nibble_select_arguments;
void nibble_select_task(void *arguments, size_t begin, size_t end, int thread);
/// Floats of scratch that one thread needs to sample.
size_t nibble_select_floats(size_t vocabulary);

/// Items: rows. Penalizes the tokens a row has seen and forbids others, in place. In a set, token v is bit v % 32 of word v / 32.
typedef struct {
  float *logits;             // [R, V]
  int32_t *seen;             // [R, words], or NULL
  const int32_t *latest;     // [R]: joins `seen` first; or NULL
  const int32_t *forbidden;  // [words], or NULL
  size_t vocabulary, words;
  float penalty;
} nibble_mask_arguments;
void nibble_mask_task(void *arguments, size_t begin, size_t end, int thread);

/// Items: parts of one row, `part` logits each; `best[i]` receives part i's greedy choice.
typedef struct {
  const nibble_kernels *kernels;
  const float *logits;
  size_t vocabulary, part;
  int32_t *best;
} nibble_greedy_arguments;
void nibble_greedy_task(void *arguments, size_t begin, size_t end, int thread);

/// The largest logit's index, the lowest among equals; or NIBBLE_NO_TOKEN or NIBBLE_NOT_A_NUMBER.
int32_t nibble_greedy(const nibble_kernels *kernels, const float *logits, size_t count);
