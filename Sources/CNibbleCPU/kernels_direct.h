// Attention straight from the cache for few queries. Included by kernels_vector.h once for each dtype of the cache, named by
// DTYPE; loads go through load_DTYPE.

#define JOINED(a, b) a##_##b
#define JOIN(a, b) JOINED(a, b)
#define NAMED(name) JOIN(name, DTYPE)
#define LOAD NAMED(load)

// Scores of `queries` rows with LANES / queries keys: LANES sums at a time.
INLINE void NAMED(score_step)(const int queries, const float *q, size_t query_stride, const void *keys, size_t size, size_t first,
                              float *scores) {
  const int per_query = LANES / queries;
  vec acc[LANES] = {};
  for (size_t d = 0; d < size; d += LANES) {
    vec k[LANES];
    UNROLL for (int j = 0; j < per_query; j++) k[j] = LOAD(keys, (first + (size_t)j) * size + d);
    UNROLL for (int m = 0; m < queries; m++) {
      vec qm = load(q + (size_t)m * query_stride + d);
      UNROLL for (int j = 0; j < per_query; j++) acc[m * per_query + j] = fma_(k[j], qm, acc[m * per_query + j]);
    }
  }
  float lanes[LANES];
  store(lanes, sums_of_each(acc));
  UNROLL for (int m = 0; m < queries; m++)
      memcpy(scores + m * keys_per_block + first, lanes + m * per_query, (size_t)per_query * sizeof(float));
}

INLINE void NAMED(score_rows)(const int queries, const float *q, size_t query_stride, const void *keys, const char *ahead,
                              size_t size, size_t count, float *scores) {
  const size_t step = (size_t)(LANES / queries), row_bytes = size * BYTES;
  for (size_t j = 0; j < count; j += step) {
    if (ahead) prefetch(ahead + j * row_bytes, step * row_bytes);
    NAMED(score_step)(queries, q, query_stride, keys, size, j, scores);
  }
}

static void NAMED(score)(const float *queries, size_t query_stride, size_t rows, const void *keys, const void *ahead, size_t size,
                         size_t count, float *scores) {
  size_t m = 0;
#if LANES >= 8
  // The groups of eight heads that share keys: each key is widened once.
  for (; m + 4 < rows; m += 8)
    NAMED(score_rows)(8, queries + m * query_stride, query_stride, keys, m ? NULL : ahead, size, count,
                      scores + m * keys_per_block);
#endif
  for (; m < rows; m += 4) {
    const float *q = queries + m * query_stride;
    float *out = scores + m * keys_per_block;
    const char *once = m ? NULL : ahead;
    switch (rows - m) {
      case 1:
        NAMED(score_rows)(1, q, query_stride, keys, once, size, count, out);
        break;
      case 2:
        NAMED(score_rows)(2, q, query_stride, keys, once, size, count, out);
        break;
      default:
        NAMED(score_rows)(4, q, query_stride, keys, once, size, count, out);
        break;
    }
  }
}

// `vectors` vectors of the values' width for `queries` rows.
INLINE void NAMED(accumulate_step)(const int queries, const int vectors, const float *p, const float *correction,
                                   const char *values, const char *ahead, size_t size, size_t count, float *acc, size_t stride) {
  vec sums[8];
  UNROLL for (int m = 0; m < queries; m++) UNROLL for (int v = 0; v < vectors; v++) sums[m * vectors + v] =
      load(acc + (size_t)m * stride + (size_t)v * LANES) * correction[m];
  for (size_t j = 0; j < count; j++) {
    if (ahead) prefetch(ahead + j * size * BYTES, size * BYTES);
    vec x[8];
    UNROLL for (int v = 0; v < vectors; v++) x[v] = LOAD(values, j * size + (size_t)v * LANES);
    UNROLL for (int m = 0; m < queries; m++) {
      vec weight = splat(p[m * keys_per_block + (int)j]);
      UNROLL for (int v = 0; v < vectors; v++) sums[m * vectors + v] = fma_(x[v], weight, sums[m * vectors + v]);
    }
  }
  UNROLL for (int m = 0; m < queries; m++) UNROLL for (int v = 0; v < vectors; v++)
      store(acc + (size_t)m * stride + (size_t)v * LANES, sums[m * vectors + v]);
}

INLINE void NAMED(accumulate_rows)(const int queries, const int vectors, const float *p, const float *correction,
                                   const char *values, const char *ahead, size_t size, size_t count, float *acc, size_t stride) {
  size_t d = 0, step = (size_t)vectors * LANES;
  for (; d + step <= size; d += step)
    NAMED(accumulate_step)(queries, vectors, p, correction, values + d * BYTES, d ? NULL : ahead, size, count, acc + d, stride);
  for (; d < size; d += LANES)
    NAMED(accumulate_step)(queries, 1, p, correction, values + d * BYTES, d ? NULL : ahead, size, count, acc + d, stride);
}

static void NAMED(accumulate)(const float *p, size_t rows, const float *correction, const void *values, const void *ahead,
                              size_t size, size_t count, float *acc, size_t stride) {
  size_t m = 0;
#define ACCUMULATE(queries, vectors)                                                                                        \
  for (; m + queries <= rows; m += queries)                                                                                 \
    NAMED(accumulate_rows)(queries, vectors, p + m * keys_per_block, correction + m, values, m ? NULL : ahead, size, count, \
                           acc + m * stride, stride);
  ACCUMULATE(8, 1)
  ACCUMULATE(4, 2)
  ACCUMULATE(2, 4)
  ACCUMULATE(1, 8)
#undef ACCUMULATE
}

// keys[j][d] → packed[d][j], LANES × LANES at a time. All 32 keys are packed, valid or not: their scores are masked.
static void NAMED(pack)(const void *keys, size_t size, size_t count, float *packed) {
  (void)count;
  for (size_t j = 0; j < keys_per_block; j += LANES) {
    size_t d = 0;
    for (; d + LANES <= size; d += LANES) {
      vec v[LANES];
      UNROLL for (int i = 0; i < LANES; i++) v[i] = LOAD(keys, (j + (size_t)i) * size + d);
      transpose(v);
      UNROLL for (int i = 0; i < LANES; i++) store(packed + (d + (size_t)i) * keys_per_block + j, v[i]);
    }
    for (; d < size; d++)
      for (size_t i = j; i < j + LANES; i++) packed[d * keys_per_block + i] = ELEMENT(keys, i * size + d);
  }
}

#undef JOINED
#undef JOIN
#undef NAMED
#undef LOAD
