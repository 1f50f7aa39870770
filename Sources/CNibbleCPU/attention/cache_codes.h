// The layout of codes and scales in a quantized cache (NibbleCore.KeyValueQuantization).
#pragma once

#include <stddef.h>
#include <stdint.h>

/// Bytes of a group of `count` elements.
static inline size_t nibble_group_bytes(size_t count, int bits) {
  size_t per_byte = 8 / (size_t)bits;
  return (count + per_byte - 1) / per_byte;
}

static inline size_t nibble_groups(size_t size, size_t group_size) { return (size + group_size - 1) / group_size; }

/// Bytes of a vector's codes.
static inline size_t nibble_code_bytes(size_t size, size_t group_size, int bits) {
  return size / group_size * nibble_group_bytes(group_size, bits) + nibble_group_bytes(size % group_size, bits);
}

/// Bytes of a vector.
static inline size_t nibble_quantized_bytes(size_t size, size_t group_size, int bits) {
  return nibble_code_bytes(size, group_size, bits) + nibble_groups(size, group_size) * 4;
}

/// Quantizes a vector into position `slot` of one head's `block`.
void nibble_store_codes(const float *x, size_t size, size_t group_size, int bits, void *block, size_t slot);
