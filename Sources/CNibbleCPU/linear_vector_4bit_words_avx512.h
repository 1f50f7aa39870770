// Products of 16-bit integers with AVX-512: one permutation looks up 32 words. The 16-bit halves of a feature's 4 bytes hold
// columns 0–3 and 4–7, so at every shift columns j and j + 4 stand side by side.

typedef struct {
  __m512i words;
  float unit;
} word_codebook;

static word_codebook load_words(nibble_codebook codebook) {
  __m512i wide = _mm512_cvtps_epi32((__m512)(load(nibble_codebook_values(codebook)) * word_divisor(codebook)));
  // Twice, because an index has five bits, of which the upper one is another code's.
  __m512i words = _mm512_broadcast_i64x4(_mm512_cvtsepi32_epi16(wide));
  return (word_codebook){words, 1 / word_divisor(codebook)};
}

/// Row t's words: of each group of 8 columns 1 5 0 4 3 7 2 6.
static void pack_row(const nibble_linear_call *call, size_t t) {
  const float *x = call->x + t * call->K;
  int16_t *words = words_of(call, t);
  float *steps = (float *)word_steps(words, linear_packed_stride(call));
  const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(2, 3, 10, 11, 0, 1, 8, 9, 6, 7, 14, 15, 4, 5, 12, 13));
  for (size_t k = 0; k + WORD_GROUP <= call->K; k += WORD_GROUP) {
    vec v = rounded(load(x + k), call->form);
    // 2ᵉ ≤ largest < 2ᵉ⁺¹ becomes 2¹⁴ ≤ word < 2¹⁵.
    int32_t power = __builtin_reduce_max((ivec)v & 0x7FFFFFFF) & 0x7F800000;
    power = power > 32 << 23 ? power : 32 << 23;
    float factor = float_of((uint32_t)(((127 * 2 + 14) << 23) - power));
    __m256i packed = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32((__m512)(v * factor)));
    _mm256_storeu_si256((__m256i *)(words + k), _mm256_shuffle_epi8(packed, order));
    // An infinity or a NaN makes the sum a NaN.
    steps[k / WORD_GROUP] = power > 254 << 23 ? NAN : float_of((uint32_t)(power - (14 << 23)));
  }
}

INLINE ivec dot_pairs(ivec sum, __m512i w, __m512i x) {
#if VNNI
  return (ivec)_mm512_dpwssd_epi32((__m512i)sum, w, x);
#else
  return sum + MULTIPLY_PAIRS(w, x);
#endif
}

/// 16 columns for `rows` rows. A sum takes eight products, so the two loads have sums of their own.
INLINE void add_words(const int rows, __m512i table, const uint8_t *codes, const int16_t *words, const float *steps,
                      size_t stride, vec *acc) {
  UNROLL for (int g = 0; g < 2; g++) {
    __builtin_prefetch(codes + 64 * g + PREFETCH_AHEAD);
    __m512i packed = _mm512_loadu_si512(codes + 64 * g);
    ivec sums[FEW_ROWS] = {};
    UNROLL for (int j = 0; j < 4; j++) {
      __m512i w = _mm512_permutexvar_epi16(_mm512_srli_epi16(packed, (unsigned)(4 * j)), table);
      UNROLL for (int r = 0; r < rows; r++) {
        int32_t pair;
        memcpy(&pair, words + (size_t)r * 2 * stride + 8 * g + 2 * j, sizeof pair);
        sums[r] = dot_pairs(sums[r], w, _mm512_set1_epi32(pair));
      }
    }
    UNROLL for (int r = 0; r < rows; r++) {
      vec step = splat(*(const float *)((const char *)steps + (size_t)r * 4 * stride));
      acc[2 * r + g] = fma_(__builtin_convertvector(sums[r], vec), step, acc[2 * r + g]);
    }
  }
}

INLINE void few_rows_words(const int rows, word_codebook table, const uint8_t *codes, const float *scales, size_t block_size,
                           const int16_t *words, size_t stride, size_t K, float *sums) {
  const float *steps = word_steps(words, stride);
  vec totals[FEW_ROWS] = {};
  for (size_t k = 0; k < K; scales += NIBBLE_TILE) {
    vec acc[2 * FEW_ROWS] = {};
    for (size_t end = k + block_size; k < end; k += WORD_GROUP, codes += 128)
      add_words(rows, table.words, codes, words + k, steps + k / WORD_GROUP, stride, acc);
    __builtin_prefetch(scales + SCALES_AHEAD);
    UNROLL for (int r = 0; r < rows; r++) totals[r] = fma_(acc[2 * r] + acc[2 * r + 1], load(scales), totals[r]);
  }
  UNROLL for (int r = 0; r < rows; r++) store(sums + r * NIBBLE_TILE, totals[r] * table.unit);
}
