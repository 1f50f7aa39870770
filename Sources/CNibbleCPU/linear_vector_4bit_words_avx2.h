// Products of 16-bit integers with AVX2: a codebook's words are looked up byte by byte.

/// The look-up table of a codebook: lower and upper bytes of integers, and what 1 stands for.
typedef struct {
  __m256i lower, upper;
  float unit;
} word_codebook;

static word_codebook load_words(nibble_codebook codebook) {
  const float *values = nibble_codebook_values(codebook);
  __m256 divisor = _mm256_set1_ps(word_divisor(codebook));
  __m256i first = _mm256_cvtps_epi32(_mm256_loadu_ps(values) * divisor),
          last = _mm256_cvtps_epi32(_mm256_loadu_ps(values + 8) * divisor);
  // Packing works within halves: each takes four words of both, so their middle quarters change places.
  __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(first, last), 0xD8);
  __m256i bytes = _mm256_packus_epi16(_mm256_and_si256(words, _mm256_set1_epi16(255)), _mm256_srli_epi16(words, 8));
  return (word_codebook){_mm256_permute4x64_epi64(bytes, 0x88), _mm256_permute4x64_epi64(bytes, 0xDD),
                         1 / word_divisor(codebook)};
}

/// Row t's words: of each group of 8 columns 0 2 4 6 1 3 5 7.
static void pack_row(const nibble_linear_call *call, size_t t) {
  const float *x = call->x + t * call->K;
  int16_t *words = words_of(call, t);
  float *steps = (float *)word_steps(words, linear_packed_stride(call));
  const __m256i exponent = _mm256_set1_epi32(0x7F800000), least = _mm256_set1_epi32(32 << 23),
                most = _mm256_set1_epi32(254 << 23);
  const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
  for (size_t k = 0; k + WORD_GROUP <= call->K; k += WORD_GROUP) {
    vec v[2] = {rounded(load(x + k), call->form), rounded(load(x + k + 8), call->form)};
    const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i size = _mm256_max_epi32(_mm256_and_si256((__m256i)v[0], magnitude), _mm256_and_si256((__m256i)v[1], magnitude));
    size = _mm256_max_epi32(size, _mm256_permute2x128_si256(size, size, 1));
    size = _mm256_max_epi32(size, _mm256_shuffle_epi32(size, 0x4E));
    size = _mm256_max_epi32(size, _mm256_shuffle_epi32(size, 0xB1));
    // 2ᵉ ≤ largest < 2ᵉ⁺¹ becomes 2¹⁴ ≤ word < 2¹⁵.
    __m256i power = _mm256_max_epi32(_mm256_and_si256(size, exponent), least);
    __m256i step = _mm256_sub_epi32(power, _mm256_set1_epi32(14 << 23));
    __m256 factor = (__m256)_mm256_sub_epi32(_mm256_set1_epi32((127 * 2 + 14) << 23), power);
    // An infinity or a NaN makes the sum a NaN.
    step = _mm256_or_si256(step, _mm256_cmpgt_epi32(power, most));
    __m256i first = _mm256_cvtps_epi32(_mm256_mul_ps((__m256)v[0], factor)),
            second = _mm256_cvtps_epi32(_mm256_mul_ps((__m256)v[1], factor));
    __m256i packed =
        _mm256_packs_epi32(_mm256_permute2x128_si256(first, second, 0x20), _mm256_permute2x128_si256(first, second, 0x31));
    _mm256_storeu_si256((__m256i *)(words + k), _mm256_shuffle_epi8(packed, order));
    steps[k / WORD_GROUP] = _mm256_cvtss_f32((__m256)step);
  }
}

/// 16 columns of 8 features for `rows` rows. `acc[2r]` has features 0 0 1 1 4 4 5 5, `acc[2r + 1]` 2 2 3 3 6 6 7 7.
INLINE void add_words(const int rows, word_codebook table, const uint8_t *codes, const int16_t *words, const float *steps,
                      size_t stride, const bool prefetches, __m256 *acc) {
  const __m256i mask = _mm256_set1_epi8(15);
  __m256i sums[2 * FEW_ROWS];
  UNROLL for (int g = 0; g < 2; g++) {
    if (prefetches) __builtin_prefetch(codes + 64 * g + PREFETCH_AHEAD);
    __m256i packed = _mm256_loadu_si256((const __m256i *)(codes + 64 * g));
    __m256i nibbles[2] = {_mm256_and_si256(_mm256_srli_epi16(packed, 4), mask), _mm256_and_si256(packed, mask)};
    UNROLL for (int parity = 0; parity < 2; parity++) {
      __m256i a = _mm256_shuffle_epi8(table.lower, nibbles[parity]), b = _mm256_shuffle_epi8(table.upper, nibbles[parity]);
      __m256i w[2] = {_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)};
      UNROLL for (int r = 0; r < rows; r++) {
        __m256i x = _mm256_set1_epi64x(*(const int64_t *)(words + (size_t)r * 2 * stride + 8 * g + 4 * parity));
        UNROLL for (int i = 0; i < 2; i++) {
          __m256i product = _mm256_madd_epi16(w[i], x);
          sums[2 * r + i] = g || parity ? _mm256_add_epi32(sums[2 * r + i], product) : product;
        }
      }
    }
  }
  UNROLL for (int r = 0; r < rows; r++) {
    __m256 step = _mm256_broadcast_ss((const float *)((const char *)steps + (size_t)r * 4 * stride));
    UNROLL for (int i = 0; i < 2; i++) acc[2 * r + i] =
        _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[2 * r + i]), step, acc[2 * r + i]);
  }
}

/// Features `8 × half ..< 8 × (half + halves)` of a tile.
INLINE void few_rows_words(const int rows, const int half, const int halves, word_codebook table, const uint8_t *codes,
                           const float *scales, size_t block_size, const int16_t *words, size_t stride, size_t K, float *sums) {
  const float *steps = word_steps(words, stride);
  __m256 totals[2 * 2 * FEW_ROWS] = {};
  for (size_t k = 0; k < K; scales += NIBBLE_TILE) {
    __m256 acc[2 * 2 * FEW_ROWS] = {};
    for (size_t end = k + block_size; k < end; k += WORD_GROUP)
      UNROLL for (int h = 0; h < halves; h++) add_words(rows, table, codes + k * 8 + 32 * (half + h), words + k,
                                                        steps + k / WORD_GROUP, stride, half + h == 0, acc + 2 * rows * h);
    if (half == 0) __builtin_prefetch(scales + SCALES_AHEAD);
    UNROLL for (int h = 0; h < halves; h++) {
      __m256 scale = _mm256_loadu_ps(scales + 8 * (half + h));
      __m256 each[2] = {_mm256_permute_ps(scale, 0x50), _mm256_permute_ps(scale, 0xFA)};
      UNROLL for (int i = 2 * rows * h; i < 2 * rows * (h + 1); i++) totals[i] = _mm256_fmadd_ps(acc[i], each[i % 2], totals[i]);
    }
  }
  UNROLL for (int h = 0; h < halves; h++) UNROLL for (int r = 0; r < rows; r++) {
    __m256 *total = totals + 2 * (rows * h + r);
    _mm256_storeu_ps(sums + r * NIBBLE_TILE + 8 * (half + h), _mm256_hadd_ps(total[0], total[1]) * table.unit);
  }
}
