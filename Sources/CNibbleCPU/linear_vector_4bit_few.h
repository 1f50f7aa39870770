// 4-bit weights in tiles times few rows: weights are multiplied as they are read.
//
// A block's sum is scaled once, in float32: weights are not rounded to the compute type one by one.

#include "linear_vector_4bit_words.h"

static size_t tiled_layers(const nibble_linear_call *call) {
  size_t count = 0;
  for (size_t i = 0; i < call->layer_count; i++) count += linear_is_tiled(call, &call->layers[i]);
  return count;
}

/// Few rows become words; AVX2 and NEON also want rows of floats shuffled.
static bool wants_shuffled_input(const nibble_linear_call *call) {
  return call->T <= FEW_ROWS && (LANES != 16 || uses_words(call)) && tiled_layers(call) > 0;
}

#if LANES == 16

static void shuffle_row(const nibble_linear_call *call, size_t t) { pack_row(call, t); }

INLINE void few_rows_float(const int rows, const uint8_t *codes, const float *scales, const nibble_linear_layer *layer,
                           const float *x, size_t K, float *sums) {
  codebook_vectors table = load_codebook(nibble_codebook_values(layer->codebook));
  vec totals[FEW_ROWS] = {};
  for (size_t k = 0; k < K; scales += NIBBLE_TILE) {
    // Sums of columns j, j + 4: independent ones, that no addition waits for the one before it.
    vec acc[FEW_ROWS][4] = {};
    for (size_t end = k + layer->block_size; k < end; k += GROUP, codes += 64) {
      __builtin_prefetch(codes + PREFETCH_AHEAD);
      ivec packed = load_integers(codes);
      UNROLL for (int j = 0; j < GROUP; j++) {
        vec w = look_up(table, packed, 4 * (j ^ 1));
        UNROLL for (int r = 0; r < rows; r++) acc[r][j % 4] = fma_(w, splat(x[(size_t)r * K + k + (size_t)j]), acc[r][j % 4]);
      }
    }
    vec scale = load(scales);
    UNROLL for (int r = 0; r < rows; r++) totals[r] = fma_((acc[r][0] + acc[r][1]) + (acc[r][2] + acc[r][3]), scale, totals[r]);
  }
  UNROLL for (int r = 0; r < rows; r++) store(sums + r * NIBBLE_TILE, totals[r]);
}

#define EACH_COUNT(DO) \
  switch (call->T) {   \
    case 1:            \
      DO(1);           \
      break;           \
    case 2:            \
      DO(2);           \
      break;           \
    case 3:            \
      DO(3);           \
      break;           \
    default:           \
      DO(4);           \
      break;           \
  }

#else

enum { ROWS_AT_ONCE = 2 };

/// Rows of floats have the even columns of each group of 8 before the odd ones.
static void shuffle_row(const nibble_linear_call *call, size_t t) {
  if (uses_words(call)) {
    pack_row(call, t);
    return;
  }
  const float *x = call->x + t * call->K;
  float *out = (float *)call->work.packed + t * linear_packed_stride(call);
  for (size_t k = 0; k + GROUP <= call->K; k += GROUP)
    for (size_t j = 0; j < GROUP; j++) out[k + j % 2 * 4 + j / 2] = x[k + j];
}

#if LANES == 4
#include "linear_neon_4bit_few.h"
#else

/// The codebook's bytes, one vector for each byte of a float: four byte look-ups and three interleavings make 32 floats.
typedef struct {
  __m256i bytes[4];
} byte_planes;

static byte_planes load_planes(const float *table) {
  byte_planes planes;
  for (int p = 0; p < 4; p++) {
    uint8_t bytes[32];
    for (int i = 0; i < 32; i++) bytes[i] = (uint8_t)(bits_of(table[i % 16]) >> (8 * p));
    planes.bytes[p] = _mm256_loadu_si256((const __m256i *)bytes);
  }
  return planes;
}

/// out[i]: four columns of feature i in the low half, of feature i + 4 in the high half.
INLINE void look_up_bytes(const byte_planes *planes, __m256i codes, __m256 *out) {
  __m256i a = _mm256_shuffle_epi8(planes->bytes[0], codes), b = _mm256_shuffle_epi8(planes->bytes[1], codes);
  __m256i c = _mm256_shuffle_epi8(planes->bytes[2], codes), d = _mm256_shuffle_epi8(planes->bytes[3], codes);
  __m256i ab0 = _mm256_unpacklo_epi8(a, b), ab1 = _mm256_unpackhi_epi8(a, b);
  __m256i cd0 = _mm256_unpacklo_epi8(c, d), cd1 = _mm256_unpackhi_epi8(c, d);
  out[0] = (__m256)_mm256_unpacklo_epi16(ab0, cd0);
  out[1] = (__m256)_mm256_unpackhi_epi16(ab0, cd0);
  out[2] = (__m256)_mm256_unpacklo_epi16(ab1, cd1);
  out[3] = (__m256)_mm256_unpackhi_epi16(ab1, cd1);
}

INLINE void few_rows_half(const int rows, const byte_planes *planes, const uint8_t *codes, const float *x, size_t stride,
                          size_t depth, __m256 *acc) {
  const __m256i mask = _mm256_set1_epi8(15);
  for (size_t k = 0; k < depth; k += GROUP, codes += 64) {
    __m256i packed = _mm256_loadu_si256((const __m256i *)codes);
    __m256i nibbles[2] = {_mm256_and_si256(_mm256_srli_epi16(packed, 4), mask), _mm256_and_si256(packed, mask)};
    UNROLL for (int parity = 0; parity < 2; parity++) {
      __m256 w[4];
      look_up_bytes(planes, nibbles[parity], w);
      UNROLL for (int r = 0; r < rows; r++) {
        __m256 xs = _mm256_broadcast_ps((const __m128 *)(x + (size_t)r * stride + k + (size_t)parity * 4));
        UNROLL for (int i = 0; i < 4; i++) acc[4 * r + i] = _mm256_fmadd_ps(w[i], xs, acc[4 * r + i]);
      }
    }
  }
}

/// totals[i] += sums[i] × scale, for sums whose halves belong to features i and i + 4.
INLINE void add_scaled(const __m256 *sums, __m256 scale, __m256 *totals) {
  totals[0] = _mm256_fmadd_ps(sums[0], _mm256_permute_ps(scale, 0x00), totals[0]);
  totals[1] = _mm256_fmadd_ps(sums[1], _mm256_permute_ps(scale, 0x55), totals[1]);
  totals[2] = _mm256_fmadd_ps(sums[2], _mm256_permute_ps(scale, 0xAA), totals[2]);
  totals[3] = _mm256_fmadd_ps(sums[3], _mm256_permute_ps(scale, 0xFF), totals[3]);
}

INLINE void few_rows_float(const int rows, const uint8_t *codes, const float *scales, const nibble_linear_layer *layer,
                           const float *x, size_t stride, size_t K, float *sums) {
  byte_planes planes = load_planes(nibble_codebook_values(layer->codebook));
  __m256 totals[2][4 * ROWS_AT_ONCE] = {};
  for (size_t k = 0; k < K; k += layer->block_size, scales += NIBBLE_TILE) {
    UNROLL for (int half = 0; half < 2; half++) {
      __m256 acc[4 * ROWS_AT_ONCE] = {};
      few_rows_half(rows, &planes, codes + k * 8 + 32 * half, x + k, stride, layer->block_size, acc);
      __m256 scale = _mm256_loadu_ps(scales + 8 * half);
      UNROLL for (int r = 0; r < rows; r++) add_scaled(acc + 4 * r, scale, totals[half] + 4 * r);
    }
  }
  UNROLL for (int r = 0; r < rows; r++) UNROLL for (int half = 0; half < 2; half++) {
    __m256 *t = totals[half] + 4 * r;
    __m256 sum = _mm256_hadd_ps(_mm256_hadd_ps(t[0], t[1]), _mm256_hadd_ps(t[2], t[3]));
    _mm256_storeu_ps(sums + r * NIBBLE_TILE + half * 8, sum);
  }
}

#endif

static void four_bit_floats(const nibble_linear_call *call, const nibble_linear_layer *layer, const uint8_t *codes,
                            const float *scales, float *sums) {
  size_t stride = linear_packed_stride(call), t = 0;
  const float *x = call->work.packed;
  for (; t + 2 <= call->T; t += 2)
    few_rows_float(2, codes, scales, layer, x + t * stride, stride, call->K, sums + t * NIBBLE_TILE);
  if (t < call->T) few_rows_float(1, codes, scales, layer, x + t * stride, stride, call->K, sums + t * NIBBLE_TILE);
}

#endif

static void four_bit_few_rows(const nibble_linear_call *call, const nibble_linear_layer *layer, linear_scales scales, size_t tile,
                              linear_scratch *scratch) {
  size_t K = call->K;
  const uint8_t *codes = (const uint8_t *)layer->values + tile * NIBBLE_TILE * K / 2;
  const float *tile_scales = scales.scales + tile * (K / layer->block_size) * NIBBLE_TILE - scales.first;
  if (uses_words(call)) {
    four_bit_words(call, layer, codes, tile_scales, scratch->sums);
  } else {
#if LANES == 16
#define FLOAT_COUNT(n) few_rows_float(n, codes, tile_scales, layer, call->x, K, scratch->sums)
    EACH_COUNT(FLOAT_COUNT)
#else
    four_bit_floats(call, layer, codes, tile_scales, scratch->sums);
#endif
  }
  linear_finish(call, layer, tile, 0, call->T, scratch->sums);
}
