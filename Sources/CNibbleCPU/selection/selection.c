// Selection with the same parameters for every row.
#include "choose.h"

void nibble_greedy_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_greedy_arguments *a = arguments;
  for (size_t i = begin; i < end; i++) {
    size_t first = i * a->part, left = a->vocabulary - first;
    int32_t token = nibble_greedy(a->kernels, a->logits + first, left < a->part ? left : a->part);
    a->best[i] = token < 0 ? token : (int32_t)first + token;
  }
}

void nibble_select_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_select_arguments *a = arguments;
  for (size_t r = begin; r < end; r++) {
    const float *logits = a->logits + r * a->vocabulary;
    if (a->temperature > 0) {
      nibble_sampling s = {
          a->temperature, a->top_p, a->min_p, a->top_k, a->seed, a->first_stream + r, (uint64_t)(uint32_t)a->counters[r]};
      float *scratch = a->scratch + (size_t)thread * nibble_select_floats(a->vocabulary);
      a->tokens[r] = nibble_draw(a->kernels, logits, a->vocabulary, &s, scratch);
    } else {
      a->tokens[r] = nibble_greedy(a->kernels, logits, a->vocabulary);
    }
  }
}
