// The kernels over vectors of LANES floats, in the compilers' vector extension. Compiled once per instruction set by a file
// that defines LANES (4, 8 or 16) and SELECT (the name of the function that fills the table) and turns its target on.

#include "half.h"
#include "kernels.h"
#include "nibble_operations.h"

#include <math.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));
typedef uint16_t svec __attribute__((vector_size(2 * LANES)));
typedef _Float16 hvec __attribute__((vector_size(2 * LANES)));

// MARK: vectors

INLINE vec load(const float *x) {
  vec v;
  __builtin_memcpy(&v, x, sizeof v);
  return v;
}
INLINE void store(float *out, vec v) { __builtin_memcpy(out, &v, sizeof v); }
INLINE vec splat(float x) { return x - (vec){}; }
INLINE vec fma_(vec a, vec b, vec c) { return __builtin_elementwise_fma(a, b, c); }
INLINE vec choose(ivec condition, vec a, vec b) { return (vec)((condition & (ivec)a) | (~condition & (ivec)b)); }

INLINE vec load_float32(const void *memory, size_t i) { return load((const float *)memory + i); }
INLINE vec load_float16(const void *memory, size_t i) {
  hvec h;
  __builtin_memcpy(&h, (const char *)memory + 2 * i, sizeof h);
  return __builtin_convertvector(h, vec);
}
INLINE vec load_bfloat16(const void *memory, size_t i) {
  svec s;
  __builtin_memcpy(&s, (const char *)memory + 2 * i, sizeof s);
  return (vec)(__builtin_convertvector(s, uvec) << 16);
}
INLINE void store_float16(void *memory, size_t i, vec v) {
  hvec h = __builtin_convertvector(v, hvec);
  __builtin_memcpy((char *)memory + 2 * i, &h, sizeof h);
}
INLINE void store_bfloat16(void *memory, size_t i, vec v) {
  uvec bits = (uvec)v;
  uvec rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  uvec quiet = bits >> 16 | 0x40;
  ivec is_nan = v != v;
  svec s = __builtin_convertvector((rounded & ~(uvec)is_nan) | (quiet & (uvec)is_nan), svec);
  __builtin_memcpy((char *)memory + 2 * i, &s, sizeof s);
}

#if LANES == 4
#define EVENS(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6)
#define ODDS(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7)
#elif LANES == 8
#define EVENS(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODDS(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#else
#define EVENS(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODDS(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#endif

// Lane i of the result is the sum of v[i]'s lanes. Destroys v.
INLINE vec sums_of_each(vec *v) {
  UNROLL for (int n = LANES; n > 1; n /= 2) {
    UNROLL for (int i = 0; i < n / 2; i++) v[i] = EVENS(v[2 * i], v[2 * i + 1]) + ODDS(v[2 * i], v[2 * i + 1]);
  }
  return v[0];
}

INLINE float sum_of(vec v) {
  float lanes[LANES], sum = 0;
  store(lanes, v);
  UNROLL for (int n = LANES / 2; n > 0; n /= 2) {
    UNROLL for (int i = 0; i < n; i++) lanes[i] += lanes[i + n];
  }
  return sum + lanes[0];
}

INLINE float maximum_of(vec v) {
  float lanes[LANES];
  store(lanes, v);
  UNROLL for (int n = LANES / 2; n > 0; n /= 2) {
    UNROLL for (int i = 0; i < n; i++) lanes[i] = lanes[i] > lanes[i + n] ? lanes[i] : lanes[i + n];
  }
  return lanes[0];
}

// eˣ to about one unit in the last place: x = n·ln 2 + r with |r| ≤ ln 2 / 2, a polynomial in r, times 2ⁿ. Below −87.3 the
// result is 0, above 88.7 infinite; NaN stays NaN.
INLINE vec exp_(vec x) {
  const vec shifter = splat(0x1.8p23f);
  vec bounded = choose(x < -88, splat(-88), choose(x > 89, splat(89), x));
  vec shifted = fma_(bounded, splat(0x1.715476p0f), shifter);
  vec n = shifted - shifter;
  vec r = fma_(n, splat(-0x1.62e4p-1f), bounded);
  r = fma_(n, splat(-0x1.7f7d1cp-20f), r);
  vec p = fma_(r, splat(0x1.a01a02p-13f), splat(0x1.6c16c2p-10f));
  p = fma_(p, r, splat(0x1.111112p-7f));
  p = fma_(p, r, splat(0x1.555556p-5f));
  p = fma_(p, r, splat(0x1.555556p-3f));
  p = fma_(p, r, splat(0.5f));
  p = fma_(p, r * r, r);
  // 2ⁿ in two factors, because n reaches 128.
  ivec exponent = (ivec)shifted - (ivec)shifter;
  ivec half = exponent >> 1;
  vec first = (vec)((half + 127) << 23), second = (vec)((exponent - half + 127) << 23);
  vec result = fma_(p, first, first) * second;
  return choose(x < splat(-87.336f), splat(0), result);
}

// MARK: conversions

#define WIDEN(NAME)                                                         \
  static void widen_##NAME(const void *source, float *out, size_t count) { \
    size_t i = 0;                                                           \
    for (; i + LANES <= count; i += LANES) store(out + i, load_##NAME(source, i)); \
    for (; i < count; i++) {                                                \
      uint16_t bits;                                                        \
      memcpy(&bits, (const char *)source + 2 * i, 2);                       \
      out[i] = SCALAR_##NAME(bits);                                         \
    }                                                                       \
  }
#define SCALAR_float16 half_to_float
#define SCALAR_bfloat16 bfloat_to_float
WIDEN(float16)
WIDEN(bfloat16)

#define NARROW(NAME, SCALAR)                                                \
  static void narrow_##NAME(const float *source, void *out, size_t count) { \
    size_t i = 0;                                                           \
    for (; i + LANES <= count; i += LANES) store_##NAME(out, i, load(source + i)); \
    for (; i < count; i++) {                                                \
      uint16_t bits = SCALAR(source[i]);                                    \
      memcpy((char *)out + 2 * i, &bits, 2);                                \
    }                                                                       \
  }
NARROW(float16, float_to_half)
NARROW(bfloat16, float_to_bfloat)

// MARK: element by element

static void scale(const float *x, float factor, float *out, size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) store(out + i, load(x + i) * factor);
  for (; i < count; i++) out[i] = x[i] * factor;
}

static void add(const float *a, const float *b, float factor, float *out, size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) store(out + i, fma_(load(b + i), splat(factor), load(a + i)));
  for (; i < count; i++) out[i] = fmaf(b[i], factor, a[i]);
}

static void clip(float *x, float limit, size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    vec v = load(x + i);
    store(x + i, choose(v > limit, splat(limit), choose(v < -limit, splat(-limit), v)));
  }
  for (; i < count; i++) x[i] = x[i] > limit ? limit : x[i] < -limit ? -limit : x[i];
}

// (e²ˣ − 1) / (e²ˣ + 1) where that loses nothing, x times a polynomial in x² near zero.
INLINE vec tanh_(vec x) {
  vec size = (vec)((ivec)x & 0x7FFFFFFF);
  vec far = 1 - 2 / (exp_(size + size) + 1);
  far = (vec)((ivec)far | ((ivec)x & (ivec)splat(-0.0f)));
  vec s = x * x;
  // Taylor: the term left out is below 2e-9 of the result.
  vec p = fma_(s, splat(21844.0f / 6081075), splat(-1382.0f / 155925));
  p = fma_(p, s, splat(62.0f / 2835));
  p = fma_(p, s, splat(-17.0f / 315));
  p = fma_(p, s, splat(2.0f / 15));
  p = fma_(p, s, splat(-1.0f / 3));
  vec near = fma_(p * s, x, x);
  return choose(size < 0.3f, near, far);
}

INLINE vec sigmoid_(vec x) { return 1 / (1 + exp_(-x)); }

// ½(1 + erf(x / √2)) by formula 7.1.26 of Abramowitz and Stegun, |error| < 1.5e-7 in erf.
INLINE vec normal_(vec x) {
  vec size = (vec)((ivec)x & 0x7FFFFFFF) * 0.70710678f;
  vec t = 1 / fma_(size, splat(0.3275911f), splat(1));
  vec p = fma_(t, splat(1.061405429f), splat(-1.453152027f));
  p = fma_(p, t, splat(1.421413741f));
  p = fma_(p, t, splat(-0.284496736f));
  p = fma_(p, t, splat(0.254829592f));
  vec tail = 0.5f * p * t * exp_(-size * size);
  return choose(x < 0, tail, 1 - tail);
}

INLINE vec activated(int32_t activation, float parameter, vec x) {
  switch (activation) {
    case nibble_relu: return choose(x < 0, splat(0), x);
    case nibble_relu_squared: return choose(x < 0, splat(0), x * x);
    case nibble_gelu: return x * normal_(x);
    case nibble_gelu_tanh: return x * sigmoid_(2 * 0.79788456f * fma_(x * x * x, splat(0.044715f), x));
    case nibble_quick_gelu: return x * sigmoid_(1.702f * x);
    case nibble_silu: return x * sigmoid_(x);
    case nibble_sigmoid: return sigmoid_(x);
    case nibble_tanh: return tanh_(x);
    case nibble_soft_cap: return parameter * tanh_(x / parameter);
    default: return x;
  }
}

INLINE vec load_part(const float *x, size_t count) {
  float lanes[LANES] = {};
  memcpy(lanes, x, count * sizeof(float));
  return load(lanes);
}

INLINE void store_part(float *out, vec v, size_t count) {
  float lanes[LANES];
  store(lanes, v);
  memcpy(out, lanes, count * sizeof(float));
}

INLINE void activate_all(int32_t activation, float parameter, const float *x, const float *factor, float *out, size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    vec v = activated(activation, parameter, load(x + i));
    store(out + i, factor ? v * load(factor + i) : v);
  }
  if (i == count) return;
  vec v = activated(activation, parameter, load_part(x + i, count - i));
  store_part(out + i, factor ? v * load_part(factor + i, count - i) : v, count - i);
}

// One loop for each function, so that none branches inside.
#define EACH_ACTIVATION(DO)                                                                                            \
  switch (activation) {                                                                                                \
    case nibble_relu: DO(nibble_relu); break;                                                                          \
    case nibble_relu_squared: DO(nibble_relu_squared); break;                                                          \
    case nibble_gelu: DO(nibble_gelu); break;                                                                          \
    case nibble_gelu_tanh: DO(nibble_gelu_tanh); break;                                                                \
    case nibble_quick_gelu: DO(nibble_quick_gelu); break;                                                              \
    case nibble_silu: DO(nibble_silu); break;                                                                          \
    case nibble_sigmoid: DO(nibble_sigmoid); break;                                                                    \
    case nibble_tanh: DO(nibble_tanh); break;                                                                          \
    case nibble_soft_cap: DO(nibble_soft_cap); break;                                                                  \
    default: DO(nibble_identity); break;                                                                               \
  }

static void activate(int32_t activation, float parameter, const float *x, float *out, size_t count) {
#define ACTIVATE(kind) activate_all(kind, parameter, x, NULL, out, count)
  EACH_ACTIVATION(ACTIVATE)
}

static void gate(int32_t activation, float parameter, const float *a, const float *b, float *out, size_t count) {
#define GATE(kind) activate_all(kind, parameter, a, b, out, count)
  EACH_ACTIVATION(GATE)
}

// MARK: normalization and rotation

static float sum(const float *x, size_t count) {
  vec a = {}, b = {}, c = {}, d = {};
  size_t i = 0;
  for (; i + 4 * LANES <= count; i += 4 * LANES) {
    a += load(x + i);
    b += load(x + i + LANES);
    c += load(x + i + 2 * LANES);
    d += load(x + i + 3 * LANES);
  }
  for (; i + LANES <= count; i += LANES) a += load(x + i);
  float total = sum_of((a + b) + (c + d));
  for (; i < count; i++) total += x[i];
  return total;
}

INLINE vec square_added(vec total, const float *x, float centre) {
  vec v = load(x) - centre;
  return fma_(v, v, total);
}

static float square_sum(const float *x, float centre, size_t count) {
  vec a = {}, b = {}, c = {}, d = {};
  size_t i = 0;
  for (; i + 4 * LANES <= count; i += 4 * LANES) {
    a = square_added(a, x + i, centre);
    b = square_added(b, x + i + LANES, centre);
    c = square_added(c, x + i + 2 * LANES, centre);
    d = square_added(d, x + i + 3 * LANES, centre);
  }
  for (; i + LANES <= count; i += LANES) a = square_added(a, x + i, centre);
  float total = sum_of((a + b) + (c + d));
  for (; i < count; i++) total += (x[i] - centre) * (x[i] - centre);
  return total;
}

static void normalize(const float *x, float centre, float factor, const float *weight, const float *bias,
                      const float *residual, float *out, size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    vec v = (load(x + i) - centre) * factor;
    if (weight) v *= load(weight + i);
    if (bias) v += load(bias + i);
    if (residual) v += load(residual + i);
    store(out + i, v);
  }
  for (; i < count; i++) {
    float v = (x[i] - centre) * factor;
    if (weight) v *= weight[i];
    if (bias) v += bias[i];
    out[i] = residual ? residual[i] + v : v;
  }
}

static void rotate_halves(float *x, const float *cosines, const float *sines, size_t half) {
  size_t i = 0;
  for (; i + LANES <= half; i += LANES) {
    vec a = load(x + i), b = load(x + i + half), c = load(cosines + i), s = load(sines + i);
    store(x + i, a * c - b * s);
    store(x + i + half, b * c + a * s);
  }
  for (; i < half; i++) {
    float a = x[i], b = x[i + half];
    x[i] = a * cosines[i] - b * sines[i];
    x[i + half] = b * cosines[i] + a * sines[i];
  }
}

// MARK: selection

static float maximum(const float *x, size_t count) {
  vec a = splat(-INFINITY), b = a;
  size_t i = 0;
  for (; i + 2 * LANES <= count; i += 2 * LANES) {
    vec v = load(x + i), w = load(x + i + LANES);
    a = choose(v > a, v, a);
    b = choose(w > b, w, b);
  }
  float best = maximum_of(choose(a > b, a, b));
  for (; i < count; i++)
    if (x[i] > best) best = x[i];
  return best;
}

static size_t find(const float *x, float value, size_t count) {
  size_t i = 0;
  for (; i + 4 * LANES <= count; i += 4 * LANES) {
    ivec found = (load(x + i) == value) | (load(x + i + LANES) == value) | (load(x + i + 2 * LANES) == value) |
                 (load(x + i + 3 * LANES) == value);
    if (__builtin_reduce_or(found)) break;
  }
  for (; i < count; i++)
    if (x[i] == value) return i;
  return count;
}

INLINE vec exponential_below(vec v, float maximum) {
  vec e = choose(v == maximum, splat(1), exp_(v - maximum));
  return choose(e == e, e, splat(0));
}

static void exponentials(const float *x, float maximum, float *out, size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) store(out + i, exponential_below(load(x + i), maximum));
  if (i < count) store_part(out + i, exponential_below(load_part(x + i, count - i), maximum), count - i);
}

// MARK: attention

enum { score_vectors = keys_per_block / LANES };

static float softmax_block(float *scores, float *maximum, float *total) {
  vec s[score_vectors], best = splat(*maximum);
  UNROLL for (int i = 0; i < score_vectors; i++) {
    s[i] = load(scores + i * LANES);
    best = choose(s[i] > best, s[i], best);
  }
  float top = maximum_of(best);
  if (top == -INFINITY) {
    memset(scores, 0, keys_per_block * sizeof(float));
    return 1;
  }
  vec added = {};
  UNROLL for (int i = 0; i < score_vectors; i++) {
    vec e = exp_(s[i] - top);
    store(scores + i * LANES, e);
    added += e;
  }
  float correction = top == *maximum ? 1 : expf(*maximum - top);
  *total = *total * correction + sum_of(added);
  *maximum = top;
  return correction;
}

// Scores of `queries` rows with LANES / queries keys: LANES sums at a time.
#define SCORE_STEP(NAME)                                                                                               \
  INLINE void score_step_##NAME(const int queries, const float *q, size_t query_stride, const void *keys, size_t size, \
                                size_t first, float *scores) {                                                         \
    const int per_query = LANES / queries;                                                                             \
    vec acc[LANES] = {};                                                                                               \
    for (size_t d = 0; d < size; d += LANES) {                                                                         \
      vec k[LANES];                                                                                                    \
      UNROLL for (int j = 0; j < per_query; j++) k[j] = load_##NAME(keys, (first + (size_t)j) * size + d);             \
      UNROLL for (int m = 0; m < queries; m++) {                                                                       \
        vec qm = load(q + (size_t)m * query_stride + d);                                                               \
        UNROLL for (int j = 0; j < per_query; j++) acc[m * per_query + j] = fma_(k[j], qm, acc[m * per_query + j]);    \
      }                                                                                                                \
    }                                                                                                                  \
    float lanes[LANES];                                                                                                \
    store(lanes, sums_of_each(acc));                                                                                   \
    UNROLL for (int m = 0; m < queries; m++)                                                                           \
      memcpy(scores + m * keys_per_block + first, lanes + m * per_query, (size_t)per_query * sizeof(float));           \
  }                                                                                                                    \
  static void score_##NAME(const float *q, size_t query_stride, size_t rows, const void *keys, size_t size,            \
                           size_t count, float *scores) {                                                              \
    for (size_t m = 0; m < rows; m += 4) {                                                                             \
      const float *qm = q + m * query_stride;                                                                          \
      float *out = scores + m * keys_per_block;                                                                        \
      size_t left = rows - m;                                                                                          \
      if (left == 1) {                                                                                                 \
        for (size_t j = 0; j < count; j += LANES) score_step_##NAME(1, qm, query_stride, keys, size, j, out);          \
      } else if (left == 2) {                                                                                          \
        for (size_t j = 0; j < count; j += LANES / 2) score_step_##NAME(2, qm, query_stride, keys, size, j, out);      \
      } else {                                                                                                         \
        for (size_t j = 0; j < count; j += LANES / 4) score_step_##NAME(4, qm, query_stride, keys, size, j, out);      \
      }                                                                                                                \
    }                                                                                                                  \
  }

// `vectors` vectors of the values' width for `queries` rows.
#define ACCUMULATE_STEP(NAME)                                                                                           \
  INLINE void accumulate_step_##NAME(const int queries, const int vectors, const float *p, const float *correction,     \
                                     const void *values, size_t size, size_t count, float *acc, size_t stride) {        \
    vec sums[8];                                                                                                        \
    UNROLL for (int m = 0; m < queries; m++) UNROLL for (int v = 0; v < vectors; v++) sums[m * vectors + v] =           \
        load(acc + (size_t)m * stride + (size_t)v * LANES) * correction[m];                                             \
    for (size_t j = 0; j < count; j++) {                                                                                \
      vec x[8];                                                                                                         \
      UNROLL for (int v = 0; v < vectors; v++) x[v] = load_##NAME(values, j * size + (size_t)v * LANES);                \
      UNROLL for (int m = 0; m < queries; m++) {                                                                        \
        vec weight = splat(p[m * keys_per_block + (int)j]);                                                             \
        UNROLL for (int v = 0; v < vectors; v++) sums[m * vectors + v] = fma_(x[v], weight, sums[m * vectors + v]);     \
      }                                                                                                                 \
    }                                                                                                                   \
    UNROLL for (int m = 0; m < queries; m++) UNROLL for (int v = 0; v < vectors; v++)                                   \
        store(acc + (size_t)m * stride + (size_t)v * LANES, sums[m * vectors + v]);                                     \
  }                                                                                                                     \
  INLINE void accumulate_rows_##NAME(const int queries, const int vectors, const float *p, const float *correction,     \
                                     const char *values, size_t element, size_t size, size_t count, float *acc,         \
                                     size_t stride) {                                                                   \
    size_t d = 0, step = (size_t)vectors * LANES;                                                                       \
    for (; d + step <= size; d += step)                                                                                 \
      accumulate_step_##NAME(queries, vectors, p, correction, values + d * element, size, count, acc + d, stride);      \
    for (; d < size; d += LANES)                                                                                        \
      accumulate_step_##NAME(queries, 1, p, correction, values + d * element, size, count, acc + d, stride);            \
  }                                                                                                                     \
  static void accumulate_##NAME(const float *p, size_t rows, const float *correction, const void *values, size_t size,  \
                                size_t count, float *acc, size_t stride) {                                              \
    size_t element = nibble_dtype_size(nibble_##NAME), m = 0;                                                           \
    for (; m + 4 <= rows; m += 4)                                                                                       \
      accumulate_rows_##NAME(4, 2, p + m * keys_per_block, correction + m, values, element, size, count,                \
                             acc + m * stride, stride);                                                                 \
    for (; m + 2 <= rows; m += 2)                                                                                       \
      accumulate_rows_##NAME(2, 4, p + m * keys_per_block, correction + m, values, element, size, count,                \
                             acc + m * stride, stride);                                                                 \
    for (; m < rows; m++)                                                                                               \
      accumulate_rows_##NAME(1, 8, p + m * keys_per_block, correction + m, values, element, size, count,                \
                             acc + m * stride, stride);                                                                 \
  }

// keys[j][d] → packed[d][j], LANES × LANES at a time through a small buffer.
#define PACK(NAME)                                                                                       \
  static void pack_##NAME(const void *keys, size_t size, size_t count, float *packed) {                  \
    if (count < keys_per_block) memset(packed, 0, size * keys_per_block * sizeof(float));                \
    for (size_t j = 0; j < count; j++) {                                                                 \
      size_t d = 0;                                                                                      \
      float *out = packed + j;                                                                           \
      for (; d + LANES <= size; d += LANES) {                                                            \
        float lanes[LANES];                                                                              \
        store(lanes, load_##NAME(keys, j * size + d));                                                   \
        UNROLL for (int i = 0; i < LANES; i++) out[(d + (size_t)i) * keys_per_block] = lanes[i];         \
      }                                                                                                  \
      for (; d < size; d++) out[d * keys_per_block] = ELEMENT_##NAME(keys, j * size + d);                \
    }                                                                                                    \
  }
#define ELEMENT_float32(memory, i) ((const float *)(memory))[i]
#define ELEMENT_float16(memory, i) half_to_float(((const uint16_t *)(memory))[i])
#define ELEMENT_bfloat16(memory, i) bfloat_to_float(((const uint16_t *)(memory))[i])

#define DIRECT(NAME) SCORE_STEP(NAME) ACCUMULATE_STEP(NAME) PACK(NAME)
DIRECT(float32)
DIRECT(float16)
DIRECT(bfloat16)

// Rows handled together: as many as leave registers for 32 keys' sums each.
#if LANES == 8
enum { row_step = 3 };
#elif LANES == 16
enum { row_step = 8 };
#else
enum { row_step = 2 };
#endif

INLINE void score_packed_step(const int rows, const float *q, size_t query_stride, const float *packed, size_t size,
                              float *scores) {
  vec acc[row_step * score_vectors] = {};
  for (size_t d = 0; d < size; d++) {
    vec k[score_vectors];
    UNROLL for (int v = 0; v < score_vectors; v++) k[v] = load(packed + d * keys_per_block + (size_t)v * LANES);
    UNROLL for (int m = 0; m < rows; m++) {
      vec x = splat(q[(size_t)m * query_stride + d]);
      UNROLL for (int v = 0; v < score_vectors; v++) acc[m * score_vectors + v] = fma_(k[v], x, acc[m * score_vectors + v]);
    }
  }
  UNROLL for (int m = 0; m < rows; m++) UNROLL for (int v = 0; v < score_vectors; v++)
      store(scores + m * keys_per_block + v * LANES, acc[m * score_vectors + v]);
}

static void score_packed(const float *queries, size_t query_stride, size_t rows, const float *packed, size_t size, float *scores) {
  size_t m = 0;
  for (; m + row_step <= rows; m += row_step)
    score_packed_step(row_step, queries + m * query_stride, query_stride, packed, size, scores + m * keys_per_block);
  for (; m < rows; m++)
    score_packed_step(1, queries + m * query_stride, query_stride, packed, size, scores + m * keys_per_block);
}

// 16 × n columns of the values for `rows` rows.
INLINE void accumulate_packed_step(const int rows, const int vectors, const float *p, const float *correction,
                                   const float *values, size_t stride, size_t count, float *acc) {
  vec sums[row_step * 4];
  UNROLL for (int m = 0; m < rows; m++) UNROLL for (int v = 0; v < vectors; v++) sums[m * vectors + v] =
      load(acc + (size_t)m * stride + (size_t)v * LANES) * correction[m];
  for (size_t j = 0; j < count; j++) {
    vec x[4];
    UNROLL for (int v = 0; v < vectors; v++) x[v] = load(values + j * stride + (size_t)v * LANES);
    UNROLL for (int m = 0; m < rows; m++) {
      vec weight = splat(p[m * keys_per_block + (int)j]);
      UNROLL for (int v = 0; v < vectors; v++) sums[m * vectors + v] = fma_(x[v], weight, sums[m * vectors + v]);
    }
  }
  UNROLL for (int m = 0; m < rows; m++) UNROLL for (int v = 0; v < vectors; v++)
      store(acc + (size_t)m * stride + (size_t)v * LANES, sums[m * vectors + v]);
}

INLINE void accumulate_packed_rows(const int rows, const float *p, const float *correction, const float *values,
                                   size_t stride, size_t count, float *acc) {
  enum { vectors = LANES == 16 ? 2 : 4 };
  size_t d = 0;
  for (; d + vectors * LANES <= stride; d += vectors * LANES)
    accumulate_packed_step(rows, vectors, p, correction, values + d, stride, count, acc + d);
  for (; d < stride; d += LANES) accumulate_packed_step(rows, 1, p, correction, values + d, stride, count, acc + d);
}

static void accumulate_packed(const float *p, size_t rows, const float *correction, const float *values, size_t stride,
                              size_t count, float *acc) {
  size_t m = 0;
  for (; m + row_step <= rows; m += row_step)
    accumulate_packed_rows(row_step, p + m * keys_per_block, correction + m, values, stride, count, acc + m * stride);
  for (; m < rows; m++)
    accumulate_packed_rows(1, p + m * keys_per_block, correction + m, values, stride, count, acc + m * stride);
}

void SELECT(nibble_kernels *table) {
  table->widen[nibble_float16] = widen_float16;
  table->widen[nibble_bfloat16] = widen_bfloat16;
  table->narrow[nibble_float16] = narrow_float16;
  table->narrow[nibble_bfloat16] = narrow_bfloat16;
  table->scale = scale;
  table->add = add;
  table->clip = clip;
  table->sum = sum;
  table->square_sum = square_sum;
  table->normalize = normalize;
  table->rotate_halves = rotate_halves;
  table->activate = activate;
  table->gate = gate;
  table->maximum = maximum;
  table->find = find;
  table->exponentials = exponentials;
  table->score_direct[nibble_float32] = score_float32;
  table->score_direct[nibble_float16] = score_float16;
  table->score_direct[nibble_bfloat16] = score_bfloat16;
  table->accumulate_direct[nibble_float32] = accumulate_float32;
  table->accumulate_direct[nibble_float16] = accumulate_float16;
  table->accumulate_direct[nibble_bfloat16] = accumulate_bfloat16;
  table->pack_keys[nibble_float32] = pack_float32;
  table->pack_keys[nibble_float16] = pack_float16;
  table->pack_keys[nibble_bfloat16] = pack_bfloat16;
  table->score_packed = score_packed;
  table->accumulate_packed = accumulate_packed;
  table->softmax_block = softmax_block;
  table->lanes = LANES;
}
