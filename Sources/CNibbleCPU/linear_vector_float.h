// Float products: dense weights for few rows, and panels for many.

// MARK: Dense weights, few rows

/// Floats of a step: not fewer 16-bit weights than a load of 16 bytes brings.
enum { WIDTH = LANES < 8 ? 8 : LANES };

typedef float wide __attribute__((vector_size(4 * WIDTH)));
typedef int32_t wide_bits __attribute__((vector_size(4 * WIDTH)));

INLINE wide load_dense_float32(const void *memory) {
  wide v;
  memcpy(&v, memory, sizeof v);
  return v;
}
INLINE wide load_dense_float16(const void *memory) {
  _Float16 __attribute__((vector_size(2 * WIDTH))) halves;
  memcpy(&halves, memory, sizeof halves);
  return __builtin_convertvector(halves, wide);
}
INLINE wide load_dense_bfloat16(const void *memory) {
  uint16_t __attribute__((vector_size(2 * WIDTH))) halves;
  memcpy(&halves, memory, sizeof halves);
  return (wide)(__builtin_convertvector(halves, wide_bits) << 16);
}
INLINE float sum_of(wide v) {
  float lanes[WIDTH], sum[4] = {};
  memcpy(lanes, &v, sizeof v);
  UNROLL for (int i = 0; i < WIDTH; i++) sum[i % 4] += lanes[i];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}
INLINE float element_float32(const void *memory) { return *(const float *)memory; }
INLINE float element_float16(const void *memory) { return half_to_float(*(const uint16_t *)memory); }
INLINE float element_bfloat16(const void *memory) { return bfloat_to_float(*(const uint16_t *)memory); }

// `rows` rows of x with `features` rows of weights: enough sums to keep the multipliers busy.
#define DENSE(NAME, ELEMENT)                                                                                                  \
  INLINE void dot_##NAME(const int rows, const int features, const size_t step, const float *x, const char *w, size_t stride, \
                         size_t K, float *sums) {                                                                             \
    wide acc[8] = {};                                                                                                         \
    size_t k = 0;                                                                                                             \
    for (; k + WIDTH <= K; k += WIDTH) {                                                                                      \
      wide xs[FEW_ROWS];                                                                                                      \
      UNROLL for (int r = 0; r < rows; r++) xs[r] = load_dense_float32(x + (size_t)r * K + k);                                \
      UNROLL for (int f = 0; f < features; f++) {                                                                             \
        wide v = load_dense_##NAME(w + (size_t)f * stride + k * ELEMENT), *sum = acc + f;                                     \
        UNROLL for (int r = 0; r < rows; r++) sum[r * features] = __builtin_elementwise_fma(v, xs[r], sum[r * features]);     \
      }                                                                                                                       \
    }                                                                                                                         \
    UNROLL for (int f = 0; f < features; f++) UNROLL for (int r = 0; r < rows; r++) {                                         \
      float sum = sum_of(acc[r * features + f]);                                                                              \
      for (size_t i = k; i < K; i++) sum += element_##NAME(w + (size_t)f * stride + i * ELEMENT) * x[(size_t)r * K + i];      \
      sums[(size_t)r * NIBBLE_TILE + (size_t)f * step] = sum;                                                                 \
    }                                                                                                                         \
  }                                                                                                                           \
  static void dense_few_rows_##NAME(const float *x, size_t T, const void *weights, size_t features, size_t K, float *sums) {  \
    const char *w = weights;                                                                                                  \
    size_t stride = K * ELEMENT, n = 0;                                                                                       \
    if (features == NIBBLE_TILE && T <= 2) {                                                                                  \
      for (; n < QUARTER; n++) {                                                                                              \
        if (T == 1)                                                                                                           \
          dot_##NAME(1, 4, QUARTER, x, w + n * stride, QUARTER * stride, K, sums + n);                                        \
        else                                                                                                                  \
          dot_##NAME(2, 4, QUARTER, x, w + n * stride, QUARTER * stride, K, sums + n);                                        \
      }                                                                                                                       \
      return;                                                                                                                 \
    }                                                                                                                         \
    for (; n + 2 <= features && T > 2; n += 2) {                                                                              \
      if (T == 3)                                                                                                             \
        dot_##NAME(3, 2, 1, x, w + n * stride, stride, K, sums + n);                                                          \
      else                                                                                                                    \
        dot_##NAME(4, 2, 1, x, w + n * stride, stride, K, sums + n);                                                          \
    }                                                                                                                         \
    for (; n < features; n++)                                                                                                 \
      for (size_t t = 0; t < T; t++) dot_##NAME(1, 1, 1, x + t * K, w + n * stride, stride, K, sums + t * NIBBLE_TILE + n);   \
  }
DENSE(float32, 4)
DENSE(float16, 2)
DENSE(bfloat16, 2)

static void dense_few_rows(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile,
                           linear_scratch *scratch) {
  size_t first = tile * NIBBLE_TILE, features = linear_smaller(NIBBLE_TILE, layer->N - first), K = call->K;
  const char *w = (const char *)layer->values + first * K * nibble_dtype_size(layer->dtype);
  if (layer->dtype == nibble_float32)
    dense_few_rows_float32(call->x, call->T, w, features, K, scratch->sums);
  else if (layer->dtype == nibble_float16)
    dense_few_rows_float16(call->x, call->T, w, features, K, scratch->sums);
  else
    dense_few_rows_bfloat16(call->x, call->T, w, features, K, scratch->sums);
  linear_finish(call, layer, tile, 0, call->T, scratch->sums);
}

// MARK: Input

static int32_t rounded_dtype(nibble_input_form form) { return form == NIBBLE_INPUT_F16 ? nibble_float16 : nibble_bfloat16; }

/// Few rows: row t rounded, in its order.
static void round_row(const nibble_linear_call *call, size_t t) {
  if (call->form == NIBBLE_INPUT_F32) return;
  float *out = call->work.rounded + t * call->K;
  memcpy(out, call->x + t * call->K, call->K * sizeof(float));
  nibble_round_floats(out, call->K, rounded_dtype(call->form));
}

// MARK: Panels

#define SHUFFLE8(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

/// r[i][j] ↔ r[j][i]
INLINE void transpose8(vec8 *r) {
  vec8 a[8], b[8];
  UNROLL for (int i = 0; i < 8; i += 2) {
    a[i] = SHUFFLE8(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    a[i + 1] = SHUFFLE8(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  UNROLL for (int i = 0; i < 8; i += 4) UNROLL for (int j = 0; j < 2; j++) {
    b[i + 2 * j] = SHUFFLE8(a[i + j], a[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    b[i + 2 * j + 1] = SHUFFLE8(a[i + j], a[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
  }
  UNROLL for (int i = 0; i < 4; i++) {
    r[i] = SHUFFLE8(b[i], b[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    r[i + 4] = SHUFFLE8(b[i], b[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

INLINE vec8 load8_float32(const char *memory) {
  vec8 v;
  memcpy(&v, memory, sizeof v);
  return v;
}
INLINE vec8 load8_float16(const char *memory) {
  _Float16 __attribute__((vector_size(16))) halves;
  memcpy(&halves, memory, sizeof halves);
  return __builtin_convertvector(halves, vec8);
}
INLINE vec8 load8_bfloat16(const char *memory) {
  uint16_t __attribute__((vector_size(16))) halves;
  memcpy(&halves, memory, sizeof halves);
  int32_t __attribute__((vector_size(32))) wide = __builtin_convertvector(halves, int32_t __attribute__((vector_size(32)))) << 16;
  return (vec8)wide;
}

// panel[k][n] = w[n][k] for `depth` columns; features beyond the last repeat it.
#define PANEL(NAME, ELEMENT)                                                                                         \
  static void panel_##NAME(const char *w, size_t stride, size_t features, size_t depth, float *panel) {              \
    for (size_t half = 0; half < NIBBLE_TILE; half += 8) {                                                           \
      const char *rows[8];                                                                                           \
      for (size_t i = 0; i < 8; i++) rows[i] = w + linear_smaller(half + i, features - 1) * stride;                  \
      size_t k = 0;                                                                                                  \
      for (; k + 8 <= depth; k += 8) {                                                                               \
        vec8 r[8];                                                                                                   \
        UNROLL for (int i = 0; i < 8; i++) r[i] = load8_##NAME(rows[i] + k * ELEMENT);                               \
        transpose8(r);                                                                                               \
        UNROLL for (int i = 0; i < 8; i++) memcpy(panel + (k + (size_t)i) * NIBBLE_TILE + half, &r[i], sizeof r[i]); \
      }                                                                                                              \
      for (; k < depth; k++)                                                                                         \
        for (size_t i = 0; i < 8; i++) panel[k * NIBBLE_TILE + half + i] = element_##NAME(rows[i] + k * ELEMENT);    \
    }                                                                                                                \
  }
PANEL(float32, 4)
PANEL(float16, 2)
PANEL(bfloat16, 2)

static void four_bit_panel(nibble_input_form form, const nibble_linear_call *call, const nibble_linear_layer *layer,
                           linear_scales scales, size_t tile, size_t start, size_t depth, linear_scratch *scratch);

/// Columns `start ..< start + depth` of a tile, in float32, rounded to the type that is multiplied in.
static void fill_panel(const nibble_linear_call *call, const nibble_linear_layer *layer, linear_scales scales, size_t tile,
                       size_t start, size_t depth, linear_scratch *scratch) {
  if (layer->kind != NIBBLE_WEIGHT_DENSE) {
    four_bit_panel(call->form, call, layer, scales, tile, start, depth, scratch);
    return;
  }
  size_t first = tile * NIBBLE_TILE, features = linear_smaller(NIBBLE_TILE, layer->N - first);
  size_t element = nibble_dtype_size(layer->dtype);
  const char *w = (const char *)layer->values + (first * call->K + start) * element;
  if (layer->dtype == nibble_float32)
    panel_float32(w, call->K * element, features, depth, scratch->panel);
  else if (layer->dtype == nibble_float16)
    panel_float16(w, call->K * element, features, depth, scratch->panel);
  else
    panel_bfloat16(w, call->K * element, features, depth, scratch->panel);
}

// MARK: Products with panels

/// sums[r][n] += Σ_k x(r, k) × panel[k][n], where x(r, k) stands at x[r × row_step + k × column_step].
INLINE void multiply_rows(const int rows, const float *x, size_t row_step, size_t column_step, const float *panel, size_t depth,
                          float *sums) {
  vec acc[FLOAT_ROWS * VECTORS];
  UNROLL for (int i = 0; i < rows * VECTORS; i++) acc[i] = load(sums + i * LANES);
  for (size_t k = 0; k < depth; k++) {
    vec w[VECTORS];
    UNROLL for (int v = 0; v < VECTORS; v++) w[v] = load(panel + k * NIBBLE_TILE + (size_t)v * LANES);
    UNROLL for (int r = 0; r < rows; r++) {
      vec xr = splat(x[(size_t)r * row_step + k * column_step]);
      UNROLL for (int v = 0; v < VECTORS; v++) acc[r * VECTORS + v] = fma_(xr, w[v], acc[r * VECTORS + v]);
    }
  }
  UNROLL for (int i = 0; i < rows * VECTORS; i++) store(sums + i * LANES, acc[i]);
}

/// Up to FEW_ROWS rows as they are.
static void multiply_few(size_t rows, const float *x, size_t K, const float *panel, size_t depth, float *sums) {
  size_t r = 0;
  for (; r + 2 <= rows; r += 2) multiply_rows(2, x + r * K, K, 1, panel, depth, sums + r * NIBBLE_TILE);
  for (; r < rows; r++) multiply_rows(1, x + r * K, K, 1, panel, depth, sums + r * NIBBLE_TILE);
}

/// Few rows of a 4-bit layer that is not in tiles.
static void panel_few_rows(const nibble_linear_call *call, const nibble_linear_layer *layer, linear_scales scales, size_t tile,
                           linear_scratch *scratch) {
  const float *x = call->form == NIBBLE_INPUT_F32 ? call->x : call->work.rounded;
  memset(scratch->sums, 0, call->T * NIBBLE_TILE * sizeof(float));
  for (size_t start = 0; start < call->K; start += PANEL_DEPTH) {
    size_t depth = linear_smaller(PANEL_DEPTH, call->K - start);
    fill_panel(call, layer, scales, tile, start, depth, scratch);
    multiply_few(call->T, x + start, call->K, scratch->panel, depth, scratch->sums);
  }
  linear_finish(call, layer, tile, 0, call->T, scratch->sums);
}
