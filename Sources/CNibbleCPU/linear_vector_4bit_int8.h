// 4-bit weights times activations quantized to int8 in runs of `input_block` columns, for layers that allow it. The codebook
// is rounded to int8 as well; a run's exact integer sum is scaled once. Where 64 bytes hold 8 columns of 16 features, a 32-bit
// lane's high nibbles are its feature's columns 0 2 4 6, the low ones columns 1 3 5 7.

#if VNNI
/// Codes of the codebook plus 128, to be multiplied as unsigned; sums begin at −128 × Σx.
enum { CODE_OFFSET = 128 };
INLINE ivec dot_nibbles(ivec sum, ivec w, int32_t x) { return DOT_BYTES(sum, w, splat_integer(x)); }
#else
enum { CODE_OFFSET = 0 };
/// |w| × (x with w's sign): no sum of two products exceeds 16 bits.
INLINE ivec dot_nibbles(ivec sum, ivec w, int32_t x) {
  __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)w), _mm256_sign_epi8(_mm256_set1_epi32(x), (__m256i)w));
  return sum + (ivec)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#endif

INLINE ivec load_int8_codebook(nibble_codebook codebook) {
  const float *values = nibble_codebook_values(codebook);
  uint8_t bytes[4 * LANES];
  for (int i = 0; i < 4 * LANES; i++) {
    float scaled = values[i % 16] * 127;
    bytes[i] = (uint8_t)((int)(scaled < 0 ? scaled - 0.5f : scaled + 0.5f) + CODE_OFFSET);
  }
  return load_integers(bytes);
}

/// Where codes k ..< k + 8 of row t go: [K / 4, rows, 4] in its block of rows.
INLINE int8_t *run_place(const nibble_linear_call *call, size_t t, size_t k, size_t *step) {
  size_t first, rows = block_rows(call, t, INT8_ROWS, &first);
  *step = rows * 4;
  return (int8_t *)call->work.packed + first * linear_packed_stride(call) + (k / 4 * rows + (t - first)) * 4;
}

static void quantize_runs(const nibble_linear_call *call, size_t t) {
  size_t K = call->K, length = call->input_block, runs = K / length;
  for (size_t run = 0; run < runs; run++) {
    const float *x = call->x + t * K + run * length;
    float absmax = 0;
    for (size_t i = 0; i < length; i++) {
      float magnitude = x[i] < 0 ? -x[i] : x[i];
      absmax = magnitude > absmax ? magnitude : absmax;
    }
    float factor = absmax > 1e-30f ? 127 * (1 / absmax) : 0;
    int32_t sum = 0;
    for (size_t i = 0; i < length; i += GROUP) {
      size_t step;
      int8_t *out = run_place(call, t, run * length + i, &step);
      for (size_t j = 0; j < GROUP; j++) {
        int8_t code = (int8_t)bits_of(x[i + j] * factor + 0x1.8p23f);
        out[j % 2 * step + j / 2] = code;
        sum += code;
      }
    }
    // Both codebook and input carry a factor of 127.
    call->work.row_absmax[t * runs + run] = absmax * (1.0f / (127 * 127));
    call->work.row_sums[t * runs + run] = -CODE_OFFSET * sum;
  }
}

/// One run of columns of a tile for `rows` rows: sums[r] += scale × absmax × Σ codes × x.
INLINE void multiply_run(const int rows, ivec table, const uint8_t *codes, size_t length, const char *x, size_t step,
                         const float *scales, const float *absmax, const int32_t *offsets, size_t runs, float *sums) {
  const ivec mask = splat_integer(0x0F0F0F0F);
  ivec acc[INT8_ROWS * VECTORS];
  UNROLL for (int i = 0; i < rows * VECTORS; i++) acc[i] = splat_integer(offsets[(size_t)(i / VECTORS) * runs]);
  for (size_t k = 0; k < length; k += GROUP, codes += 64, x += 2 * step) {
    UNROLL for (int v = 0; v < VECTORS; v++) {
      ivec packed = load_integers(codes + v * LANES * 4);
      ivec even = LOOK_UP_BYTES(table, (packed >> 4) & mask), odd = LOOK_UP_BYTES(table, packed & mask);
      UNROLL for (int r = 0; r < rows; r++) {
        int32_t pair[2];
        memcpy(&pair[0], x + 4 * r, 4);
        memcpy(&pair[1], x + step + 4 * (size_t)r, 4);
        acc[r * VECTORS + v] = dot_nibbles(dot_nibbles(acc[r * VECTORS + v], even, pair[0]), odd, pair[1]);
      }
    }
  }
  UNROLL for (int i = 0; i < rows * VECTORS; i++) {
    vec scale = load(scales + i % VECTORS * LANES) * absmax[(size_t)(i / VECTORS) * runs];
    store(sums + i * LANES, fma_(__builtin_convertvector(acc[i], vec), scale, load(sums + i * LANES)));
  }
}

/// All runs of a tile for up to INT8_ROWS rows that were arranged together.
INLINE void multiply_runs(const int rows, const nibble_linear_call *call, const nibble_linear_layer *layer, const float *scales,
                          size_t tile, size_t t, size_t arranged, const char *x, float *sums) {
  size_t K = call->K, length = call->input_block, runs = K / length, per_block = layer->block_size / length;
  const uint8_t *codes = (const uint8_t *)layer->values + tile * NIBBLE_TILE * K / 2;
  const float *absmax = call->work.row_absmax + t * runs;
  const int32_t *offsets = call->work.row_sums + t * runs;
  ivec table = load_int8_codebook(layer->codebook);
  for (size_t run = 0; run < runs; run++)
    multiply_run(rows, table, codes + run * length * 8, length, x + run * length * arranged, arranged * 4,
                 scales + run / per_block * NIBBLE_TILE, absmax + run, offsets + run, runs, sums);
}

static void four_bit_int8_tile(const nibble_linear_call *call, const nibble_linear_layer *layer, linear_scales scales, size_t tile,
                               linear_scratch *scratch) {
  const float *tile_scales = scales.scales + tile * (call->K / layer->block_size) * NIBBLE_TILE - scales.first;
  for (size_t t = 0; t < call->T; t += ROW_BLOCK) {
    size_t rows = linear_smaller(ROW_BLOCK, call->T - t);
    memset(scratch->sums, 0, rows * NIBBLE_TILE * sizeof(float));
    for (size_t first = 0; first < rows; first += INT8_ROWS) {
      size_t height = linear_smaller(INT8_ROWS, rows - first), r = 0;
      const char *x = (const char *)call->work.packed + (t + first) * linear_packed_stride(call);
#define RUNS(n)                                                                                                    \
  for (; r + n <= height; r += n)                                                                                  \
    multiply_runs(n, call, layer, tile_scales, tile, t + first + r, height, x + 4 * r, scratch->sums + (first + r) * NIBBLE_TILE)
      RUNS(INT8_ROWS);
      RUNS(4);
      RUNS(2);
      RUNS(1);
    }
    linear_finish(call, layer, tile, t, rows, scratch->sums);
  }
}
