// Stores vectors in a quantized cache.
#include "cache_codes.h"

#include "../formats/half.h"
#include "../include/nibble_operations.h"

#include <math.h>
#include <string.h>

typedef struct {
  uint16_t scale, minimum;
} nibble_group_scale;

// To float16. A finite value stays finite.
static uint16_t saturated_half(float value) {
  if (isfinite(value)) value = fminf(fmaxf(value, -65504.f), 65504.f);
  return float_to_half(value);
}

static nibble_group_scale scale_of(const float *x, size_t count, int bits) {
  float least = x[0], largest = x[0], poison = 0;
  for (size_t i = 0; i < count; i++) {
    least = x[i] < least ? x[i] : least;
    largest = x[i] > largest ? x[i] : largest;
    poison += x[i] * 0;
  }
  // NaN where an element is not finite.
  least += poison;
  nibble_group_scale scale;
  scale.minimum = saturated_half(least);
  scale.scale = saturated_half((largest - half_to_float(scale.minimum)) / (float)((1 << bits) - 1));
  return scale;
}

static void store_group(const float *x, size_t count, int bits, nibble_group_scale scale, uint8_t *codes) {
  size_t bytes = nibble_group_bytes(count, bits);
  float minimum = half_to_float(scale.minimum), step = half_to_float(scale.scale), limit = (float)((1 << bits) - 1);
  float inverse = step > 0 ? 1 / step : 0;
  memset(codes, 0, bytes);
  for (size_t first = 0; first < count; first += bytes) {
    int shift = (int)(first / bytes) * bits;
    size_t end = count - first < bytes ? count - first : bytes;
    for (size_t i = 0; i < end; i++) {
      float place = (x[first + i] - minimum) * inverse + 0.5f;
      // Also false for NaN.
      place = place > 0 ? place : 0;
      place = place < limit ? place : limit;
      codes[i] |= (uint8_t)((uint32_t)place << shift);
    }
  }
}

void nibble_store_codes(const float *x, size_t size, size_t group_size, int bits, void *block, size_t slot) {
  size_t row = nibble_code_bytes(size, group_size, bits), groups = nibble_groups(size, group_size);
  uint8_t *codes = (uint8_t *)block + slot * row;
  nibble_group_scale *scales = (nibble_group_scale *)((uint8_t *)block + nibble_block_size * row) + slot * groups;
  for (size_t g = 0; g < groups; g++) {
    size_t count = size - g * group_size < group_size ? size - g * group_size : group_size;
    nibble_group_scale scale = scale_of(x + g * group_size, count, bits);
    store_group(x + g * group_size, count, bits, scale, codes);
    memcpy(scales + g, &scale, sizeof scale);
    codes += nibble_group_bytes(count, bits);
  }
}
