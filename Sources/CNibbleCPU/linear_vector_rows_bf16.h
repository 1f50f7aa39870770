// Many rows, products of pairs of bfloat16 (vdpbf16ps): for 4-bit layers that compute in bfloat16.

/// Words of a chunk: those of vdpbf16ps share the first-level cache with the panel in float32 that a layer without tiles needs.
enum { PAIRS_CHUNK = AMX ? PANEL_DEPTH : PANEL_DEPTH / 2 };

/// Part of row t of the input into its places: pairs of columns, rows padded with zeros.
static void arrange_bf16(const nibble_linear_call *call, size_t t, size_t start, size_t length, const float *values) {
  size_t K = linear_packed_stride(call);
  uint16_t narrow[PANEL_DEPTH] = {};
  int32_t words[PANEL_DEPTH / 2];
  for (size_t k = 0; k < length; k++) narrow[k] = float_to_bfloat(values[k]);
  memcpy(words, narrow, sizeof words);
  size_t end = start + length == call->K ? K - start : length;
  arrange_words(call, K / 2, PAIRS_CHUNK, FLOAT_ROWS, t, start / 2, words, end / 2);
}

/// Pairs of columns of the panel, rounded: [⌈depth / 2⌉, 16, 2].
static void narrow_panel(float *panel, size_t depth, uint32_t *pairs) {
  if (depth & 1) memset(panel + depth * NIBBLE_TILE, 0, NIBBLE_TILE * sizeof(float));
  for (size_t k = 0; k < depth; k += 2) {
    __m256i even = (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(panel + k * NIBBLE_TILE));
    __m256i odd = (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(panel + (k + 1) * NIBBLE_TILE));
    __m512i both = _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
    _mm512_storeu_si512(pairs + k / 2 * NIBBLE_TILE, both);
  }
}

/// Columns `start ..< start + depth` of a tile as pairs, the last one padded with a zero.
static void pairs_panel(const nibble_linear_call *call, const nibble_linear_layer *layer, linear_scales scales, size_t tile,
                        size_t start, size_t depth, linear_scratch *scratch, uint32_t *pairs) {
  if (layer->kind != NIBBLE_WEIGHT_4BIT_TILED) {
    for (size_t k = 0; k < depth; k += PANEL_DEPTH) {
      size_t length = linear_smaller(PANEL_DEPTH, depth - k);
      four_bit_panel(NIBBLE_INPUT_F32, call, layer, scales, tile, start + k, length, scratch);
      narrow_panel(scratch->panel, length, pairs + k / 2 * NIBBLE_TILE);
    }
    return;
  }
  const float *tile_scales = scales.scales + tile * (call->K / layer->block_size) * NIBBLE_TILE - scales.first;
  const uint8_t *codes = (const uint8_t *)layer->values + (tile * call->K + start) * NIBBLE_TILE / 2;
  codebook_vectors table = load_codebook(nibble_codebook_values(layer->codebook));
  uint16_t order[32];
  for (uint16_t i = 0; i < 32; i++) order[i] = i / 2 + i % 2 * 16;
  __m512i interleaved = _mm512_loadu_si512(order);
  for (size_t k = 0; k < depth; k += GROUP) {
    vec scale = load(tile_scales + (start + k) / layer->block_size * NIBBLE_TILE);
    ivec packed = load_integers(codes + k * 8);
    UNROLL for (int j = 0; j < GROUP; j += 2) {
      vec even = look_up(table, packed, 4 * (j + 1)) * scale, odd = look_up(table, packed, 4 * j) * scale;
      __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
      _mm512_storeu_si512(pairs + (k + (size_t)j) / 2 * NIBBLE_TILE, _mm512_permutexvar_epi16(interleaved, both));
    }
  }
}

#if !AMX
INLINE void multiply_pairs(const int rows, const uint32_t *x, size_t step, const uint32_t *pairs, size_t count, float *sums) {
  __m512 acc[FLOAT_ROWS];
  UNROLL for (int r = 0; r < rows; r++) acc[r] = _mm512_loadu_ps(sums + r * NIBBLE_TILE);
  for (size_t k = 0; k < count; k++) {
    __m512bh w = (__m512bh)_mm512_loadu_si512(pairs + k * NIBBLE_TILE);
    UNROLL for (int r = 0; r < rows; r++) acc[r] =
        _mm512_dpbf16_ps(acc[r], w, (__m512bh)_mm512_set1_epi32((int32_t)x[k * step + (size_t)r]));
  }
  UNROLL for (int r = 0; r < rows; r++) _mm512_storeu_ps(sums + r * NIBBLE_TILE, acc[r]);
}

/// The sums of rows `t ..< t + rows` with columns `start ..< start + depth` of a tile.
static void multiply_bf16(const nibble_linear_call *call, const nibble_linear_layer *layer, linear_scales scales, size_t tile,
                          size_t t, size_t rows, size_t start, size_t depth, linear_scratch *scratch, float *sums) {
  uint32_t *pairs = scratch->words[0];
  pairs_panel(call, layer, scales, tile, start, depth, scratch, pairs);
  // Arranged pairs of a chunk: the last one is padded.
  size_t count = (depth + 1) / 2, step = linear_smaller(PANEL_DEPTH, linear_packed_stride(call) - start) / 2;
  const uint32_t *x = (const uint32_t *)call->work.packed + start / 2 * call->T + t * step;
  for (size_t r = 0; r < rows; r += FLOAT_ROWS) {
    size_t height = linear_smaller(FLOAT_ROWS, rows - r), i = 0;
    const uint32_t *block = x + r * step;
    float *out = sums + r * NIBBLE_TILE;
    if (height == FLOAT_ROWS) {
      multiply_pairs(FLOAT_ROWS, block, height, pairs, count, out);
      continue;
    }
    for (; i + 4 <= height; i += 4) multiply_pairs(4, block + i, height, pairs, count, out + i * NIBBLE_TILE);
    for (; i < height; i++) multiply_pairs(1, block + i, height, pairs, count, out + i * NIBBLE_TILE);
  }
}
#endif
