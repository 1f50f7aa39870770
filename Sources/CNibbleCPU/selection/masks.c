// Penalties and masks, which change logits before a token is chosen.
#include "../include/nibble_selection.h"

#include <math.h>

static void penalize(float *logits, uint32_t set, float penalty) {
  for (; set; set &= set - 1) {
    float *x = logits + __builtin_ctz(set);
    *x = *x < 0 ? *x * penalty : *x / penalty;
  }
}

static void forbid(float *logits, uint32_t set) {
  for (; set; set &= set - 1) logits[__builtin_ctz(set)] = -INFINITY;
}

void nibble_mask_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_mask_arguments *a = arguments;
  for (size_t r = begin; r < end; r++) {
    float *logits = a->logits + r * a->vocabulary;
    int32_t *seen = a->seen ? a->seen + r * a->words : NULL;
    if (seen && a->latest) {
      uint32_t token = (uint32_t)a->latest[r];
      if (token < a->vocabulary) seen[token / 32] |= (int32_t)(1u << token % 32);
    }
    for (size_t w = 0; w < a->words; w++) {
      if (seen && seen[w]) penalize(logits + 32 * w, (uint32_t)seen[w], a->penalty);
      if (a->forbidden && a->forbidden[w]) forbid(logits + 32 * w, (uint32_t)a->forbidden[w]);
    }
  }
}
