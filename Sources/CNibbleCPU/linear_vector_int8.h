// LLM.int8(): activations quantized row by row, exact integer products.
//
// With vpdpbusd, which multiplies unsigned by signed bytes, weights become w + 128 and 128 × Σx is taken off at the end; NEON's
// are signed both. Without either, bytes widen to 16 bits, for vpmaddwd.

#if VNNI
enum { INT8_BYTES = 4 * LANES };
INLINE ivec offset_weights(const int8_t *w) { return load_integers(w) ^ splat_integer((int32_t)(BYTE_OFFSET * 0x01010101u)); }
INLINE ivec dot_codes(ivec acc, ivec w, const char *x) { return DOT_BYTES(acc, w, load_integers(x)); }
#define LOAD_WEIGHTS offset_weights
#else
enum { INT8_BYTES = 2 * LANES };
INLINE ivec wide_weights(const int8_t *w) {
  int8_t __attribute__((vector_size(INT8_BYTES))) bytes;
  memcpy(&bytes, w, sizeof bytes);
  return (ivec) __builtin_convertvector(bytes, int16_t __attribute__((vector_size(2 * INT8_BYTES))));
}
INLINE ivec dot_codes(ivec acc, ivec w, const char *x) { return acc + MULTIPLY_PAIRS(w, load_integers(x)); }
#define LOAD_WEIGHTS wide_weights
#endif

INLINE void dot_step(const int rows, const int features, const char *x, size_t x_stride, const int8_t *w, size_t stride,
                     ivec *acc) {
  UNROLL for (int f = 0; f < features; f++) {
    ivec v = LOAD_WEIGHTS(w + (size_t)f * stride);
    UNROLL for (int r = 0; r < rows; r++) acc[r * features + f] = dot_codes(acc[r * features + f], v, x + (size_t)r * x_stride);
  }
}

/// `features` features, every `step`th of a tile.
INLINE void dot_int8(const int rows, const int features, const size_t step, const char *x, size_t x_stride, const int8_t *w,
                     size_t K, int32_t *sums) {
  ivec acc[8] = {};
  size_t k = 0;
  for (; k + INT8_BYTES <= K; k += INT8_BYTES) dot_step(rows, features, x + k * INT8_ELEMENT, x_stride, w + k, step * K, acc);
  if (k < K) {
    int8_t tails[4 * INT8_BYTES] = {};
    UNROLL for (int f = 0; f < features; f++) memcpy(tails + f * INT8_BYTES, w + (size_t)f * step * K + k, K - k);
    dot_step(rows, features, x + k * INT8_ELEMENT, x_stride, tails, INT8_BYTES, acc);
  }
  UNROLL for (int f = 0; f < features; f++) UNROLL for (int r = 0; r < rows; r++) {
    int32_t lanes[LANES];
    uint32_t sum = 0;
    store_integers(lanes, acc[r * features + f]);
    UNROLL for (int i = 0; i < LANES; i++) sum += (uint32_t)lanes[i];
    sums[(size_t)r * NIBBLE_TILE + (size_t)f * step] = (int32_t)sum;
  }
}

static void int8_few_rows(const nibble_linear_call *call, const int8_t *w, size_t features, int32_t *sums) {
  size_t K = call->K, T = call->T, stride = linear_packed_stride(call) * INT8_ELEMENT, n = 0;
  const char *x = call->work.packed;
  if (features == NIBBLE_TILE && T <= 2) {
    for (; n < QUARTER; n++) {
      if (T == 1)
        dot_int8(1, 4, QUARTER, x, stride, w + n * K, K, sums + n);
      else
        dot_int8(2, 4, QUARTER, x, stride, w + n * K, K, sums + n);
    }
    return;
  }
  for (; n + 2 <= features && T > 2; n += 2) {
    if (T == 3)
      dot_int8(3, 2, 1, x, stride, w + n * K, K, sums + n);
    else
      dot_int8(4, 2, 1, x, stride, w + n * K, K, sums + n);
  }
  for (; n < features; n++)
    for (size_t t = 0; t < T; t++) dot_int8(1, 1, 1, x + t * stride, stride, w + n * K, K, sums + t * NIBBLE_TILE + n);
}

/// sum × row absmax × feature absmax / 127² (+ bias), in place: from int32 to float32.
static void scale_sums(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile, size_t first_row,
                       size_t rows, float *sums) {
  float scales[NIBBLE_TILE], bias[NIBBLE_TILE];
  linear_load_lanes(layer->scales, layer, tile, scales);
  linear_load_lanes(call->rounds_to_half ? NULL : layer->bias, layer, tile, bias);
  for (size_t r = 0; r < rows; r++) {
    vec absmax = splat(call->work.row_absmax[first_row + r]);
    ivec offset = splat_integer((int32_t)((uint32_t)BYTE_OFFSET * (uint32_t)call->work.row_sums[first_row + r]));
    UNROLL for (int v = 0; v < VECTORS; v++) {
      float *at = sums + r * NIBBLE_TILE + v * LANES;
      vec sum = __builtin_convertvector(load_integers(at) - offset, vec);
      store(at, fma_(sum * absmax * load(scales + v * LANES), splat(INT8_PRODUCT_SCALE), load(bias + v * LANES)));
    }
  }
}

static void int8_few_rows_tile(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile,
                               linear_scratch *scratch) {
  size_t first = tile * NIBBLE_TILE, features = linear_smaller(NIBBLE_TILE, layer->N - first);
  int8_few_rows(call, (const int8_t *)layer->values + first * call->K, features, (int32_t *)scratch->sums);
  scale_sums(call, layer, tile, 0, call->T, scratch->sums);
  linear_finish_int8(call, layer, tile, 0, call->T, scratch->sums);
}
