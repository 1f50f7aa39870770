// 4-bit weights. In the tiled layout 64 bytes hold 8 columns of 16 features: 4 bytes a feature, column 2i in the high and
// column 2i + 1 in the low nibble of byte i. As a 32-bit integer, column j is at bit 4 × (j ^ 1).

enum { GROUP = 8, ROWS_AT_ONCE = LANES == 16 ? 4 : 2 };

// MARK: Panels

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
      ivec packed = load_integers(codes + k * 8 + v * LANES * 4);
      UNROLL for (int j = 0; j < GROUP; j++)
        store(panel + (k + (size_t)j) * NIBBLE_TILE + v * LANES, rounded(look_up(table, packed, 4 * (j ^ 1)) * factor, form));
    }
  }
}

/// Columns `start ..< start + depth` of a tile, rounded to the type that `form` multiplies in.
static void four_bit_panel(nibble_input_form form, const nibble_linear_call *call, const nibble_linear_layer *layer, linear_scales scales, size_t tile,
                           size_t start, size_t depth, linear_scratch *scratch) {
  size_t K = call->K, first = tile * NIBBLE_TILE;
  const uint8_t *codes = layer->values;
  if (layer->kind == NIBBLE_WEIGHT_4BIT_TILED) {
    size_t blocks = K / layer->block_size;
    const float *tile_scales = scales.scales + tile * blocks * NIBBLE_TILE - scales.first;
    codes += (first * K + start * NIBBLE_TILE) / 2;
    if (form == NIBBLE_INPUT_F16) tiled_panel(NIBBLE_INPUT_F16, layer, tile_scales, codes, start, depth, scratch->panel);
    else if (form == NIBBLE_INPUT_BF16) tiled_panel(NIBBLE_INPUT_BF16, layer, tile_scales, codes, start, depth, scratch->panel);
    else tiled_panel(NIBBLE_INPUT_F32, layer, tile_scales, codes, start, depth, scratch->panel);
    return;
  }
  size_t features = linear_smaller(NIBBLE_TILE, layer->N - first);
  for (size_t i = 0; i < features; i++)
    nibble_expand_4bit(codes, scales.scales - scales.first, (first + i) * K + start, depth, layer->block_size, layer->codebook,
                       scratch->rows + i * PANEL_DEPTH);
  panel_float32((const char *)scratch->rows, PANEL_DEPTH * sizeof(float), features, depth, scratch->panel);
  if (form != NIBBLE_INPUT_F32) nibble_round_floats(scratch->panel, depth * NIBBLE_TILE, rounded_dtype(form));
}

// MARK: Few rows
//
// A block's sum is scaled once, in float32: weights are not rounded to the compute type one by one.

#if LANES == 16

/// Rows in bfloat16 for vdpbf16ps: the 16-bit halves of a feature's 4 bytes hold columns 0–3 and 4–7, so at every shift
/// columns j and j + 4 stand side by side.
static bool wants_shuffled_input(const nibble_linear_call *call) { return BF16 && call->form == NIBBLE_INPUT_BF16 && call->T <= FEW_ROWS; }

static void shuffle_row(const nibble_linear_call *call, size_t t) {
  const float *x = call->work.rounded + t * call->K;
  uint16_t *out = (uint16_t *)call->work.packed + t * linear_packed_stride(call);
  for (size_t k = 0; k + GROUP <= call->K; k += GROUP)
    for (size_t j = 0; j < 4; j++) {
      out[k + 2 * (j ^ 1)] = float_to_bfloat(x[k + j]);
      out[k + 2 * (j ^ 1) + 1] = float_to_bfloat(x[k + j + 4]);
    }
}

INLINE void few_rows_float(const int rows, const uint8_t *codes, const float *scales, const nibble_linear_layer *layer,
                           const float *x, size_t K, float *sums) {
  codebook_vectors table = load_codebook(nibble_codebook_values(layer->codebook));
  vec totals[FEW_ROWS] = {};
  for (size_t k = 0; k < K; scales += NIBBLE_TILE) {
    vec acc[FEW_ROWS * 2] = {};
    for (size_t end = k + layer->block_size; k < end; k += GROUP, codes += 64) {
      ivec packed = load_integers(codes);
      UNROLL for (int j = 0; j < GROUP; j++) {
        vec w = look_up(table, packed, 4 * (j ^ 1));
        UNROLL for (int r = 0; r < rows; r++)
          acc[2 * r + j % 2] = fma_(w, splat(x[(size_t)r * K + k + (size_t)j]), acc[2 * r + j % 2]);
      }
    }
    vec scale = load(scales);
    UNROLL for (int r = 0; r < rows; r++) totals[r] = fma_(acc[2 * r] + acc[2 * r + 1], scale, totals[r]);
  }
  UNROLL for (int r = 0; r < rows; r++) store(sums + r * NIBBLE_TILE, totals[r]);
}

#if BF16
INLINE void few_rows_bf16(const int rows, const uint8_t *codes, const float *scales, const nibble_linear_layer *layer,
                          const uint16_t *x, size_t stride, size_t K, float *sums) {
  const float *values = nibble_codebook_values(layer->codebook);
  uint16_t narrow[32];
  for (int i = 0; i < 32; i++) narrow[i] = float_to_bfloat(values[i % 16]);
  __m512i table = _mm512_loadu_si512(narrow);
  vec totals[FEW_ROWS] = {};
  for (size_t k = 0; k < K; scales += NIBBLE_TILE) {
    __m512 acc[FEW_ROWS * 2] = {};
    for (size_t end = k + layer->block_size; k < end; k += GROUP, codes += 64) {
      __m512i packed = _mm512_loadu_si512(codes);
      UNROLL for (int j = 0; j < 4; j++) {
        __m512bh w = (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(packed, (unsigned)(4 * j)), table);
        UNROLL for (int r = 0; r < rows; r++) {
          int32_t pair;
          memcpy(&pair, x + (size_t)r * stride + k + 2 * (size_t)j, sizeof pair);
          acc[2 * r + j % 2] = _mm512_dpbf16_ps(acc[2 * r + j % 2], w, (__m512bh)_mm512_set1_epi32(pair));
        }
      }
    }
    vec scale = load(scales);
    UNROLL for (int r = 0; r < rows; r++) totals[r] = fma_((vec)(acc[2 * r] + acc[2 * r + 1]), scale, totals[r]);
  }
  UNROLL for (int r = 0; r < rows; r++) store(sums + r * NIBBLE_TILE, totals[r]);
}
#endif

#define EACH_COUNT(DO) \
  switch (call->T) {   \
    case 1: DO(1); break; \
    case 2: DO(2); break; \
    case 3: DO(3); break; \
    default: DO(4); break; \
  }

#else

/// Rows with the even columns of each group of 8 before the odd ones; in bfloat16 0 4 2 6 before 1 5 3 7, as they come out
/// of the look-up.
static bool wants_shuffled_input(const nibble_linear_call *call) {
  bool any = false;
  for (size_t i = 0; i < call->layer_count; i++) any |= linear_is_tiled(call, &call->layers[i]);
  return any && call->T <= FEW_ROWS;
}

static void shuffle_row(const nibble_linear_call *call, size_t t) {
  const float *x = (call->form == NIBBLE_INPUT_F32 ? call->x : call->work.rounded) + t * call->K;
  float *out = (float *)call->work.packed + t * linear_packed_stride(call);
  for (size_t k = 0; k + GROUP <= call->K; k += GROUP)
    for (size_t j = 0; j < GROUP; j++) {
      size_t place = j / 2;
      if (call->form == NIBBLE_INPUT_BF16) place = place % 2 * 2 + place / 2;
      out[k + j % 2 * 4 + place] = x[k + j];
    }
}

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

/// As few_rows_half, with a codebook in bfloat16 (the upper bytes of its floats, rounded): half the look-ups. A 32-bit lane
/// holds two columns of a feature; `acc[2r]` has features 0, 1 | 4, 5 and `acc[2r + 1]` features 2, 3 | 6, 7.
INLINE void few_rows_half_bf16(const int rows, __m256i lower, __m256i upper, const uint8_t *codes, const float *x, size_t stride,
                               size_t depth, __m256 *acc) {
  const __m256i mask = _mm256_set1_epi8(15), high = _mm256_set1_epi32((int32_t)0xFFFF0000);
  for (size_t k = 0; k < depth; k += GROUP, codes += 64) {
    __m256i packed = _mm256_loadu_si256((const __m256i *)codes);
    __m256i nibbles[2] = {_mm256_and_si256(_mm256_srli_epi16(packed, 4), mask), _mm256_and_si256(packed, mask)};
    UNROLL for (int parity = 0; parity < 2; parity++) {
      __m256i a = _mm256_shuffle_epi8(lower, nibbles[parity]), b = _mm256_shuffle_epi8(upper, nibbles[parity]);
      __m256i pairs[2] = {_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)};
      UNROLL for (int r = 0; r < rows; r++) {
        const float *at = x + (size_t)r * stride + k + (size_t)parity * 4;
        __m256 first = (__m256)_mm256_broadcast_sd((const double *)at), second = (__m256)_mm256_broadcast_sd((const double *)(at + 2));
        UNROLL for (int i = 0; i < 2; i++) {
          __m256 *sum = acc + 4 * r + 2 * i;
          sum[0] = _mm256_fmadd_ps((__m256)_mm256_slli_epi32(pairs[i], 16), first, sum[0]);
          sum[1] = _mm256_fmadd_ps((__m256)_mm256_and_si256(pairs[i], high), second, sum[1]);
        }
      }
    }
  }
}

INLINE void few_rows_bf16(const int rows, const uint8_t *codes, const float *scales, const nibble_linear_layer *layer,
                          const float *x, size_t stride, size_t K, float *sums) {
  uint8_t bytes[2][32];
  for (int i = 0; i < 32; i++) {
    uint16_t value = float_to_bfloat(nibble_codebook_values(layer->codebook)[i % 16]);
    bytes[0][i] = (uint8_t)value;
    bytes[1][i] = (uint8_t)(value >> 8);
  }
  __m256i lower = _mm256_loadu_si256((const __m256i *)bytes[0]), upper = _mm256_loadu_si256((const __m256i *)bytes[1]);
  __m256 totals[2][2 * ROWS_AT_ONCE] = {};
  for (size_t k = 0; k < K; k += layer->block_size, scales += NIBBLE_TILE) {
    UNROLL for (int half = 0; half < 2; half++) {
      __m256 acc[4 * ROWS_AT_ONCE] = {};
      few_rows_half_bf16(rows, lower, upper, codes + k * 8 + 32 * half, x + k, stride, layer->block_size, acc);
      __m256 scale = _mm256_loadu_ps(scales + 8 * half);
      __m256 low = _mm256_permute_ps(scale, 0x50), high = _mm256_permute_ps(scale, 0xFA);  // features 0 0 1 1, 2 2 3 3
      UNROLL for (int r = 0; r < rows; r++) {
        __m256 *total = totals[half] + 2 * r, *sum = acc + 4 * r;
        total[0] = _mm256_fmadd_ps(_mm256_add_ps(sum[0], sum[1]), low, total[0]);
        total[1] = _mm256_fmadd_ps(_mm256_add_ps(sum[2], sum[3]), high, total[1]);
      }
    }
  }
  UNROLL for (int r = 0; r < rows; r++) UNROLL for (int half = 0; half < 2; half++)
      _mm256_storeu_ps(sums + r * NIBBLE_TILE + half * 8, _mm256_hadd_ps(totals[half][2 * r], totals[half][2 * r + 1]));
}

#endif

static void four_bit_few_rows(const nibble_linear_call *call, const nibble_linear_layer *layer, linear_scales scales, size_t tile,
                              linear_scratch *scratch) {
  size_t K = call->K;
  const uint8_t *codes = (const uint8_t *)layer->values + tile * NIBBLE_TILE * K / 2;
  const float *tile_scales = scales.scales + tile * (K / layer->block_size) * NIBBLE_TILE - scales.first;
#if LANES == 16
#if BF16
  if (call->form == NIBBLE_INPUT_BF16) {
#define BF16_ROWS(n) few_rows_bf16(n, codes, tile_scales, layer, call->work.packed, linear_packed_stride(call), K, scratch->sums)
    EACH_COUNT(BF16_ROWS)
    linear_finish(call, layer, tile, 0, call->T, scratch->sums);
    return;
  }
#endif
  const float *x = call->form == NIBBLE_INPUT_F32 ? call->x : call->work.rounded;
#define FLOAT_COUNT(n) few_rows_float(n, codes, tile_scales, layer, x, K, scratch->sums)
  EACH_COUNT(FLOAT_COUNT)
#else
  const float *x = call->work.packed;
  size_t stride = linear_packed_stride(call);
#define PAIRS(few_rows)                                                                                            \
  {                                                                                                                \
    size_t t = 0;                                                                                                  \
    for (; t + 2 <= call->T; t += 2)                                                                               \
      few_rows(2, codes, tile_scales, layer, x + t * stride, stride, K, scratch->sums + t * NIBBLE_TILE);          \
    if (t < call->T)                                                                                               \
      few_rows(1, codes, tile_scales, layer, x + t * stride, stride, K, scratch->sums + t * NIBBLE_TILE);          \
  }
  if (call->form == NIBBLE_INPUT_BF16) PAIRS(few_rows_bf16) else PAIRS(few_rows_float)
#endif
  linear_finish(call, layer, tile, 0, call->T, scratch->sums);
}
