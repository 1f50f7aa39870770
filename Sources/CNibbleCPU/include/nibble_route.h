// Routing of mixtures: from router logits to the experts of each token. Letters: T tokens, X experts, k experts of a token.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { nibble_score_softmax = 0, nibble_score_sigmoid = 1 };
enum { nibble_group_largest = 0, nibble_group_best_two = 1 };
/// Groups are bits of a mask.
enum { nibble_route_group_limit = 32 };

/// Items: tokens. Experts of a row are ordered by their choice value, the largest first, the lower number among equals; NaN
/// counts as the largest. The choice value is score + choice_bias, or the logit where there is neither a bias nor a group.
typedef struct {
  const float *logits;        // [T, X]
  const float *choice_bias;   // [X], or NULL
  const float *expert_scale;  // [X]: factors on the weights, or NULL
  int32_t *ids;               // [T, k]
  float *weights;             // [T, k]
  size_t X, k;
  int32_t scoring;
  /// Only experts of the `chosen_groups` best of `groups` runs of X / groups experts are chosen. 0: no groups.
  size_t groups, chosen_groups;
  int32_t group_score;
  /// Whether weights are divided by max(their sum + added, least).
  bool normalizes;
  float added, least;
  float scale;
} nibble_route_arguments;
void nibble_route_task(void *arguments, size_t begin, size_t end, int thread);
