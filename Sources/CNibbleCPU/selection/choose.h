// Choosing a token of one row of logits.
#pragma once

#include "../include/nibble_selection.h"

typedef struct {
  float temperature, top_p, min_p;
  size_t top_k;  // 0: all
  uint64_t seed, stream, counter;
} nibble_sampling;

/// Draws a token; or NIBBLE_NO_TOKEN or NIBBLE_NOT_A_NUMBER. `scratch` has nibble_select_floats(count).
int32_t nibble_draw(const nibble_kernels *kernels, const float *logits, size_t count, const nibble_sampling *s, float *scratch);
