#include "../include/nibble_experts.h"

#include <math.h>
#include <string.h>

/// The k largest logits of a row, by repeated selection: X and k are small.
static void choose(const float *logits, size_t X, size_t k, int32_t *chosen) {
  for (size_t j = 0; j < k; j++) {
    int32_t best = -1;
    for (size_t e = 0; e < X; e++) {
      bool taken = false;
      for (size_t i = 0; i < j; i++) taken |= chosen[i] == (int32_t)e;
      if (!taken && (best < 0 || logits[e] > logits[best])) best = (int32_t)e;
    }
    chosen[j] = best;
  }
}

static void weigh(const float *logits, size_t X, size_t k, bool normalizes, const int32_t *chosen, float *weights) {
  float largest = logits[chosen[0]], sum = 0, kept = 0;
  for (size_t e = 0; e < X; e++) sum += expf(logits[e] - largest);
  for (size_t j = 0; j < k; j++) {
    weights[j] = expf(logits[chosen[j]] - largest) / sum;
    kept += weights[j];
  }
  for (size_t j = 0; normalizes && j < k; j++) weights[j] /= kept;
}

void nibble_route(const float *logits, size_t T, size_t X, size_t k, bool normalizes, int32_t *starts, int32_t *tokens,
                  float *weights, int32_t *chosen, float *chosen_weights) {
  memset(starts, 0, (X + 1) * sizeof *starts);
  for (size_t t = 0; t < T; t++) {
    choose(logits + t * X, X, k, chosen + t * k);
    weigh(logits + t * X, X, k, normalizes, chosen + t * k, chosen_weights + t * k);
    for (size_t j = 0; j < k; j++) starts[chosen[t * k + j] + 1]++;
  }
  for (size_t e = 0; e < X; e++) starts[e + 1] += starts[e];
  // Filling moves each start to its end; afterwards they are shifted back.
  for (size_t i = 0; i < T * k; i++) {
    int32_t place = starts[chosen[i]]++;
    tokens[place] = (int32_t)(i / k);
    weights[place] = chosen_weights[i];
  }
  for (size_t e = X; e > 0; e--) starts[e] = starts[e - 1];
  starts[0] = 0;
}

void nibble_gather_rows(const float *source, const int32_t *tokens, size_t count, size_t width, float *destination) {
  for (size_t i = 0; i < count; i++) memcpy(destination + i * width, source + (size_t)tokens[i] * width, width * sizeof *source);
}

void nibble_scatter_rows(const float *source, const int32_t *tokens, const float *weights, size_t count, size_t width,
                         float *destination) {
  for (size_t i = 0; i < count; i++) {
    float *row = destination + (size_t)tokens[i] * width;
    for (size_t j = 0; j < width; j++) row[j] += source[i * width + j] * weights[i];
  }
}
