// 4-bit weights. In the tiled layout 64 bytes hold 8 columns of 16 features: 4 bytes a feature, column 2i in the high and
// column 2i + 1 in the low nibble of byte i. As a 32-bit integer, column j is at bit 4 × (j ^ 1).

enum { GROUP = 8 };

// MARK: Panels

#if LANES == 4
#include "linear_neon_4bit.h"
#else
#if LANES == 16
typedef __m512 codebook_vectors;

INLINE codebook_vectors load_codebook(const float *table) { return _mm512_loadu_ps(table); }
/// Looks up the code at bit `shift` of every lane.
INLINE vec look_up(codebook_vectors table, ivec codes, const int shift) {
  return _mm512_permutexvar_ps(_mm512_srli_epi32((__m512i)codes, (unsigned)shift), table);
}
#else
typedef struct {
  __m256 low, high;
} codebook_vectors;

INLINE codebook_vectors load_codebook(const float *table) {
  return (codebook_vectors){_mm256_loadu_ps(table), _mm256_loadu_ps(table + 8)};
}
INLINE vec look_up(codebook_vectors table, ivec codes, const int shift) {
  __m256i index = _mm256_srli_epi32((__m256i)codes, shift), top = _mm256_slli_epi32((__m256i)codes, 28 - shift);
  __m256 low = _mm256_permutevar8x32_ps(table.low, index), high = _mm256_permutevar8x32_ps(table.high, index);
  return _mm256_blendv_ps(low, high, (__m256)top);
}
#endif

/// A group's columns, each looked up when it is asked for.
typedef struct {
  codebook_vectors table;
  ivec codes;
} group_columns;

INLINE group_columns look_up_group(codebook_vectors table, ivec codes) { return (group_columns){table, codes}; }
INLINE vec column_of(const group_columns *group, const int j) { return look_up(group->table, group->codes, 4 * (j ^ 1)); }
#endif

INLINE vec rounded(vec v, nibble_input_form form) {
  if (form == NIBBLE_INPUT_F16) {
    typedef _Float16 halves __attribute__((vector_size(2 * LANES)));
    return __builtin_convertvector(__builtin_convertvector(v, halves), vec);
  }
  if (form != NIBBLE_INPUT_BF16) return v;
  ivec bits = (ivec)v;
  return (vec)((bits + 0x7FFF + (bits >> 16 & 1)) & (int32_t)0xFFFF0000);
}

INLINE void tiled_panel(nibble_input_form form, const nibble_linear_layer *layer, const float *scales, const uint8_t *codes,
                        size_t start, size_t depth, float *panel) {
  codebook_vectors table = load_codebook(nibble_codebook_values(layer->codebook));
  for (size_t k = 0; k < depth; k += GROUP) {
    const float *scale = scales + (start + k) / layer->block_size * NIBBLE_TILE;
    UNROLL for (int v = 0; v < VECTORS; v++) {
      vec factor = load(scale + v * LANES);
      group_columns w = look_up_group(table, load_integers(codes + k * 8 + v * LANES * 4));
      UNROLL for (int j = 0; j < GROUP; j++)
          store(panel + (k + (size_t)j) * NIBBLE_TILE + v * LANES, rounded(column_of(&w, j) * factor, form));
    }
  }
}

/// Columns `start ..< start + depth` of a tile, rounded to the type that `form` multiplies in.
static void four_bit_panel(nibble_input_form form, const nibble_linear_call *call, const nibble_linear_layer *layer,
                           linear_scales scales, size_t tile, size_t start, size_t depth, linear_scratch *scratch) {
  size_t K = call->K, first = tile * NIBBLE_TILE;
  const uint8_t *codes = layer->values;
  if (layer->kind == NIBBLE_WEIGHT_4BIT_TILED) {
    size_t blocks = K / layer->block_size;
    const float *tile_scales = scales.scales + tile * blocks * NIBBLE_TILE - scales.first;
    codes += (first * K + start * NIBBLE_TILE) / 2;
    if (form == NIBBLE_INPUT_F16)
      tiled_panel(NIBBLE_INPUT_F16, layer, tile_scales, codes, start, depth, scratch->panel);
    else if (form == NIBBLE_INPUT_BF16)
      tiled_panel(NIBBLE_INPUT_BF16, layer, tile_scales, codes, start, depth, scratch->panel);
    else
      tiled_panel(NIBBLE_INPUT_F32, layer, tile_scales, codes, start, depth, scratch->panel);
    return;
  }
  size_t features = linear_smaller(NIBBLE_TILE, layer->N - first);
  for (size_t i = 0; i < features; i++)
    nibble_expand_4bit(codes, scales.scales - scales.first, (first + i) * K + start, depth, layer->block_size, layer->codebook,
                       scratch->rows + i * PANEL_DEPTH);
  panel_float32((const char *)scratch->rows, PANEL_DEPTH * sizeof(float), features, depth, scratch->panel);
  if (form != NIBBLE_INPUT_F32) nibble_round_floats(scratch->panel, depth * NIBBLE_TILE, rounded_dtype(form));
}
