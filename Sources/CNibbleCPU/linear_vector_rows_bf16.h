// Many rows, products of pairs of bfloat16 (vdpbf16ps): for 4-bit layers that compute in bfloat16.

/// Part of row t of the input into its places: pairs of columns, rows padded with zeros.
static void arrange_bf16(const nibble_linear_call *call, size_t t, size_t start, size_t length, const float *values) {
  size_t K = linear_packed_stride(call), step;
  size_t end = start + length == call->K ? K - start : length;
  uint32_t *out = (uint32_t *)call->work.packed + arranged_place(call, K / 2, PANEL_DEPTH / 2, FLOAT_ROWS, t, start / 2, &step);
  for (size_t k = 0; k < end; k += 2) {
    uint32_t even = k < length ? float_to_bfloat(values[k]) : 0, odd = k + 1 < length ? float_to_bfloat(values[k + 1]) : 0;
    out[k / 2 * step] = even | odd << 16;
  }
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

INLINE void multiply_pairs(const int rows, const uint32_t *x, size_t step, const uint32_t *pairs, size_t count, float *sums) {
  __m512 acc[FLOAT_ROWS];
  UNROLL for (int r = 0; r < rows; r++) acc[r] = _mm512_loadu_ps(sums + r * NIBBLE_TILE);
  for (size_t k = 0; k < count; k++) {
    __m512bh w = (__m512bh)_mm512_loadu_si512(pairs + k * NIBBLE_TILE);
    UNROLL for (int r = 0; r < rows; r++)
      acc[r] = _mm512_dpbf16_ps(acc[r], w, (__m512bh)_mm512_set1_epi32((int32_t)x[k * step + (size_t)r]));
  }
  UNROLL for (int r = 0; r < rows; r++) _mm512_storeu_ps(sums + r * NIBBLE_TILE, acc[r]);
}

/// The sums of rows `t ..< t + rows` with the columns in scratch->panel, which is used up.
static void multiply_bf16(const nibble_linear_call *call, size_t t, size_t rows, size_t start, size_t depth,
                          linear_scratch *scratch, float *sums) {
  uint32_t *pairs = (uint32_t *)scratch->rows;
  narrow_panel(scratch->panel, depth, pairs);
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
