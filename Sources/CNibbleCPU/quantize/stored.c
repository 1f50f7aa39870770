// Weights as other quantizers store them. Words are read as this machine stores them: little-endian, as the files are.
#include "../include/nibble_stored.h"

#include <string.h>

#include "../kernels.h"

enum {
  CHUNK = 1024,
  /// Rows of words are far apart, so that the processor does not see which comes next.
  AHEAD = 16,
};

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

void nibble_decode_row(const nibble_kernels *kernels, nibble_code code, const uint8_t *codes, size_t width,
                       const nibble_row_scales *row, float *out) {
  decode_codes *decode = kernels->quantize->decode_codes[code];
  if (code < NIBBLE_CODE_E2M1) return decode(codes, 0, width, row, out);
  uint8_t unpacked[CHUNK];
  for (size_t start = 0; start < width; start += CHUNK) {
    size_t length = smaller(CHUNK, width - start);
    const uint8_t *pairs = codes + start / 2;
    for (size_t i = 0; i < length / 2; i++) {
      unpacked[2 * i] = pairs[i] & 15;
      unpacked[2 * i + 1] = pairs[i] >> 4;
    }
    if (length & 1) unpacked[length - 1] = pairs[length / 2] & 15;
    decode(unpacked, start, length, row, out + start);
  }
}

void nibble_decode_grouped_row(const uint8_t *restrict codes, size_t width, const int32_t *restrict groups, size_t group_count,
                               const float *scales, const float *zeros, int32_t bits, float *restrict out) {
  float table[CHUNK * 4];
  size_t values = (size_t)1 << bits;
  // The table pays where it is smaller than the row.
  if (group_count * values > smaller(CHUNK * 4, width)) {
    for (size_t k = 0; k < width; k++) out[k] = ((float)codes[k] - zeros[groups[k]]) * scales[groups[k]];
    return;
  }
  for (size_t group = 0; group < group_count; group++)
    for (size_t code = 0; code < values; code++) table[group << bits | code] = ((float)code - zeros[group]) * scales[group];
  if (bits == 4) {
#pragma clang loop unroll_count(8)
    for (size_t k = 0; k < width; k++) out[k] = table[(size_t)groups[k] * 16 + codes[k]];
  } else {
    for (size_t k = 0; k < width; k++) out[k] = table[(size_t)groups[k] << bits | codes[k]];
  }
}

/// Eight nibbles, the lowest first, to a byte each.
static uint64_t spread(uint32_t word) {
  uint64_t bytes = word;
  bytes = (bytes | bytes << 16) & 0x0000FFFF0000FFFF;
  bytes = (bytes | bytes << 8) & 0x00FF00FF00FF00FF;
  return (bytes | bytes << 4) & 0x0F0F0F0F0F0F0F0F;
}

/// The first of each row's codes of 4 bits goes to codes[r × codes_stride].
static void unpack_nibble_words(const uint32_t *words, size_t rows, uint8_t *codes, size_t codes_stride) {
  enum { PIECE = 16 };
  for (size_t start = 0; start < rows; start += PIECE) {
    uint64_t bytes[PIECE];
    size_t count = smaller(PIECE, rows - start);
    if (count == PIECE)
      for (size_t r = 0; r < PIECE; r++) bytes[r] = spread(words[start + r]);
    else
      for (size_t r = 0; r < count; r++) bytes[r] = spread(words[start + r]);
    for (size_t r = 0; r < count; r++) memcpy(codes + (start + r) * codes_stride, bytes + r, 8);
  }
}

void nibble_unpack_columns(const uint32_t *words, size_t stride, size_t word_rows, size_t rows, int32_t bits, uint8_t *codes,
                           size_t codes_stride) {
  for (size_t w = 0; w < word_rows; w++) {
    __builtin_prefetch(words + (w + AHEAD < word_rows ? w + AHEAD : w) * stride);
    uint8_t *out = codes + w * (size_t)(32 / bits);
    if (bits == 4) {
      unpack_nibble_words(words + w * stride, rows, out, codes_stride);
      continue;
    }
    for (size_t r = 0; r < rows; r++)
      for (int32_t i = 0; i < 32 / bits; i++)
        out[r * codes_stride + (size_t)i] = (uint8_t)(words[w * stride + r] >> i * bits & ((1u << bits) - 1));
  }
}

/// Exchanges the bits of `mask` in b with the bits of a that lie `shift` above them.
static void exchange(uint64_t *a, uint64_t *b, int shift, uint64_t mask) {
  uint64_t difference = (*a >> shift ^ *b) & mask;
  *b ^= difference;
  *a ^= difference << shift;
}

/// Byte j of x[i] becomes byte i of x[j].
static void transpose_bytes(uint64_t x[8]) {
  for (int i = 0; i < 4; i++) exchange(x + i, x + i + 4, 32, 0x00000000FFFFFFFF);
  for (int i = 0; i < 8; i += i % 4 == 1 ? 3 : 1) exchange(x + i, x + i + 2, 16, 0x0000FFFF0000FFFF);
  for (int i = 0; i < 8; i += 2) exchange(x + i, x + i + 1, 8, 0x00FF00FF00FF00FF);
}

static void copy(uint8_t *out, uint64_t bytes, size_t count) {
  if (count == 8)
    memcpy(out, &bytes, 8);
  else
    memcpy(out, &bytes, count);
}

void nibble_unpack_row_words(const uint32_t *words, size_t stride, size_t row_words, size_t width, uint8_t *codes,
                             size_t codes_stride) {
  // Where in a word the code of each of its eight rows lies, in nibbles.
  static const uint8_t places[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  for (size_t k = 0; k < width; k += 8) {
    size_t columns = smaller(8, width - k);
    for (size_t i = 0; i < columns && k + AHEAD < width - i; i++) __builtin_prefetch(words + (k + i + AHEAD) * stride);
    for (size_t w = 0; w < row_words; w++) {
      uint64_t x[8] = {0};
      for (size_t i = 0; i < columns; i++) x[i] = spread(words[(k + i) * stride + w]);
      transpose_bytes(x);
      for (size_t r = 0; r < 8; r++) copy(codes + (8 * w + r) * codes_stride + k, x[places[r]], columns);
    }
  }
}

ptrdiff_t nibble_first_non_finite(const nibble_kernels *kernels, const float *values, size_t count) {
  const uint32_t infinity = 0x7F800000;
  for (size_t start = 0; start < count; start += CHUNK) {
    size_t length = smaller(CHUNK, count - start);
    if (kernels->quantize->magnitude_bits(values + start, length) < infinity) continue;
    for (size_t i = 0; i < length; i++)
      if (kernels->quantize->magnitude_bits(values + start + i, 1) >= infinity) return (ptrdiff_t)(start + i);
  }
  return -1;
}
