#include "../include/nibble_route.h"

#include <math.h>
#include <string.h>

// One token's logits, and what its softmax needs.
typedef struct {
  const float *logits;
  float largest, total;
} router_row;

static router_row row_of(const nibble_route_arguments *a, size_t t) {
  router_row row = {a->logits + t * a->X, -INFINITY, 0};
  if (a->scoring == nibble_score_sigmoid) return row;
  for (size_t e = 0; e < a->X; e++) row.largest = fmaxf(row.largest, row.logits[e]);
  for (size_t e = 0; e < a->X; e++) row.total += expf(row.logits[e] - row.largest);
  return row;
}

static float score_of(const nibble_route_arguments *a, router_row row, size_t e) {
  if (a->scoring == nibble_score_sigmoid) return 1 / (1 + expf(-row.logits[e]));
  return expf(row.logits[e] - row.largest) / row.total;
}

static float nan_is_largest(float x) { return isnan(x) ? INFINITY : x; }

static float choice_of(const nibble_route_arguments *a, router_row row, size_t e) {
  if (!a->choice_bias && a->groups == 0) return nan_is_largest(row.logits[e]);
  return nan_is_largest(score_of(a, row, e) + (a->choice_bias ? a->choice_bias[e] : 0));
}

// Inserts a candidate that comes after those in the list: `ids` and `values` of the best so far, the best first.
static size_t insert(int32_t id, float value, int32_t *ids, float *values, size_t found, size_t limit) {
  size_t place = found;
  while (place > 0 && value > values[place - 1]) place--;
  if (place == limit) return found;
  found += found < limit;
  memmove(ids + place + 1, ids + place, (found - place - 1) * sizeof *ids);
  memmove(values + place + 1, values + place, (found - place - 1) * sizeof *values);
  ids[place] = id;
  values[place] = value;
  return found;
}

static float group_score(const nibble_route_arguments *a, router_row row, size_t group) {
  float best = -INFINITY, second = -INFINITY;
  size_t size = a->X / a->groups;
  for (size_t e = group * size; e < (group + 1) * size; e++) {
    float value = choice_of(a, row, e);
    second = fmaxf(second, fminf(best, value));
    best = fmaxf(best, value);
  }
  return a->group_score == nibble_group_best_two ? nan_is_largest(best + second) : best;
}

// A bit for each group whose experts may be chosen.
static uint32_t open_groups(const nibble_route_arguments *a, router_row row) {
  int32_t ids[nibble_route_group_limit];
  float values[nibble_route_group_limit];
  size_t found = 0;
  for (size_t g = 0; g < a->groups; g++) found = insert((int32_t)g, group_score(a, row, g), ids, values, found, a->chosen_groups);
  uint32_t open = 0;
  for (size_t i = 0; i < found; i++) open |= UINT32_C(1) << ids[i];
  return open;
}

// `weights` holds the choice values in the meantime.
static void choose(const nibble_route_arguments *a, router_row row, int32_t *ids, float *weights) {
  uint32_t open = a->groups ? open_groups(a, row) : 0;
  size_t size = a->groups ? a->X / a->groups : a->X, found = 0;
  for (size_t e = 0; e < a->X; e++) {
    float value = a->groups && !(open >> e / size & 1) ? -INFINITY : choice_of(a, row, e);
    found = insert((int32_t)e, value, ids, weights, found, a->k);
  }
}

static void weigh(const nibble_route_arguments *a, router_row row, const int32_t *ids, float *weights) {
  float sum = 0;
  for (size_t j = 0; j < a->k; j++) sum += weights[j] = score_of(a, row, (size_t)ids[j]);
  float divisor = a->normalizes ? fmaxf(sum + a->added, a->least) : 1;
  for (size_t j = 0; j < a->k; j++) {
    weights[j] = weights[j] / divisor * a->scale;
    if (a->expert_scale) weights[j] *= a->expert_scale[ids[j]];
  }
}

void nibble_route_task(void *arguments, size_t begin, size_t end, int thread) {
  (void)thread;
  const nibble_route_arguments *a = arguments;
  for (size_t t = begin; t < end; t++) {
    router_row row = row_of(a, t);
    int32_t *ids = a->ids + t * a->k;
    float *weights = a->weights + t * a->k;
    choose(a, row, ids, weights);
    weigh(a, row, ids, weights);
  }
}
