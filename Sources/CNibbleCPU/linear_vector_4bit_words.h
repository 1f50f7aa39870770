// 4-bit weights times few rows in float16 or bfloat16 (or float32 of a model whose weights were float16), with 16-bit
// integers, whose products vpmaddwd adds in pairs. Unlike activations of 8 bits this is no further rounding to speak of:
//
// - The codebook becomes integers. FP4's are exact; NF4's are within 2⁻¹²·⁷ of their values, where float16 rounds by 2⁻¹¹.
// - A group of 16 columns of x becomes integers of 15 bits and a sign, times a power of two: x is exact unless it is less than
//   1 / 16 (float16; bfloat16: 1 / 128) of the group's largest, and rounded at 2⁻¹⁵ of that otherwise.
//
// A group's integer sum is exact; sums of groups are float32.

/// Columns that share a power of two; a divisor of every block size.
enum { WORD_GROUP = 16 };

/// The look-up table of a codebook: lower and upper bytes of integers, and what 1 stands for.
typedef struct {
  ivec lower, upper;
  float unit;
} word_codebook;

static word_codebook load_words(nibble_codebook codebook) {
  // FP4 is k / 192; NF4's divisor gives the smallest relative error of those that keep eight products within 31 bits.
  float divisor = codebook == NIBBLE_FP4 ? 42 * 192 : 7854;
  const float *values = nibble_codebook_values(codebook);
  uint8_t bytes[2][4 * LANES];
  for (int i = 0; i < 4 * LANES; i++) {
    int word = (int)nearbyintf(values[i % 16] * divisor);
    bytes[0][i] = (uint8_t)word;
    bytes[1][i] = (uint8_t)(word >> 8);
  }
  return (word_codebook){load_integers(bytes[0]), load_integers(bytes[1]), 1 / divisor};
}

/// Where row t's words lie, K in groups of 8: columns 0 2 4 6 1 3 5 7. After them, what a group's 1 stands for.
INLINE int16_t *words_of(const nibble_linear_call *call, size_t t) {
  return (int16_t *)((float *)call->work.packed + t * linear_packed_stride(call));
}
INLINE const float *word_steps(const int16_t *words, size_t stride) { return (const float *)(words + stride); }

#if LANES == 4
#include "linear_neon_4bit_words.h"
#else

static void pack_row(const nibble_linear_call *call, size_t t) {
  const float *x = call->x + t * call->K;
  int16_t *words = words_of(call, t);
  float *steps = (float *)word_steps(words, linear_packed_stride(call));
  const __m256i exponent = _mm256_set1_epi32(0x7F800000), least = _mm256_set1_epi32(32 << 23), most = _mm256_set1_epi32(254 << 23);
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
    __m256i first = _mm256_cvtps_epi32(_mm256_mul_ps((__m256)v[0], factor)), second = _mm256_cvtps_epi32(_mm256_mul_ps((__m256)v[1], factor));
    __m256i packed = _mm256_packs_epi32(_mm256_permute2x128_si256(first, second, 0x20), _mm256_permute2x128_si256(first, second, 0x31));
    _mm256_storeu_si256((__m256i *)(words + k), _mm256_shuffle_epi8(packed, order));
    steps[k / WORD_GROUP] = _mm256_cvtss_f32((__m256)step);
  }
}

/// 16 columns of 8 features for `rows` rows. `acc[2r]` has features 0 0 1 1 4 4 5 5, `acc[2r + 1]` 2 2 3 3 6 6 7 7.
INLINE void add_words(const int rows, word_codebook table, const uint8_t *codes, const int16_t *words, const float *steps,
                           size_t stride, __m256 *acc) {
  const __m256i mask = _mm256_set1_epi8(15);
  __m256i sums[2 * FEW_ROWS];
  UNROLL for (int g = 0; g < 2; g++) {
    __builtin_prefetch(codes + 64 * g + PREFETCH_AHEAD);
    __m256i packed = _mm256_loadu_si256((const __m256i *)(codes + 64 * g));
    __m256i nibbles[2] = {_mm256_and_si256(_mm256_srli_epi16(packed, 4), mask), _mm256_and_si256(packed, mask)};
    UNROLL for (int parity = 0; parity < 2; parity++) {
      __m256i a = _mm256_shuffle_epi8((__m256i)table.lower, nibbles[parity]), b = _mm256_shuffle_epi8((__m256i)table.upper, nibbles[parity]);
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
    UNROLL for (int i = 0; i < 2; i++) acc[2 * r + i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[2 * r + i]), step, acc[2 * r + i]);
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
      UNROLL for (int h = 0; h < halves; h++)
        add_words(rows, table, codes + k * 8 + 32 * (half + h), words + k, steps + k / WORD_GROUP, stride, acc + 2 * rows * h);
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

static void four_bit_words(const nibble_linear_call *call, const nibble_linear_layer *layer, const uint8_t *codes,
                           const float *scales, float *sums) {
  word_codebook table = load_words(layer->codebook);
  const int16_t *x = words_of(call, 0);
  size_t stride = linear_packed_stride(call);
#define WORDS(rows, half, halves) few_rows_words(rows, half, halves, table, codes, scales, layer->block_size, x, stride, call->K, sums)
  switch (call->T) {
    case 1: WORDS(1, 0, 2); break;
    case 2: WORDS(2, 0, 2); break;
    // More sums than registers: features 0 ..< 8, then the rest.
    case 3: WORDS(3, 0, 1); WORDS(3, 1, 1); break;
    default: WORDS(4, 0, 1); WORDS(4, 1, 1); break;
  }
#undef WORDS
}

#endif
