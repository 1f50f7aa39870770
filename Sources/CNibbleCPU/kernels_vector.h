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
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define TURNED(a, n) __builtin_shufflevector(a, a, (0 + n) % 4, (1 + n) % 4, (2 + n) % 4, (3 + n) % 4)
#elif LANES == 8
#define EVENS(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODDS(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#define TURNED(a, n)                                                                                                       \
  __builtin_shufflevector(a, a, (0 + n) % 8, (1 + n) % 8, (2 + n) % 8, (3 + n) % 8, (4 + n) % 8, (5 + n) % 8, (6 + n) % 8, \
                          (7 + n) % 8)
#else
#define EVENS(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODDS(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#define ZIP_LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define TURNED(a, n)                                                                                                           \
  __builtin_shufflevector(a, a, (0 + n) % 16, (1 + n) % 16, (2 + n) % 16, (3 + n) % 16, (4 + n) % 16, (5 + n) % 16,            \
                          (6 + n) % 16, (7 + n) % 16, (8 + n) % 16, (9 + n) % 16, (10 + n) % 16, (11 + n) % 16, (12 + n) % 16, \
                          (13 + n) % 16, (14 + n) % 16, (15 + n) % 16)
#endif

// Lane i of the result is the sum of v[i]'s lanes. Destroys v.
INLINE vec sums_of_each(vec *v) {
  UNROLL for (int n = LANES; n > 1; n /= 2) {
    UNROLL for (int i = 0; i < n / 2; i++) v[i] = EVENS(v[2 * i], v[2 * i + 1]) + ODDS(v[2 * i], v[2 * i + 1]);
  }
  return v[0];
}

INLINE vec larger_(vec a, vec b) { return choose(a > b, a, b); }

INLINE float sum_of(vec v) {
#if LANES == 16
  v += TURNED(v, 8);
#endif
#if LANES >= 8
  v += TURNED(v, 4);
#endif
  v += TURNED(v, 2);
  v += TURNED(v, 1);
  return v[0];
}

INLINE float maximum_of(vec v) {
#if LANES == 16
  v = larger_(v, TURNED(v, 8));
#endif
#if LANES >= 8
  v = larger_(v, TURNED(v, 4));
#endif
  v = larger_(v, TURNED(v, 2));
  v = larger_(v, TURNED(v, 1));
  return v[0];
}

// Rows become columns: every round of perfect shuffles moves one bit of the row number into the column number.
INLINE void transpose(vec *v) {
  UNROLL for (int n = LANES; n > 1; n /= 2) {
    vec t[LANES];
    UNROLL for (int i = 0; i < LANES / 2; i++) {
      t[2 * i] = ZIP_LOW(v[i], v[i + LANES / 2]);
      t[2 * i + 1] = ZIP_HIGH(v[i], v[i + LANES / 2]);
    }
    UNROLL for (int i = 0; i < LANES; i++) v[i] = t[i];
  }
}

// eˣ to about one unit in the last place: x = n·ln 2 + r with |r| ≤ ln 2 / 2, a polynomial in r, times 2ⁿ. x is limited to
// −87.3 … 88.3, whose exponentials are the smallest and largest that matter; NaN stays NaN.
INLINE vec exp_(vec x) {
  const vec shifter = splat(0x1.8p23f);
  vec bounded = choose(x < splat(-87.3f), splat(-87.3f), x);
  bounded = choose(bounded > splat(88.3f), splat(88.3f), bounded);
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
  vec power = (vec)(((ivec)shifted << 23) + (127 << 23));
  return fma_(p, power, power);
}

// MARK: conversions

#define WIDEN(NAME)                                                                \
  static void widen_##NAME(const void *source, float *out, size_t count) {         \
    size_t i = 0;                                                                  \
    for (; i + LANES <= count; i += LANES) store(out + i, load_##NAME(source, i)); \
    for (; i < count; i++) {                                                       \
      uint16_t bits;                                                               \
      memcpy(&bits, (const char *)source + 2 * i, 2);                              \
      out[i] = SCALAR_##NAME(bits);                                                \
    }                                                                              \
  }
#define SCALAR_float16 half_to_float
#define SCALAR_bfloat16 bfloat_to_float
WIDEN(float16)
WIDEN(bfloat16)

#define NARROW(NAME, SCALAR)                                                       \
  static void narrow_##NAME(const float *source, void *out, size_t count) {        \
    size_t i = 0;                                                                  \
    for (; i + LANES <= count; i += LANES) store_##NAME(out, i, load(source + i)); \
    for (; i < count; i++) {                                                       \
      uint16_t bits = SCALAR(source[i]);                                           \
      memcpy((char *)out + 2 * i, &bits, 2);                                       \
    }                                                                              \
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
    case nibble_relu:
      return choose(x < 0, splat(0), x);
    case nibble_relu_squared:
      return choose(x < 0, splat(0), x * x);
    case nibble_gelu:
      return x * normal_(x);
    case nibble_gelu_tanh:
      return x * sigmoid_(2 * 0.79788456f * fma_(x * x * x, splat(0.044715f), x));
    case nibble_quick_gelu:
      return x * sigmoid_(1.702f * x);
    case nibble_silu:
      return x * sigmoid_(x);
    case nibble_sigmoid:
      return sigmoid_(x);
    case nibble_tanh:
      return tanh_(x);
    case nibble_soft_cap:
      return parameter * tanh_(x / parameter);
    default:
      return x;
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
#define EACH_ACTIVATION(DO)    \
  switch (activation) {        \
    case nibble_relu:          \
      DO(nibble_relu);         \
      break;                   \
    case nibble_relu_squared:  \
      DO(nibble_relu_squared); \
      break;                   \
    case nibble_gelu:          \
      DO(nibble_gelu);         \
      break;                   \
    case nibble_gelu_tanh:     \
      DO(nibble_gelu_tanh);    \
      break;                   \
    case nibble_quick_gelu:    \
      DO(nibble_quick_gelu);   \
      break;                   \
    case nibble_silu:          \
      DO(nibble_silu);         \
      break;                   \
    case nibble_sigmoid:       \
      DO(nibble_sigmoid);      \
      break;                   \
    case nibble_tanh:          \
      DO(nibble_tanh);         \
      break;                   \
    case nibble_soft_cap:      \
      DO(nibble_soft_cap);     \
      break;                   \
    default:                   \
      DO(nibble_identity);     \
      break;                   \
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

static void normalize(const float *x, float centre, float factor, const float *weight, const float *bias, const float *residual,
                      float *out, size_t count) {
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
  vec x = v - maximum;
  return choose(v == maximum, splat(1), choose(x > splat(-87.3f), exp_(x), splat(0)));
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

// Asks for memory that is needed soon, while arithmetic goes on.
INLINE void prefetch(const char *memory, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(memory + i, 0, 2);
}

#define DTYPE float32
#define BYTES 4
#define ELEMENT(memory, i) ((const float *)(memory))[i]
#include "kernels_direct.h"
#undef DTYPE
#undef BYTES
#undef ELEMENT

#define DTYPE float16
#define BYTES 2
#define ELEMENT(memory, i) half_to_float(((const uint16_t *)(memory))[i])
#include "kernels_direct.h"
#undef DTYPE
#undef ELEMENT

#define DTYPE bfloat16
#define ELEMENT(memory, i) bfloat_to_float(((const uint16_t *)(memory))[i])
#include "kernels_direct.h"

// Rows and vectors of columns handled together: as many sums as leave registers for the operands.
#if LANES == 4
enum { row_step = 6, column_step = 4 };
#elif LANES == 8
enum { row_step = 6, column_step = 2 };
#else
enum { row_step = 12, column_step = 2 };
#endif

INLINE void score_packed_step(const int rows, const float *q, size_t query_stride, const float *packed, size_t size,
                              float *scores) {
  vec acc[row_step * column_step] = {};
  for (size_t d = 0; d < size; d++) {
    vec k[column_step];
    UNROLL for (int v = 0; v < column_step; v++) k[v] = load(packed + d * keys_per_block + (size_t)v * LANES);
    UNROLL for (int m = 0; m < rows; m++) {
      vec x = splat(q[(size_t)m * query_stride + d]);
      UNROLL for (int v = 0; v < column_step; v++) acc[m * column_step + v] = fma_(k[v], x, acc[m * column_step + v]);
    }
  }
  UNROLL for (int m = 0; m < rows; m++) UNROLL for (int v = 0; v < column_step; v++)
      store(scores + m * keys_per_block + v * LANES, acc[m * column_step + v]);
}

INLINE void score_packed_rows(const int rows, const float *q, size_t query_stride, const float *packed, size_t size,
                              float *scores) {
  for (size_t j = 0; j < keys_per_block; j += column_step * LANES)
    score_packed_step(rows, q, query_stride, packed + j, size, scores + j);
}

static void score_packed(const float *queries, size_t query_stride, size_t rows, const float *packed, size_t size,
                         float *scores) {
  size_t m = 0;
#define SCORE_ROWS(n)           \
  for (; m + n <= rows; m += n) \
    score_packed_rows(n, queries + m * query_stride, query_stride, packed, size, scores + m * keys_per_block);
  SCORE_ROWS(row_step)
  SCORE_ROWS(4)
  SCORE_ROWS(1)
}

INLINE void accumulate_packed_step(const int rows, const int vectors, const float *p, const float *correction,
                                   const float *values, size_t stride, size_t count, float *acc) {
  vec sums[row_step * column_step];
  UNROLL for (int m = 0; m < rows; m++) UNROLL for (int v = 0; v < vectors; v++) sums[m * vectors + v] =
      load(acc + (size_t)m * stride + (size_t)v * LANES) * correction[m];
  for (size_t j = 0; j < count; j++) {
    vec x[column_step];
    UNROLL for (int v = 0; v < vectors; v++) x[v] = load(values + j * stride + (size_t)v * LANES);
    UNROLL for (int m = 0; m < rows; m++) {
      vec weight = splat(p[m * keys_per_block + (int)j]);
      UNROLL for (int v = 0; v < vectors; v++) sums[m * vectors + v] = fma_(x[v], weight, sums[m * vectors + v]);
    }
  }
  UNROLL for (int m = 0; m < rows; m++) UNROLL for (int v = 0; v < vectors; v++)
      store(acc + (size_t)m * stride + (size_t)v * LANES, sums[m * vectors + v]);
}

INLINE void accumulate_packed_rows(const int rows, const float *p, const float *correction, const float *values, size_t stride,
                                   size_t count, float *acc) {
  size_t d = 0;
  for (; d + column_step * LANES <= stride; d += column_step * LANES)
    accumulate_packed_step(rows, column_step, p, correction, values + d, stride, count, acc + d);
  for (; d < stride; d += LANES) accumulate_packed_step(rows, 1, p, correction, values + d, stride, count, acc + d);
}

static void accumulate_packed(const float *p, size_t rows, const float *correction, const float *values, size_t stride,
                              size_t count, float *acc) {
  size_t m = 0;
#define ACCUMULATE_ROWS(n)      \
  for (; m + n <= rows; m += n) \
    accumulate_packed_rows(n, p + m * keys_per_block, correction + m, values, stride, count, acc + m * stride);
  ACCUMULATE_ROWS(row_step)
  ACCUMULATE_ROWS(4)
  ACCUMULATE_ROWS(1)
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
