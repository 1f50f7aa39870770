// Choosing a token of one row: greedily, or by drawing.
#include "choose.h"

#include "../kernels.h"

#include <math.h>
#include <stdlib.h>

static int has_nan(const float *logits, size_t count) {
  int found = 0;
  for (size_t i = 0; i < count; i++) found |= logits[i] != logits[i];
  return found;
}

int32_t nibble_greedy(const nibble_kernels *kernels, const float *logits, size_t count) {
  const elementwise_kernels *k = kernels->elementwise;
  if (has_nan(logits, count)) return NIBBLE_NOT_A_NUMBER;
  float best = k->maximum(logits, count);
  if (!(best > -INFINITY)) return NIBBLE_NO_TOKEN;
  return (int32_t)k->find(logits, best, count);
}

// As NibbleCore.RandomStream.
static uint64_t mix(uint64_t value) {
  uint64_t z = value + 0x9E3779B97F4A7C15;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
  z = (z ^ z >> 27) * 0x94D049BB133111EB;
  return z ^ z >> 31;
}

static float uniform(uint64_t seed, uint64_t stream, uint64_t counter) {
  return (float)(mix(mix(mix(seed) ^ stream) ^ counter) >> 40) * 0x1p-24f;
}

// The tokens that may still be chosen, by ascending id, with weights exp(score − best score).
typedef struct {
  float *scores, *weights;
  int32_t *ids;
  size_t count;
} candidates;

typedef struct {
  float score, weight;
  int32_t id;
} candidate;

enum { chunk = 64 };

static void swap(float *a, float *b) {
  float t = *a;
  *a = *b;
  *b = t;
}

static void sift_down(float *heap, size_t count, size_t i) {
  for (;;) {
    size_t least = i, left = 2 * i + 1, right = left + 1;
    if (left < count && heap[left] < heap[least]) least = left;
    if (right < count && heap[right] < heap[least]) least = right;
    if (least == i) return;
    swap(&heap[i], &heap[least]);
    i = least;
  }
}

static int by_value(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

// The k-th largest score (k < count). A small k takes a heap of the k best, which most chunks do not change; a large one a
// sorted copy.
static float kth_largest(const elementwise_kernels *kernels, const float *scores, size_t count, size_t k, float *work) {
  size_t filled = k > count / 8 ? count : k;
  for (size_t i = 0; i < filled; i++) work[i] = scores[i] == scores[i] ? scores[i] : -INFINITY;
  if (filled == count) {
    qsort(work, count, sizeof(float), by_value);
    return work[count - k];
  }
  for (size_t i = k / 2; i-- > 0;) sift_down(work, k, i);
  for (size_t first = k; first < count; first += chunk) {
    size_t end = count - first < chunk ? count : first + chunk;
    if (!(kernels->maximum(scores + first, end - first) > work[0])) continue;
    for (size_t i = first; i < end; i++) {
      if (!(scores[i] > work[0])) continue;
      work[0] = scores[i];
      sift_down(work, k, 0);
    }
  }
  return work[0];
}

static void keep_from(const elementwise_kernels *kernels, const float *scores, size_t count, float threshold, candidates *kept) {
  kept->count = 0;
  for (size_t first = 0; first < count; first += chunk) {
    size_t end = count - first < chunk ? count : first + chunk;
    if (kernels->maximum(scores + first, end - first) < threshold) continue;
    for (size_t i = first; i < end; i++) {
      if (!(scores[i] >= threshold)) continue;
      kept->scores[kept->count] = scores[i];
      kept->ids[kept->count++] = (int32_t)i;
    }
  }
}

static double total_weight(const candidates *kept) {
  double total = 0;
  for (size_t i = 0; i < kept->count; i++) total += kept->weights[i];
  return total;
}

static void keep_if_weight(candidates *kept, float least) {
  size_t n = 0;
  for (size_t i = 0; i < kept->count; i++) {
    if (kept->weights[i] < least) continue;
    kept->scores[n] = kept->scores[i];
    kept->weights[n] = kept->weights[i];
    kept->ids[n++] = kept->ids[i];
  }
  kept->count = n;
}

static int ascending(const void *a, const void *b) {
  const candidate *x = a, *y = b;
  if (x->score != y->score) return x->score < y->score ? -1 : 1;
  return (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b) {
  const candidate *x = a, *y = b;
  return (x->id > y->id) - (x->id < y->id);
}

// Removes the tokens that are far less likely than the best, if their whole mass fits in `limit`: they need no sorting. Returns
// the mass removed.
static double drop_tail(candidates *kept, double limit) {
  for (float least = 0x1p-6f; least > 0x1p-80f; least *= 0x1p-6f) {
    double mass = 0;
    for (size_t i = 0; i < kept->count; i++)
      if (kept->weights[i] < least) mass += kept->weights[i];
    if (mass > limit) continue;
    keep_if_weight(kept, least);
    return mass;
  }
  return 0;
}

// Top-p: removes tokens in ascending order of probability while their cumulative probability is at most 1 − p. The likeliest
// stays. Of equal ones the lower id goes first.
static void keep_nucleus(candidates *kept, float top_p, candidate *work) {
  double limit = (1 - (double)top_p) * total_weight(kept);
  double removed = drop_tail(kept, limit);
  size_t n = kept->count, first = 0;
  for (size_t i = 0; i < n; i++) work[i] = (candidate){kept->scores[i], kept->weights[i], kept->ids[i]};
  qsort(work, n, sizeof(candidate), ascending);
  while (first + 1 < n && (removed += work[first].weight) <= limit) first++;
  qsort(work + first, n - first, sizeof(candidate), by_id);
  for (size_t i = first; i < n; i++) {
    kept->scores[i - first] = work[i].score;
    kept->weights[i - first] = work[i].weight;
    kept->ids[i - first] = work[i].id;
  }
  kept->count = n - first;
}

// The first candidate, by id, whose cumulative probability exceeds u.
static int32_t draw(const candidates *kept, float u) {
  double bound = (double)u * total_weight(kept), sum = 0;
  for (size_t i = 0; i < kept->count; i++)
    if ((sum += kept->weights[i]) > bound) return kept->ids[i];
  return kept->ids[kept->count - 1];
}

int32_t nibble_draw(const nibble_kernels *kernels, const float *logits, size_t count, const nibble_sampling *s, float *scratch) {
  const elementwise_kernels *k = kernels->elementwise;
  float *scores = scratch, *work = scratch + 4 * count;
  candidates kept = {scratch + count, scratch + 2 * count, (int32_t *)(scratch + 3 * count), 0};
  if (has_nan(logits, count)) return NIBBLE_NOT_A_NUMBER;
  k->scale(logits, 1 / s->temperature, scores, count);
  float best = k->maximum(scores, count);
  if (!(best > -INFINITY)) return NIBBLE_NO_TOKEN;
  float threshold = -INFINITY;
  if (s->top_k > 0 && s->top_k < count) threshold = kth_largest(k, scores, count, s->top_k, work);
  keep_from(k, scores, count, threshold, &kept);
  k->exponentials(kept.scores, best, kept.weights, kept.count);
  if (s->top_p < 1) keep_nucleus(&kept, s->top_p, (candidate *)work);
  if (s->min_p > 0) keep_if_weight(&kept, s->min_p < 1 ? s->min_p : 1);
  return draw(&kept, uniform(s->seed, s->stream, s->counter));
}

// Scaled logits; scores, weights and ids of candidates; candidates to sort.
size_t nibble_select_floats(size_t vocabulary) { return 7 * vocabulary; }
