// Log probabilities of a row of logits.
#include "../include/nibble_selection.h"

#include "../kernels.h"

#include <math.h>

enum { chunk = 1024 };

typedef struct {
  float logit;
  int32_t id;
} best_token;

// log Σ exp(x − largest)
static double log_of_sum(const elementwise_kernels *k, const float *logits, size_t count, float largest) {
  float weights[chunk];
  double total = 0;
  for (size_t first = 0; first < count; first += chunk) {
    size_t n = count - first < chunk ? count - first : chunk;
    k->exponentials(logits + first, largest, weights, n);
    total += k->sum(weights, n);
  }
  return log(total);
}

// Inserts a token after those that are as likely. The last of `k` falls out.
static void insert(best_token *best, size_t *filled, size_t k, float logit, int32_t id) {
  if (*filled == k && !(logit > best[k - 1].logit)) return;
  size_t i = *filled < k ? (*filled)++ : k - 1;
  for (; i > 0 && logit > best[i - 1].logit; i--) best[i] = best[i - 1];
  best[i] = (best_token){logit, id};
}

static size_t find_best(const elementwise_kernels *kernels, const float *logits, size_t count, size_t k, best_token *best) {
  enum { few = 64 };
  size_t filled = 0;
  for (size_t first = 0; k > 0 && first < count; first += few) {
    size_t n = count - first < few ? count - first : few;
    if (filled == k && !(kernels->maximum(logits + first, n) > best[k - 1].logit)) continue;
    for (size_t i = first; i < first + n; i++) insert(best, &filled, k, logits[i], (int32_t)i);
  }
  return filled;
}

static bool has_nan(const float *logits, size_t count) {
  int found = 0;
  for (size_t i = 0; i < count; i++) found |= logits[i] != logits[i];
  return found;
}

static float log_probability(float logit, float largest, double log_sum) {
  if (logit == -INFINITY) return -INFINITY;
  return logit == largest ? (float)-log_sum : (float)((double)logit - largest - log_sum);
}

static void score_row(const nibble_scores_arguments *a, size_t row) {
  const elementwise_kernels *kernels = a->kernels->elementwise;
  const float *logits = a->logits + row * a->vocabulary;
  float *values = a->values + row * (2 + a->k);
  int32_t *ids = a->ids + row * a->k;
  if (has_nan(logits, a->vocabulary)) {
    for (size_t i = 0; i < 2 + a->k; i++) values[i] = NAN;
    for (size_t i = 0; i < a->k; i++) ids[i] = -1;
    return;
  }
  float largest = kernels->maximum(logits, a->vocabulary);
  double log_sum = log_of_sum(kernels, logits, a->vocabulary, largest);
  values[0] = isinf(largest) ? largest : (float)(largest + log_sum);
  size_t chosen = (size_t)a->chosen[row];
  values[1] = chosen < a->vocabulary ? log_probability(logits[chosen], largest, log_sum) : NAN;
  best_token best[NIBBLE_MOST_SCORES];
  size_t filled = find_best(kernels, logits, a->vocabulary, a->k, best);
  for (size_t i = 0; i < a->k; i++) {
    values[2 + i] = i < filled ? log_probability(best[i].logit, largest, log_sum) : -INFINITY;
    ids[i] = i < filled ? best[i].id : -1;
  }
}

void nibble_scores_task(void *arguments, size_t begin, size_t end, int thread) {
  for (size_t row = begin; row < end; row++) score_row(arguments, row);
}
