// One norm, for elementwise.c and for the norms of queries and keys.
#pragma once

#include "../include/nibble_operations.h"

/// 1 / √(mean square + ε)
float nibble_norm_factor(const nibble_norm *norm, float square_sum, size_t count);
/// Normalizes `count` elements together. Weight, bias and residual may be NULL; `out` may be `x`.
void nibble_normalize(const nibble_kernels *kernels, const nibble_norm *norm, const float *x, const float *weight,
                      const float *bias, const float *residual, float *out, size_t count);
