// 4-bit weights times activations quantized to int8 in runs of `input_block` columns, for layers that allow it. The codebook
// is rounded to int8 as well; a run's exact integer sum is scaled once. Where 64 bytes hold 8 columns of 16 features, a 32-bit
// lane's high nibbles are its feature's columns 0 2 4 6, the low ones columns 1 3 5 7.

#if VNNI
/// Codes are unsigned but on NEON, CODE_OFFSET for zero; sums begin at −CODE_OFFSET × Σx.
INLINE ivec dot_nibbles(ivec sum, ivec w, ivec x) { return DOT_BYTES(sum, w, x); }
#else
/// |w| × (x with w's sign): no sum of two products exceeds 16 bits.
INLINE ivec dot_nibbles(ivec sum, ivec w, ivec x) {
  __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)w), _mm256_sign_epi8((__m256i)x, (__m256i)w));
  return sum + (ivec)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#endif

/// Steps of the codes between 0 and 1: of those that fit eight bits, the ones that leave the smallest errors.
INLINE int steps_of(nibble_codebook codebook) { return codebook == NIBBLE_NF4 ? 112 : 120; }

INLINE ivec load_int8_codebook(nibble_codebook codebook) {
  const float *values = nibble_codebook_values(codebook);
  uint8_t bytes[4 * LANES];
  for (int i = 0; i < 16; i++) {
    float scaled = values[i] * (float)steps_of(codebook);
    bytes[i] = (uint8_t)((int)(scaled < 0 ? scaled - 0.5f : scaled + 0.5f) + CODE_OFFSET);
  }
  for (int i = 16; i < 4 * LANES; i += 16) memcpy(bytes + i, bytes, 16);
  return load_integers(bytes);
}

/// sums[r] += scale × absmax × integer sums
INLINE void add_run(const int rows, const ivec *acc, const float *scales, float factor, const float *absmax, float *sums) {
  UNROLL for (int v = 0; v < VECTORS; v++) {
    vec scale = load(scales + v * LANES) * factor;
    UNROLL for (int r = 0; r < rows; r++) {
      float *sum = sums + r * NIBBLE_TILE + v * LANES;
      store(sum, fma_(__builtin_convertvector(acc[r * VECTORS + v], vec), scale * absmax[r], load(sum)));
    }
  }
}

/// One run of columns of a tile for `rows` rows: sums[r] += scale × absmax × Σ codes × x.
INLINE void multiply_run(const int rows, ivec table, const uint8_t *codes, size_t length, const char *x, size_t step,
                         const float *scales, float factor, const float *absmax, const int32_t *offsets, float *sums) {
  const ivec mask = splat_integer(0x0F0F0F0F);
  // vpdpbusd adds several cycles later, and its vectors are few: the odd columns of one or two rows have sums of their own.
  const bool splits = VNNI && LANES > 4 && rows <= 2;
  ivec acc[FEW_ROWS * VECTORS], other[FEW_ROWS * VECTORS] = {};
  UNROLL for (int i = 0; i < rows * VECTORS; i++) acc[i] = splat_integer(offsets[i / VECTORS]);
  for (size_t k = 0; k < length; k += GROUP, codes += 64, x += 2 * step) {
    __builtin_prefetch(codes + PREFETCH_AHEAD);
    UNROLL for (int v = 0; v < VECTORS; v++) {
      ivec packed = load_integers(codes + v * LANES * 4);
      ivec even = LOOK_UP_BYTES(table, (packed >> 4) & mask), odd = LOOK_UP_BYTES(table, packed & mask);
      UNROLL for (int r = 0; r < rows; r++) {
        int32_t pair[2];
        memcpy(&pair[0], x + 4 * r, 4);
        memcpy(&pair[1], x + step + 4 * (size_t)r, 4);
        ivec *sum = &acc[r * VECTORS + v], *odd_sum = splits ? &other[r * VECTORS + v] : sum;
        *sum = dot_nibbles(*sum, even, splat_integer(pair[0]));
        *odd_sum = dot_nibbles(*odd_sum, odd, splat_integer(pair[1]));
      }
    }
  }
  UNROLL for (int i = 0; i < rows * VECTORS; i++) acc[i] += other[i];
  add_run(rows, acc, scales, factor, absmax, sums);
}

INLINE void few_rows_int8(const int rows, const nibble_linear_call *call, const nibble_linear_layer *layer, const float *scales,
                          size_t tile, float *sums) {
  size_t K = call->K, length = call->input_block, runs = K / length, per_block = layer->block_size / length;
  const uint8_t *codes = (const uint8_t *)layer->values + tile * NIBBLE_TILE * K / 2;
  float factor = 1 / (float)steps_of(layer->codebook);
  ivec table = load_int8_codebook(layer->codebook);
  for (size_t run = 0; run < runs; run++) {
    size_t index = run_index(call, 0, run);
    multiply_run(rows, table, codes + run * length * 8, length, (const char *)run_place(call, 0, run * length), (size_t)rows * 4,
                 scales + run / per_block * NIBBLE_TILE, factor, call->work.row_absmax + index, call->work.row_sums + index,
                 sums);
  }
}

static void four_bit_int8_few_rows(const nibble_linear_call *call, const nibble_linear_layer *layer, linear_scales scales,
                                   size_t tile, linear_scratch *scratch) {
  const float *tile_scales = scales.scales + tile * (call->K / layer->block_size) * NIBBLE_TILE - scales.first;
  memset(scratch->sums, 0, call->T * NIBBLE_TILE * sizeof(float));
#define FEW_ROWS_INT8(n) few_rows_int8(n, call, layer, tile_scales, tile, scratch->sums)
  switch (call->T) {
    case 1:
      FEW_ROWS_INT8(1);
      break;
    case 2:
      FEW_ROWS_INT8(2);
      break;
    case 3:
      FEW_ROWS_INT8(3);
      break;
    default:
      FEW_ROWS_INT8(4);
      break;
  }
  linear_finish(call, layer, tile, 0, call->T, scratch->sums);
}
