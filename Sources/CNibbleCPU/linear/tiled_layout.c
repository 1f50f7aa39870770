// The tiled layout of 4-bit weights: [⌈N / 16⌉, K / 8, 16, 4 bytes].
#include <string.h>

#include "../include/nibble_linear.h"

enum { GROUP_COLUMNS = 8, GROUP_BYTES = 4 };

bool nibble_can_tile_4bit(size_t K, size_t block_size) { return K % GROUP_COLUMNS == 0 && block_size && K % block_size == 0; }

static void tile_codes(const uint8_t *codes, size_t N, size_t K, size_t tile, uint8_t *tiled) {
  size_t groups = K / GROUP_COLUMNS;
  for (size_t lane = 0; lane < NIBBLE_TILE; lane++) {
    size_t row = tile * NIBBLE_TILE + lane;
    uint8_t *to = tiled + (tile * groups * NIBBLE_TILE + lane) * GROUP_BYTES;
    for (size_t g = 0; g < groups; g++, to += NIBBLE_TILE * GROUP_BYTES) {
      if (row < N)
        memcpy(to, codes + (row * groups + g) * GROUP_BYTES, GROUP_BYTES);
      else
        memset(to, 0, GROUP_BYTES);
    }
  }
}

void nibble_tile_4bit(const uint8_t *codes, const float *scales, size_t N, size_t K, size_t block_size, size_t begin, size_t end,
                      uint8_t *tiled_codes, float *tiled_scales) {
  size_t blocks = K / block_size;
  for (size_t tile = begin; tile < end; tile++) {
    if (codes) tile_codes(codes, N, K, tile, tiled_codes);
    for (size_t lane = 0; scales && lane < NIBBLE_TILE; lane++) {
      size_t row = tile * NIBBLE_TILE + lane;
      for (size_t b = 0; b < blocks; b++)
        tiled_scales[(tile * blocks + b) * NIBBLE_TILE + lane] = row < N ? scales[row * blocks + b] : 0;
    }
  }
}

void nibble_untile_4bit(const uint8_t *tiled_codes, const float *tiled_scales, size_t N, size_t K, size_t block_size,
                        size_t begin, size_t end, uint8_t *codes, float *scales) {
  size_t groups = K / GROUP_COLUMNS, blocks = K / block_size;
  for (size_t tile = begin; tile < end; tile++) {
    for (size_t lane = 0; lane < NIBBLE_TILE && tile * NIBBLE_TILE + lane < N; lane++) {
      size_t row = tile * NIBBLE_TILE + lane;
      const uint8_t *from = tiled_codes + (tile * groups * NIBBLE_TILE + lane) * GROUP_BYTES;
      for (size_t g = 0; g < groups; g++, from += NIBBLE_TILE * GROUP_BYTES)
        memcpy(codes + (row * groups + g) * GROUP_BYTES, from, GROUP_BYTES);
      for (size_t b = 0; scales && b < blocks; b++)
        scales[row * blocks + b] = tiled_scales[(tile * blocks + b) * NIBBLE_TILE + lane];
    }
  }
}
