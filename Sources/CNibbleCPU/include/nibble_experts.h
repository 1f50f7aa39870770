// Routing for mixtures of experts.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// For each of T rows of router logits [T, X]: the k experts of largest probability (the lower number among equals) and their
/// softmax weights, scaled to sum to one if `normalizes`. Assignments are then sorted by expert, ascending, tokens ascending:
/// expert e has assignments starts[e] ..< starts[e + 1] (starts: [X + 1]); tokens and weights: [T × k].
/// `chosen` is workspace: [T × k].
void nibble_route(const float *logits, size_t T, size_t X, size_t k, bool normalizes, int32_t *starts, int32_t *tokens,
                  float *weights, int32_t *chosen, float *chosen_weights);

/// destination[i] = source[tokens[i]], rows of `width` floats.
void nibble_gather_rows(const float *source, const int32_t *tokens, size_t count, size_t width, float *destination);
/// destination[tokens[i]] += source[i] × weights[i].
void nibble_scatter_rows(const float *source, const int32_t *tokens, const float *weights, size_t count, size_t width,
                         float *destination);
