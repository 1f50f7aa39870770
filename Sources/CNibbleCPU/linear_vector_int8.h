// LLM.int8(): activations quantized row by row, exact integer products.
//
// With vpdpbusd, which multiplies unsigned by signed bytes, weights become w + 128 and 128 × Σx is taken off at the end.
// Without it, bytes widen to 16 bits in two halves, columns (0, 2) and (1, 3) of every four, for vpmaddwd.

#if VNNI
enum { INT8_ELEMENT = sizeof(int8_t) };
#else
enum { INT8_ELEMENT = sizeof(int16_t) };
#endif

enum { INT8_DEPTH = 4 * PANEL_DEPTH, STEP = 64 };

// MARK: Input

/// Lists row t's outliers and returns the absmax of the rest.
static float find_outliers(const nibble_linear_call *call, const float *x, size_t t) {
  size_t K = call->K;
  float limit = call->threshold > 0 ? call->threshold : INFINITY, absmax = 0;
  int32_t found = 0, count = 0, *outliers = call->work.outliers + t * K;
  for (size_t k = 0; k < K; k++) {
    float magnitude = x[k] < 0 ? -x[k] : x[k];
    bool is_outlier = magnitude >= limit;
    float kept = is_outlier ? 0 : magnitude;
    absmax = kept > absmax ? kept : absmax;
    found += is_outlier;
  }
  bool shares = call->threshold > 0 && call->shares_outlier_columns;
  for (size_t k = 0; (shares || (found && call->threshold > 0)) && k < K; k++)
    if (shares ? call->work.column_flags[k] : fabsf(x[k]) >= limit) outliers[count++] = (int32_t)k;
  call->work.outlier_counts[t] = count;
  return absmax;
}

/// Where codes k ..< k + 4 of row t go: 4 or 8 bytes.
INLINE char *code_place(const nibble_linear_call *call, size_t t, size_t k) {
  size_t stride = linear_packed_stride(call) * INT8_ELEMENT, first, rows;
  char *packed = call->work.packed;
  if (call->T <= FEW_ROWS) return packed + t * stride + k * INT8_ELEMENT;
  rows = block_rows(call, t, INT8_ROWS, &first);
  return packed + first * stride + (k / 4 * rows + (t - first)) * 4 * INT8_ELEMENT;
}

/// Four codes in the order the products want.
INLINE void place_codes(const nibble_linear_call *call, size_t t, size_t k, const int8_t *codes) {
#if VNNI
  memcpy(code_place(call, t, k), codes, 4);
#else
  int16_t wide[4] = {codes[0], codes[1], codes[2], codes[3]};
  if (call->T > FEW_ROWS) wide[1] = codes[2], wide[2] = codes[1];
  memcpy(code_place(call, t, k), wide, sizeof wide);
#endif
}

static void quantize_row(const nibble_linear_call *call, size_t t) {
  size_t K = call->K;
  const float *x = call->x + t * K;
  if (call->rounds_to_half) {
    float *rounded = call->work.rounded + t * K;
    memcpy(rounded, x, K * sizeof(float));
    nibble_round_floats(rounded, K, nibble_float16);
    x = rounded;
  }
  float absmax = find_outliers(call, x, t), factor = absmax > 1e-30f ? 127 * (1 / absmax) : 0;
  int32_t sum = 0, next = 0, count = call->work.outlier_counts[t];
  const int32_t *outliers = call->work.outliers + t * K;
  for (size_t k = 0; k < linear_packed_stride(call); k += STEP) {
    int8_t codes[STEP] = {};
    size_t length = K - k < STEP ? K - k : STEP;
    // Adding 1.5 × 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
    if (length == STEP)
      for (size_t i = 0; i < STEP; i++) codes[i] = (int8_t)bits_of(x[k + i] * factor + 0x1.8p23f);
    else
      for (size_t i = 0; i < length; i++) codes[i] = (int8_t)bits_of(x[k + i] * factor + 0x1.8p23f);
    for (; next < count && (size_t)outliers[next] < k + length; next++) codes[(size_t)outliers[next] - k] = 0;
    for (size_t i = 0; i < STEP; i++) sum += codes[i];
    for (size_t i = 0; i < STEP; i += 4) place_codes(call, t, k + i, codes + i);
  }
  call->work.row_absmax[t] = absmax;
  call->work.row_sums[t] = sum;
}

// MARK: Few rows

#if VNNI
enum { INT8_BYTES = 4 * LANES };
INLINE ivec unsigned_weights(const int8_t *w) { return load_integers(w) ^ splat_integer((int32_t)0x80808080); }
INLINE ivec dot_codes(ivec acc, ivec w, const char *x) { return DOT_BYTES(acc, w, load_integers(x)); }
#define LOAD_WEIGHTS unsigned_weights
#else
enum { INT8_BYTES = 2 * LANES };
INLINE ivec wide_weights(const int8_t *w) {
  int8_t __attribute__((vector_size(INT8_BYTES))) bytes;
  memcpy(&bytes, w, sizeof bytes);
  return (ivec)__builtin_convertvector(bytes, int16_t __attribute__((vector_size(2 * INT8_BYTES))));
}
INLINE ivec dot_codes(ivec acc, ivec w, const char *x) { return acc + MULTIPLY_PAIRS(w, load_integers(x)); }
#define LOAD_WEIGHTS wide_weights
#endif

INLINE void dot_step(const int rows, const int features, const char *x, size_t x_stride, const int8_t *w, size_t stride,
                     ivec *acc) {
  UNROLL for (int f = 0; f < features; f++) {
    ivec v = LOAD_WEIGHTS(w + (size_t)f * stride);
    UNROLL for (int r = 0; r < rows; r++)
      acc[r * features + f] = dot_codes(acc[r * features + f], v, x + (size_t)r * x_stride);
  }
}

INLINE void dot_int8(const int rows, const int features, const char *x, size_t x_stride, const int8_t *w, size_t K,
                     int32_t *sums) {
  ivec acc[8] = {};
  size_t k = 0;
  for (; k + STEP <= K; k += STEP) {
    // The features that come next.
    UNROLL for (int f = 0; f < features; f++) __builtin_prefetch(w + (size_t)(features + f) * K + k);
    UNROLL for (int i = 0; i < STEP; i += INT8_BYTES)
      dot_step(rows, features, x + (k + (size_t)i) * INT8_ELEMENT, x_stride, w + k + i, K, acc);
  }
  for (; k + INT8_BYTES <= K; k += INT8_BYTES) dot_step(rows, features, x + k * INT8_ELEMENT, x_stride, w + k, K, acc);
  if (k < K) {
    int8_t tails[4 * INT8_BYTES] = {};
    UNROLL for (int f = 0; f < features; f++) memcpy(tails + f * INT8_BYTES, w + (size_t)f * K + k, K - k);
    dot_step(rows, features, x + k * INT8_ELEMENT, x_stride, tails, INT8_BYTES, acc);
  }
  UNROLL for (int f = 0; f < features; f++) UNROLL for (int r = 0; r < rows; r++) {
    int32_t lanes[LANES];
    uint32_t sum = 0;
    store_integers(lanes, acc[r * features + f]);
    UNROLL for (int i = 0; i < LANES; i++) sum += (uint32_t)lanes[i];
    sums[r * NIBBLE_TILE + f] = (int32_t)sum;
  }
}

static void int8_few_rows(const nibble_linear_call *call, const int8_t *w, size_t features, int32_t *sums) {
  size_t K = call->K, T = call->T, stride = linear_packed_stride(call) * INT8_ELEMENT, n = 0;
  const char *x = call->work.packed;
  for (; n + 4 <= features && T <= 2; n += 4) {
    if (T == 1) dot_int8(1, 4, x, stride, w + n * K, K, sums + n);
    else dot_int8(2, 4, x, stride, w + n * K, K, sums + n);
  }
  for (; n + 2 <= features && T > 2; n += 2) {
    if (T == 3) dot_int8(3, 2, x, stride, w + n * K, K, sums + n);
    else dot_int8(4, 2, x, stride, w + n * K, K, sums + n);
  }
  for (; n < features; n++)
    for (size_t t = 0; t < T; t++) dot_int8(1, 1, x + t * stride, stride, w + n * K, K, sums + t * NIBBLE_TILE + n);
}

// MARK: Many rows

/// Four columns of each feature side by side: [⌈depth / 4⌉, 16, 4 bytes].
static void int8_panel(const int8_t *w, size_t K, size_t features, size_t depth, int8_t *panel) {
  size_t whole = depth / 32 * 8;
  panel_float32((const char *)w, K, features, whole, (float *)panel);
  for (size_t k = whole; k * 4 < depth; k++)
    for (size_t n = 0; n < NIBBLE_TILE; n++) {
      int8_t *to = panel + (k * NIBBLE_TILE + n) * 4;
      memset(to, 0, 4);
      memcpy(to, w + linear_smaller(n, features - 1) * K + k * 4, linear_smaller(4, depth - k * 4));
    }
}

INLINE void multiply_int8(const int rows, const char *x, size_t step, const int8_t *panel, size_t count, int32_t *sums) {
  ivec acc[INT8_ROWS * VECTORS];
  UNROLL for (int i = 0; i < rows * VECTORS; i++) acc[i] = load_integers(sums + i * LANES);
  for (size_t k = 0; k < count; k++) {
    UNROLL for (int v = 0; v < VECTORS; v++) {
      ivec w = load_integers(panel + (k * NIBBLE_TILE + (size_t)v * LANES) * 4);
#if VNNI
      w ^= splat_integer((int32_t)0x80808080);
#else
      typedef int16_t wide __attribute__((vector_size(4 * LANES)));
      ivec even = (ivec)(((wide)w << 8) >> 8), odd = (ivec)((wide)w >> 8);
#endif
      UNROLL for (int r = 0; r < rows; r++) {
        const char *at = x + (k * step + (size_t)r) * 4 * INT8_ELEMENT;
        int32_t codes[INT8_ELEMENT];
        memcpy(codes, at, sizeof codes);
#if VNNI
        acc[r * VECTORS + v] = DOT_BYTES(acc[r * VECTORS + v], w, splat_integer(codes[0]));
#else
        acc[r * VECTORS + v] += MULTIPLY_PAIRS(even, splat_integer(codes[0])) + MULTIPLY_PAIRS(odd, splat_integer(codes[1]));
#endif
      }
    }
  }
  UNROLL for (int i = 0; i < rows * VECTORS; i++) store_integers(sums + i * LANES, acc[i]);
}

static void multiply_int8_block(size_t rows, const char *x, const int8_t *panel, size_t count, int32_t *sums) {
  if (rows == INT8_ROWS) {
    multiply_int8(INT8_ROWS, x, INT8_ROWS, panel, count, sums);
    return;
  }
  size_t r = 0;
  for (; r + 4 <= rows; r += 4) multiply_int8(4, x + r * 4 * INT8_ELEMENT, rows, panel, count, sums + r * NIBBLE_TILE);
  for (; r < rows; r++) multiply_int8(1, x + r * 4 * INT8_ELEMENT, rows, panel, count, sums + r * NIBBLE_TILE);
}

static void int8_many_rows(const nibble_linear_call *call, const int8_t *w, size_t features, size_t t, size_t rows,
                           linear_scratch *scratch, int32_t *sums) {
  size_t K = call->K, stride = linear_packed_stride(call) * INT8_ELEMENT;
  int8_t *panel = (int8_t *)scratch->panel;
  memset(sums, 0, rows * NIBBLE_TILE * sizeof *sums);
  for (size_t start = 0; start < K; start += INT8_DEPTH) {
    size_t depth = linear_smaller(INT8_DEPTH, K - start);
    int8_panel(w + start, K, features, depth, panel);
    for (size_t r = 0; r < rows; r += INT8_ROWS) {
      size_t height = linear_smaller(INT8_ROWS, rows - r);
      const char *x = (const char *)call->work.packed + (t + r) * stride + start * height * INT8_ELEMENT;
      multiply_int8_block(height, x, panel, (depth + 3) / 4, sums + r * NIBBLE_TILE);
    }
  }
}

/// sum × row absmax × feature absmax / 127² (+ bias), in place: from int32 to float32.
static void scale_sums(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile, size_t first_row,
                       size_t rows, float *sums) {
  float scales[NIBBLE_TILE], bias[NIBBLE_TILE];
  linear_load_lanes(layer->scales, layer, tile, scales);
  linear_load_lanes(call->rounds_to_half ? NULL : layer->bias, layer, tile, bias);
  for (size_t r = 0; r < rows; r++) {
    vec absmax = splat(call->work.row_absmax[first_row + r]);
    ivec offset = splat_integer(VNNI ? (int32_t)(128u * (uint32_t)call->work.row_sums[first_row + r]) : 0);
    UNROLL for (int v = 0; v < VECTORS; v++) {
      float *at = sums + r * NIBBLE_TILE + v * LANES;
      vec sum = __builtin_convertvector(load_integers(at) - offset, vec);
      store(at, fma_(sum * absmax * load(scales + v * LANES), splat(INT8_PRODUCT_SCALE), load(bias + v * LANES)));
    }
  }
}

static void int8_tile(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile, linear_scratch *scratch) {
  size_t first = tile * NIBBLE_TILE, features = linear_smaller(NIBBLE_TILE, layer->N - first);
  const int8_t *w = (const int8_t *)layer->values + first * call->K;
  for (size_t t = 0; t < call->T; t += ROW_BLOCK) {
    size_t rows = linear_smaller(ROW_BLOCK, call->T - t);
    if (call->T <= FEW_ROWS) int8_few_rows(call, w, features, (int32_t *)scratch->sums);
    else int8_many_rows(call, w, features, t, rows, scratch, (int32_t *)scratch->sums);
    scale_sums(call, layer, tile, t, rows, scratch->sums);
    linear_finish_int8(call, layer, tile, t, rows, scratch->sums);
  }
}
