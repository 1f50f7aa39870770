// Many rows whose runs of columns were quantized to int8, times 4-bit weights.

/// Columns of a chunk.
enum { RUNS_DEPTH = 4 * PANEL_DEPTH };

/// `depth` columns of a tile as bytes: [depth / 8, even and odd columns, 16 features, 4 bytes].
static void runs_panel(ivec table, const uint8_t *codes, size_t depth, uint8_t *panel) {
  const ivec mask = splat_integer(0x0F0F0F0F);
  for (size_t k = 0; k < depth; k += GROUP, codes += 64, panel += 128) UNROLL for (int v = 0; v < VECTORS; v++) {
      ivec packed = load_integers(codes + v * LANES * 4);
      store_integers(panel + v * LANES * 4, LOOK_UP_BYTES(table, (packed >> 4) & mask));
      store_integers(panel + 64 + v * LANES * 4, LOOK_UP_BYTES(table, packed & mask));
    }
}

/// A vector of weights as it is multiplied. Without vpdpbusd: |w| × (x, its bits turned where w is negative) is w × x − |w|
/// there, which sums of rows begin with; turning bits is cheaper than changing signs, and serves all rows alike.
typedef struct {
  ivec bytes, sign;
} run_weights;

#if VNNI
INLINE run_weights load_run_weights(const int32_t *w) { return (run_weights){load_integers(w), {}}; }
INLINE ivec dot_run(ivec sum, run_weights w, ivec x) { return dot_nibbles(sum, w.bytes, x); }
#else
INLINE run_weights load_run_weights(const int32_t *w) {
  __m256i bytes = (__m256i)load_integers(w);
  return (run_weights){(ivec)_mm256_abs_epi8(bytes), (ivec)_mm256_cmpgt_epi8(_mm256_setzero_si256(), bytes)};
}
INLINE ivec dot_run(ivec sum, run_weights w, ivec x) {
  __m256i pairs = _mm256_maddubs_epi16((__m256i)w.bytes, (__m256i)(x ^ w.sign));
  return sum + (ivec)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#endif

/// What each run's sums begin with, beside −CODE_OFFSET × Σx: [runs, 16].
static void run_beginnings(const int32_t *w, size_t depth, size_t run, int32_t *beginnings) {
  for (size_t k = 0; k < depth; k += run, beginnings += NIBBLE_TILE) {
    ivec sums[VECTORS] = {};
    for (size_t i = 0; i < run / 4; i++, w += NIBBLE_TILE)
      UNROLL for (int v = 0; v < VECTORS; v++) sums[v] = dot_run(sums[v], load_run_weights(w + v * LANES), (ivec){});
    UNROLL for (int v = 0; v < VECTORS; v++) store_integers(beginnings + v * LANES, -sums[v]);
  }
}

/// The part of a tile that a chunk of columns covers.
typedef struct {
  const uint8_t *panel;
  const int32_t *beginnings;
  /// of the tile's blocks, and what they are multiplied by
  const float *scales;
  float factor;
  /// columns
  size_t start, depth, run, block_size;
} runs_chunk;

/// Rows t ..< t + rows, the first at x.
INLINE void multiply_runs(const int rows, const nibble_linear_call *call, const runs_chunk *chunk, size_t t, const int32_t *x,
                          size_t step, float *sums) {
  const int32_t *w = (const int32_t *)chunk->panel;
  for (size_t k = 0; k < chunk->depth; k += chunk->run) {
    size_t index = run_index(call, t, (chunk->start + k) / chunk->run);
    ivec acc[RUNS_ROWS * VECTORS];
    const int32_t *beginnings = chunk->beginnings + k / chunk->run * NIBBLE_TILE;
    UNROLL for (int i = 0; i < rows * VECTORS; i++) acc[i] =
        VNNI ? splat_integer(call->work.row_sums[index + (size_t)(i / VECTORS)])
             : load_integers(beginnings + i % VECTORS * LANES);
    size_t i = 0;
#ifdef MULTIPLY_SQUARES
    i = add_squares(rows, x, step, w, chunk->run / 4, acc);
    w += i * NIBBLE_TILE, x += i * step;
#endif
    for (; i < chunk->run / 4; i++, w += NIBBLE_TILE, x += step) {
      run_weights weights[VECTORS];
      UNROLL for (int v = 0; v < VECTORS; v++) weights[v] = load_run_weights(w + v * LANES);
      UNROLL for (int r = 0; r < rows; r++) {
        ivec xr = splat_integer(x[r]);
        UNROLL for (int v = 0; v < VECTORS; v++) acc[r * VECTORS + v] = dot_run(acc[r * VECTORS + v], weights[v], xr);
      }
    }
    const float *scales = chunk->scales + (chunk->start + k) / chunk->block_size * NIBBLE_TILE;
    add_run(rows, acc, scales, chunk->factor, call->work.row_absmax + index, sums);
  }
}

static void multiply_runs_chunk(const nibble_linear_call *call, const runs_chunk *chunk, size_t t, size_t rows, float *sums) {
  const int32_t *x = (const int32_t *)call->work.packed + chunk->start / 4 * call->T + t * chunk->depth / 4;
  for (size_t first = 0; first < rows; first += RUNS_ROWS) {
    size_t height = linear_smaller(RUNS_ROWS, rows - first), r = 0;
    const int32_t *block = x + first * chunk->depth / 4;
#define RUNS(n)                   \
  for (; r + n <= height; r += n) \
  multiply_runs(n, call, chunk, t + first + r, block + r, height, sums + (first + r) * NIBBLE_TILE)
    RUNS(RUNS_ROWS);
    RUNS(2);
    RUNS(1);
  }
}

static void runs_many_rows(const nibble_linear_call *call, const nibble_linear_layer *layer, const linear_scales *scales,
                           size_t tile, size_t count, linear_scratch *scratch) {
  size_t step = rows_at_a_time(call), K = call->K, blocks = K / layer->block_size;
  ivec table = load_int8_codebook(layer->codebook);
  for (size_t t = 0; t < call->T; t += step) {
    size_t rows = linear_smaller(step, call->T - t);
    for (size_t i = 0; i < count; i++) memset(scratch->group_sums[i], 0, rows * NIBBLE_TILE * sizeof(float));
    for (size_t start = 0; start < K; start += RUNS_DEPTH) {
      size_t depth = linear_smaller(RUNS_DEPTH, K - start);
      for (size_t i = 0; i < count; i++) {
        const float *tile_scales = scales[i].scales + (tile + i) * blocks * NIBBLE_TILE - scales[i].first;
        runs_panel(table, (const uint8_t *)layer->values + ((tile + i) * K + start) * NIBBLE_TILE / 2, depth,
                   (uint8_t *)scratch->words[0]);
        int32_t *beginnings = (int32_t *)scratch->words[1];
        if (!VNNI) run_beginnings((const int32_t *)scratch->words[0], depth, call->input_block, beginnings);
        runs_chunk chunk = {(const uint8_t *)scratch->words[0],
                            beginnings,
                            tile_scales,
                            1 / (float)steps_of(layer->codebook),
                            start,
                            depth,
                            call->input_block,
                            layer->block_size};
        multiply_runs_chunk(call, &chunk, t, rows, scratch->group_sums[i]);
      }
    }
    for (size_t i = 0; i < count; i++) linear_finish(call, layer, tile + i, t, rows, scratch->group_sums[i]);
  }
}
