#include "nibble_selection.h"

#include "half.h"
#include "kernels.h"

#include <math.h>
#include <stdlib.h>

#define K nibble_active_kernels

int32_t nibble_greedy(const float *logits, size_t count) {
  size_t place = K.find(logits, K.maximum(logits, count), count);
  return place < count ? (int32_t)place : 0;
}

void nibble_greedy_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_greedy_arguments *a = arguments;
  for (size_t i = begin; i < end; i++) {
    size_t first = i * a->part, left = a->vocabulary - first;
    a->best[i] = (int32_t)first + nibble_greedy(a->logits + first, left < a->part ? left : a->part);
  }
}

// NibbleCore.RandomStream.
static uint64_t mix(uint64_t value) {
  uint64_t z = value + 0x9E3779B97F4A7C15;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
  z = (z ^ z >> 27) * 0x94D049BB133111EB;
  return z ^ z >> 31;
}

static float uniform(uint64_t seed, uint64_t stream, uint64_t counter) {
  return (float)(mix(mix(mix(seed) ^ stream) ^ counter) >> 40) * 0x1p-24f;
}

// A token that may still be chosen.
typedef struct {
  float score;
  int32_t id;
} candidate;

static void swap(candidate *a, candidate *b) {
  candidate t = *a;
  *a = *b;
  *b = t;
}

static void sift_down(candidate *heap, size_t count, size_t i) {
  for (;;) {
    size_t least = i, left = 2 * i + 1, right = left + 1;
    if (left < count && heap[left].score < heap[least].score) least = left;
    if (right < count && heap[right].score < heap[least].score) least = right;
    if (least == i) return;
    swap(&heap[i], &heap[least]);
    i = least;
  }
}

static int by_score(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

// The K-th largest score (K ≤ count). A heap of the K best while K is small; else a sorted copy.
static float kth_largest(const float *scores, size_t count, size_t k, candidate *heap) {
  if (k > count / 8) {
    float *copy = (float *)heap;
    for (size_t i = 0; i < count; i++) copy[i] = scores[i];
    qsort(copy, count, sizeof(float), by_score);
    return copy[count - k];
  }
  for (size_t i = 0; i < k; i++) heap[i] = (candidate){scores[i], 0};
  for (size_t i = k / 2; i-- > 0;) sift_down(heap, k, i);
  for (size_t i = k; i < count; i++) {
    if (!(scores[i] > heap[0].score)) continue;
    heap[0].score = scores[i];
    sift_down(heap, k, 0);
  }
  return heap[0].score;
}

static size_t keep_from(const float *scores, size_t count, float threshold, candidate *kept) {
  size_t n = 0;
  for (size_t i = 0; i < count; i++)
    if (scores[i] >= threshold) kept[n++] = (candidate){scores[i], (int32_t)i};
  return n;
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

// exp(score − best), 1 where both are infinite.
static double weight_of(float score, float best) { return score == best ? 1 : exp((double)score - best); }

// Nucleus: removes, from the least likely on, what the cumulative probability up to 1 − p covers; the likeliest stays. Among
// equals the lower id goes first. A score this far below the best can only be in the removed tail, so most are never sorted.
static size_t keep_nucleus(candidate *kept, size_t count, float top_p, float best) {
  double total = 0, removed = 0;
  for (size_t i = 0; i < count; i++) total += weight_of(kept[i].score, best);
  double limit = (1 - (double)top_p) * total;
  // Sort only what lies above a cut under which the whole mass is removed.
  size_t tail = 0;
  for (float distance = 4; distance < 64; distance *= 2) {
    double mass = 0;
    for (size_t i = 0; i < count; i++)
      if (kept[i].score < best - distance) mass += weight_of(kept[i].score, best);
    if (mass > limit) continue;
    for (size_t i = 0; i < count; i++) {
      if (!(kept[i].score < best - distance)) continue;
      swap(&kept[i], &kept[tail++]);
    }
    removed = mass;
    break;
  }
  candidate *rest = kept + tail;
  size_t n = count - tail, first = 0;
  qsort(rest, n, sizeof(candidate), ascending);
  while (first + 1 < n && (removed += weight_of(rest[first].score, best)) <= limit) first++;
  n -= first;
  for (size_t i = 0; i < n; i++) kept[i] = rest[first + i];
  qsort(kept, n, sizeof(candidate), by_id);
  return n;
}

static size_t keep_likely(candidate *kept, size_t count, float min_p, float best) {
  size_t n = 0;
  for (size_t i = 0; i < count; i++)
    if (weight_of(kept[i].score, best) >= (double)min_p) kept[n++] = kept[i];
  return n;
}

// The first candidate, by id, whose cumulative probability exceeds u.
static int32_t draw(const candidate *kept, size_t count, float best, float u) {
  double total = 0, sum = 0;
  for (size_t i = 0; i < count; i++) total += weight_of(kept[i].score, best);
  for (size_t i = 0; i < count; i++) {
    sum += weight_of(kept[i].score, best);
    if (sum > (double)u * total) return kept[i].id;
  }
  return kept[count - 1].id;
}

static int32_t draw_row(const nibble_select_arguments *a, size_t row, float *scratch) {
  size_t count = a->vocabulary;
  const float *logits = a->logits + row * count;
  float *scores = scratch;
  candidate *kept = (candidate *)(scratch + count);
  for (size_t i = 0; i < count; i++) {
    float score = logits[i] / a->temperature;
    scores[i] = score == score ? score : -INFINITY;
  }
  float best = K.maximum(scores, count);
  if (best == -INFINITY) return 0;
  float threshold = -INFINITY;
  if (a->top_k > 0 && a->top_k < count) threshold = kth_largest(scores, count, a->top_k, kept);
  size_t n = keep_from(scores, count, threshold, kept);
  if (a->top_p < 1) n = keep_nucleus(kept, n, a->top_p, best);
  if (a->min_p > 0) n = keep_likely(kept, n, a->min_p < 1 ? a->min_p : 1, best);
  float u = uniform(a->seed, a->first_stream + row, (uint64_t)(uint32_t)a->counters[row]);
  return draw(kept, n, best, u);
}

void nibble_select_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_select_arguments *a = arguments;
  for (size_t r = begin; r < end; r++) {
    if (a->temperature > 0) {
      a->tokens[r] = draw_row(a, r, a->scratch + (size_t)thread * 3 * a->vocabulary);
    } else {
      a->tokens[r] = nibble_greedy(a->logits + r * a->vocabulary, a->vocabulary);
    }
  }
}
