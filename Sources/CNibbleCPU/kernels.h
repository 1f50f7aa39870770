// The kernels of one instruction level: a table of functions for each folder.
#pragma once

#include <stdint.h>

#include "attention/attention_kernels.h"
#include "elementwise/elementwise_kernels.h"
#include "include/nibble_levels.h"
#include "linear/linear_kernels.h"
#include "quantize/quantize_kernels.h"
#include "recurrence/recurrence_kernels.h"

struct nibble_kernels {
  const char *level;
  /// Bits of runtime/levels.c: what the machine must have.
  uint32_t features;
  const elementwise_kernels *elementwise;
  const attention_kernels *attention;
  const linear_kernels *linear;
  const quantize_kernels *quantize;
  const recurrence_kernels *recurrence;
};
