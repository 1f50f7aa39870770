// Many rows of int8 codes, 4 columns a word (vpdpbusd, NEON) or 2 (vpmaddwd, on 16-bit integers).

/// Columns of a chunk: as many bytes as a chunk of floats.
enum { INT8_DEPTH = PANEL_DEPTH * WORD_COLUMNS };

#if VNNI

/// Four columns of each feature side by side, plus BYTE_OFFSET: [depth / 4, 16, 4 bytes].
static void int8_panel(const int8_t *w, size_t K, size_t features, size_t depth, void *memory) {
  uint8_t *panel = memory;
  size_t whole = depth / 32 * 8;
  panel_float32((const char *)w, K, features, whole, memory);
  for (size_t k = whole; k * 4 < depth; k++)
    for (size_t n = 0; n < NIBBLE_TILE; n++) {
      uint8_t *to = panel + (k * NIBBLE_TILE + n) * 4;
      memset(to, 0, 4);
      memcpy(to, w + linear_smaller(n, features - 1) * K + k * 4, linear_smaller(4, depth - k * 4));
    }
  for (size_t i = 0; i < linear_round_up(depth, 4) * NIBBLE_TILE; i++) panel[i] ^= BYTE_OFFSET;
}
#else

/// Two columns of each feature side by side, in 16 bits: [⌈depth / 2⌉, 16, 2].
static void int8_panel(const int8_t *w, size_t K, size_t features, size_t depth, void *memory) {
  typedef int8_t bytes __attribute__((vector_size(16)));
  typedef int16_t words __attribute__((vector_size(32)));
  int32_t *panel = memory;
  for (size_t half = 0; half < NIBBLE_TILE; half += 8) {
    const int8_t *rows[8];
    for (size_t i = 0; i < 8; i++) rows[i] = w + linear_smaller(half + i, features - 1) * K;
    for (size_t k = 0; k < depth; k += 16) {
      vec8 r[8];
      UNROLL for (int i = 0; i < 8; i++) {
        bytes codes = {};
        if (k + 16 <= depth)
          memcpy(&codes, rows[i] + k, 16);
        else
          memcpy(&codes, rows[i] + k, depth - k);
        r[i] = (vec8) __builtin_convertvector(codes, words);
      }
      transpose8(r);
      for (size_t i = 0; i < 8 && k + 2 * i < depth; i++) memcpy(panel + (k / 2 + i) * NIBBLE_TILE + half, &r[i], sizeof r[i]);
    }
  }
}
#endif

#if !AMX
INLINE ivec dot_words(ivec sum, ivec w, ivec x) {
#if VNNI
  return DOT_BYTES(sum, w, x);
#else
  return sum + MULTIPLY_PAIRS(w, x);
#endif
}

INLINE void multiply_words(const int rows, const int32_t *x, size_t step, const int32_t *panel, size_t count, int32_t *sums) {
  ivec acc[INT8_ROWS * VECTORS];
  UNROLL for (int i = 0; i < rows * VECTORS; i++) acc[i] = load_integers(sums + i * LANES);
  size_t k = 0;
#ifdef MULTIPLY_SQUARES
  k = add_squares(rows, x, step, panel, count, acc);
#endif
  for (; k < count; k++) {
    ivec w[VECTORS];
    UNROLL for (int v = 0; v < VECTORS; v++) w[v] = load_integers(panel + k * NIBBLE_TILE + (size_t)v * LANES);
    UNROLL for (int r = 0; r < rows; r++) {
      ivec xr = splat_integer(x[k * step + (size_t)r]);
      UNROLL for (int v = 0; v < VECTORS; v++) acc[r * VECTORS + v] = dot_words(acc[r * VECTORS + v], w[v], xr);
    }
  }
  UNROLL for (int i = 0; i < rows * VECTORS; i++) store_integers(sums + i * LANES, acc[i]);
}

static void multiply_word_block(size_t rows, const int32_t *x, const int32_t *panel, size_t count, int32_t *sums) {
  if (rows == INT8_ROWS) {
    multiply_words(INT8_ROWS, x, INT8_ROWS, panel, count, sums);
    return;
  }
  size_t r = 0;
  for (; r + 4 <= rows; r += 4) multiply_words(4, x + r, rows, panel, count, sums + r * NIBBLE_TILE);
  for (; r < rows; r++) multiply_words(1, x + r, rows, panel, count, sums + r * NIBBLE_TILE);
}

/// The sums of rows `t ..< t + rows` with columns `start ..< start + depth` of a tile.
static void multiply_int8_chunk(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile, size_t t,
                                size_t rows, size_t start, size_t depth, linear_scratch *scratch, int32_t *sums) {
  size_t first = tile * NIBBLE_TILE, features = linear_smaller(NIBBLE_TILE, layer->N - first);
  int8_panel((const int8_t *)layer->values + first * call->K + start, call->K, features, depth, scratch->words[0]);
  size_t step = linear_smaller(INT8_DEPTH, linear_packed_stride(call) - start) / WORD_COLUMNS;
  const int32_t *x = (const int32_t *)call->work.packed + start / WORD_COLUMNS * call->T + t * step;
  for (size_t r = 0; r < rows; r += INT8_ROWS)
    multiply_word_block(linear_smaller(INT8_ROWS, rows - r), x + r * step, (const int32_t *)scratch->words[0],
                        (depth + WORD_COLUMNS - 1) / WORD_COLUMNS, sums + r * NIBBLE_TILE);
}

static void int8_many_rows(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile, size_t count,
                           linear_scratch *scratch) {
  size_t step = rows_at_a_time(call);
  for (size_t t = 0; t < call->T; t += step) {
    size_t rows = linear_smaller(step, call->T - t);
    for (size_t i = 0; i < count; i++) memset(scratch->group_sums[i], 0, rows * NIBBLE_TILE * sizeof(float));
    for (size_t start = 0; start < call->K; start += INT8_DEPTH) {
      size_t depth = linear_smaller(INT8_DEPTH, call->K - start);
      for (size_t i = 0; i < count; i++)
        multiply_int8_chunk(call, layer, tile + i, t, rows, start, depth, scratch, (int32_t *)scratch->group_sums[i]);
    }
    for (size_t i = 0; i < count; i++) {
      scale_sums(call, layer, tile + i, t, rows, scratch->group_sums[i]);
      linear_finish_int8(call, layer, tile + i, t, rows, scratch->group_sums[i]);
    }
  }
}
#endif
