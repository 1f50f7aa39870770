// 16-bit integers on NEON: four features at a time. Multiplying leaves a feature's columns in four lanes; pairs of them are added
// as integers, eight products in each, the rest in float32.

/// The look-up table of a codebook: lower and upper bytes of integers, and what 1 stands for.
typedef struct {
  ivec lower, upper;
  float unit;
} word_codebook;

static word_codebook load_words(nibble_codebook codebook) {
  const float *values = nibble_codebook_values(codebook);
  uint8_t bytes[2][16];
  for (int i = 0; i < 16; i++) {
    int word = (int)nearbyintf(values[i] * word_divisor(codebook));
    bytes[0][i] = (uint8_t)word;
    bytes[1][i] = (uint8_t)(word >> 8);
  }
  return (word_codebook){load_integers(bytes[0]), load_integers(bytes[1]), 1 / word_divisor(codebook)};
}

/// Words of 8 columns, even ones before odd ones.
INLINE int16x8_t words_from(vec first, vec second, float factor) {
  int32x4_t a = vcvtnq_s32_f32((float32x4_t)(first * factor)), b = vcvtnq_s32_f32((float32x4_t)(second * factor));
  return vcombine_s16(vqmovn_s32(vuzp1q_s32(a, b)), vqmovn_s32(vuzp2q_s32(a, b)));
}

static void pack_row(const nibble_linear_call *call, size_t t) {
  const uint32_t exponent = 255u << 23, least = 32u << 23, most = 254u << 23;
  const float *x = call->x + t * call->K;
  int16_t *words = words_of(call, t);
  float *steps = (float *)word_steps(words, linear_packed_stride(call));
  for (size_t k = 0; k + WORD_GROUP <= call->K; k += WORD_GROUP) {
    vec v[4];
    uint32x4_t size = {};
    UNROLL for (int i = 0; i < 4; i++) {
      v[i] = rounded(load(x + k + 4 * i), call->form);
      size = vmaxq_u32(size, (uint32x4_t)((ivec)v[i] & 0x7FFFFFFF));
    }
    // 2ᵉ ≤ largest < 2ᵉ⁺¹ becomes 2¹⁴ ≤ word < 2¹⁵.
    uint32_t power = vmaxvq_u32(size) & exponent;
    power = power > least ? power : least;
    float factor = float_of(((127u * 2 + 14) << 23) - power);
    vst1q_s16(words + k, words_from(v[0], v[1], factor));
    vst1q_s16(words + k + 8, words_from(v[2], v[3], factor));
    // An infinity or a NaN makes the sum a NaN.
    steps[k / WORD_GROUP] = power > most ? NAN : float_of(power - (14u << 23));
  }
}

/// 16 columns of four features for `rows` rows. `acc[2r]` has features 0 0 1 1, `acc[2r + 1]` 2 2 3 3.
INLINE void add_words(const int rows, word_codebook table, const uint8_t *codes, const int16_t *words, const float *steps,
                      size_t stride, vec *acc) {
  int32x4_t sums[4 * FEW_ROWS] = {};
  UNROLL for (int g = 0; g < 2; g++) {
    uint8x16_t packed = vld1q_u8(codes + 64 * g);
    uint32x4_t even = (uint32x4_t)vshrq_n_u8(packed, 4), odd = (uint32x4_t)vandq_u8(packed, vdupq_n_u8(15));
    // Two features each, even columns before odd ones.
    uint8x16_t codes_of[2] = {(uint8x16_t)vzip1q_u32(even, odd), (uint8x16_t)vzip2q_u32(even, odd)};
    UNROLL for (int half = 0; half < 2; half++) {
      uint8x16_t a = vqtbl1q_u8((uint8x16_t)table.lower, codes_of[half]), b = vqtbl1q_u8((uint8x16_t)table.upper, codes_of[half]);
      int16x8_t w[2] = {(int16x8_t)vzip1q_u8(a, b), (int16x8_t)vzip2q_u8(a, b)};
      UNROLL for (int r = 0; r < rows; r++) {
        int16x8_t x = vld1q_s16(words + (size_t)r * 2 * stride + 8 * g);
        int32x4_t *sum = sums + 4 * r + 2 * half;
        UNROLL for (int i = 0; i < 2; i++) {
          sum[i] = vmlal_s16(sum[i], vget_low_s16(w[i]), vget_low_s16(x));
          sum[i] = vmlal_high_s16(sum[i], w[i], x);
        }
      }
    }
  }
  UNROLL for (int r = 0; r < rows; r++) {
    vec step = splat(steps[(size_t)r * stride]);
    UNROLL for (int i = 0; i < 2; i++) {
      vec sum = (vec)vcvtq_f32_s32(vpaddq_s32(sums[4 * r + 2 * i], sums[4 * r + 2 * i + 1]));
      acc[2 * r + i] = fma_(sum, step, acc[2 * r + i]);
    }
  }
}

INLINE void few_rows_words(const int rows, word_codebook table, const uint8_t *codes, const float *scales, size_t block_size,
                           const int16_t *words, size_t stride, size_t K, float *sums) {
  const float *steps = word_steps(words, stride);
  vec totals[VECTORS][2 * FEW_ROWS] = {};
  for (size_t start = 0; start < K; start += block_size, scales += NIBBLE_TILE)
    for (int v = 0; v < VECTORS; v++) {
      vec acc[2 * FEW_ROWS] = {};
      for (size_t k = start; k < start + block_size; k += WORD_GROUP)
        add_words(rows, table, codes + k * 8 + 16 * v, words + k, steps + k / WORD_GROUP, stride, acc);
      float32x4_t scale = vld1q_f32(scales + 4 * v);
      vec each[2] = {(vec)vzip1q_f32(scale, scale), (vec)vzip2q_f32(scale, scale)};
      UNROLL for (int i = 0; i < 2 * rows; i++) totals[v][i] = fma_(acc[i], each[i % 2], totals[v][i]);
    }
  UNROLL for (int r = 0; r < rows; r++) for (int v = 0; v < VECTORS; v++) {
    float32x4_t sum = vpaddq_f32((float32x4_t)totals[v][2 * r], (float32x4_t)totals[v][2 * r + 1]);
    store(sums + r * NIBBLE_TILE + 4 * v, (vec)sum * table.unit);
  }
}
