// Compares the innermost loops of every instruction level that this machine runs with the plain ones. Arguments as for
// linear_levels.
#include "cases.h"
#include "kernels.h"

enum { ROWS = 9, KEYS = keys_per_block };

static const size_t counts[] = {1, 3, 4, 7, 8, 15, 16, 33, 64, 100, 257};

static const elementwise_kernels *plain_loops, *level_loops;
static const attention_kernels *plain_attention, *level_attention;
static const char *level;

/// Results of both tables, and what differs.
typedef struct {
  memory got, wanted;
} pair;

static pair both(size_t floats) {
  pair p = {allocate(floats * sizeof(float)), allocate(floats * sizeof(float))};
  memset(p.got.data, 0, p.got.size), memset(p.wanted.data, 0, p.wanted.size);
  return p;
}

static pair both_from(const float *values, size_t floats) {
  pair p = both(floats);
  memcpy(p.got.data, values, p.got.size), memcpy(p.wanted.data, values, p.wanted.size);
  return p;
}

static void expect(const char *what, size_t count, float got, float wanted, double tolerance) {
  comparisons++;
  bool agrees = (isnan(got) && isnan(wanted)) || got == wanted || fabs((double)got - wanted) <= tolerance;
  if (agrees || failures++ >= 20) return;
  printf("%s: %s of %zu: %g, expected %g\n", level, what, count, (double)got, (double)wanted);
}

/// Each within `tolerance` of the larger of 1 and what is wanted.
static void expect_pair(const char *what, size_t count, pair *p, double tolerance) {
  const float *got = p->got.data, *wanted = p->wanted.data;
  for (size_t i = 0; i < p->got.size / sizeof(float); i++)
    expect(what, count, got[i], wanted[i], tolerance * fmax(1, fabs((double)wanted[i])));
  release(&p->got), release(&p->wanted);
}

#define RUN(p, CALL)                                      \
  do {                                                    \
    const elementwise_kernels *k = plain_loops;           \
    const attention_kernels *attention = plain_attention; \
    float *out = (p).wanted.data;                         \
    CALL;                                                 \
    k = level_loops;                                      \
    attention = level_attention;                          \
    out = (p).got.data;                                   \
    CALL;                                                 \
    (void)k, (void)attention;                             \
  } while (0)

// MARK: Conversions

static void check_widen(size_t count) {
  memory bytes = random_bytes(count * 8);
  for (int dtype = nibble_float32; dtype <= nibble_float8_e5m2; dtype++) {
    const void *source = (const char *)bytes.data + count * (8 - nibble_dtype_size(dtype));
    pair p = both(count);
    RUN(p, k->widen[dtype](source, out, count));
    expect_pair("widen", count, &p, 0);
  }
  release(&bytes);
}

static void check_narrow(size_t count) {
  memory x = random_floats(count, 100, 0);
  if (count > 5) ((float *)x.data)[1] = INFINITY, ((float *)x.data)[2] = NAN, ((float *)x.data)[4] = 1e-6f;
  for (int dtype = nibble_float16; dtype <= nibble_bfloat16; dtype++) {
    memory got = allocate(2 * count), wanted = allocate(2 * count);
    level_loops->narrow[dtype](x.data, got.data, count);
    plain_loops->narrow[dtype](x.data, wanted.data, count);
    pair p = both(count);
    nibble_widen(nibble_level(0), dtype, got.data, p.got.data, count);
    nibble_widen(nibble_level(0), dtype, wanted.data, p.wanted.data, count);
    expect_pair("narrow", count, &p, 0);
    release(&got), release(&wanted);
  }
  release(&x);
}

// MARK: Element by element

static void check_elements(size_t count) {
  memory a = random_floats(count, 1, 0), b = random_floats(count, 1, 0.5f);
  pair scaled = both(count), added = both(count), clipped = both_from(a.data, count), powers = both(count);
  RUN(scaled, k->scale(a.data, 1.7f, out, count));
  expect_pair("scale", count, &scaled, 0);
  RUN(added, k->add(a.data, b.data, 0.3f, out, count));
  expect_pair("add", count, &added, 1e-6);
  RUN(clipped, k->clip(out, 0.8f, count));
  expect_pair("clip", count, &clipped, 0);
  ((float *)a.data)[count / 2] = NAN;
  RUN(powers, k->exponentials(a.data, 1.5f, out, count));
  expect_pair("exponentials", count, &powers, 1e-6);
  expect("maximum", count, level_loops->maximum(a.data, count), plain_loops->maximum(a.data, count), 0);
  expect("maximum of none", 0, level_loops->maximum(a.data, 0), plain_loops->maximum(a.data, 0), 0);
  float last = ((float *)a.data)[count - 1];
  expect("find", count, (float)level_loops->find(a.data, last, count), (float)plain_loops->find(a.data, last, count), 0);
  expect("find none", count, (float)level_loops->find(a.data, 77, count), (float)count, 0);
  release(&a), release(&b);
}

static void check_activations(size_t count) {
  memory a = random_floats(count, 3, 0), b = random_floats(count, 1, 0);
  for (int32_t activation = nibble_identity; activation <= nibble_soft_cap; activation++) {
    pair p = both(count), gated = both(count);
    RUN(p, k->activate(activation, 5, a.data, out, count));
    expect_pair("activate", count, &p, 2e-6);
    RUN(gated, k->gate(activation, 5, a.data, b.data, out, count));
    expect_pair("gate", count, &gated, 5e-6);
  }
  release(&a), release(&b);
}

static void check_rows(size_t count) {
  memory x = random_floats(count, 1, 0.2f), weight = random_floats(count, 1, 0), bias = random_floats(count, 1, 0);
  expect("sum", count, level_loops->sum(x.data, count), plain_loops->sum(x.data, count), 1e-5 * (double)count);
  float squares = level_loops->square_sum(x.data, 0.1f, count);
  expect("square_sum", count, squares, plain_loops->square_sum(x.data, 0.1f, count), 1e-5 * (double)count);
  for (int parts = 0; parts < 8; parts++) {
    pair p = both(count);
    RUN(p, k->normalize(x.data, 0.1f, 1.3f, parts & 1 ? weight.data : NULL, parts & 2 ? bias.data : NULL,
                        parts & 4 ? bias.data : NULL, out, count));
    expect_pair("normalize", count, &p, 1e-6);
  }
  release(&x), release(&weight), release(&bias);
}

static void check_rotation(size_t half) {
  memory x = random_floats(2 * half, 1, 0), cosines = random_floats(half, 1, 0), sines = random_floats(half, 1, 0);
  pair halves = both_from(x.data, 2 * half), pairs = both_from(x.data, 2 * half);
  RUN(halves, k->rotate_halves(out, cosines.data, sines.data, half));
  expect_pair("rotate_halves", half, &halves, 1e-6);
  RUN(pairs, k->rotate_pairs(out, cosines.data, sines.data, half));
  expect_pair("rotate_pairs", half, &pairs, 1e-6);
  release(&x), release(&cosines), release(&sines);
}

// MARK: Attention

/// A block of keys or values.
static memory random_block(int dtype, size_t size) {
  memory floats = random_floats(KEYS * size, 1, 0), block = allocate(KEYS * size * nibble_dtype_size(dtype));
  nibble_narrow(nibble_level(0), dtype, floats.data, block.data, KEYS * size);
  release(&floats);
  return block;
}

/// Of rows of KEYS results, the first `count`: what stands behind them is hidden later.
static void expect_keys(const char *what, size_t rows, size_t count, pair *p) {
  for (size_t m = 0; m < rows; m++)
    for (size_t j = 0; j < count; j++)
      expect(what, rows, ((float *)p->got.data)[m * KEYS + j], ((float *)p->wanted.data)[m * KEYS + j], 1e-4);
  release(&p->got), release(&p->wanted);
}

static void check_direct(int dtype, size_t size, size_t rows, size_t count) {
  size_t padded = (rows + 7) / 8 * 8;
  memory block = random_block(dtype, size), start = random_floats(padded * size, 1, 0);
  memory queries = random_floats(padded * size, 1, 0);
  memory p = random_floats(padded * KEYS, 1, 0), correction = random_floats(padded, 0.1f, 1);
  pair scores = both(padded * KEYS), sums = both_from(start.data, rows * size);
  RUN(scores, attention->score_direct[dtype](queries.data, size, rows, block.data, block.data, size, count, out));
  expect_keys("score_direct", rows, count, &scores);
  RUN(sums, attention->accumulate_direct[dtype](p.data, rows, correction.data, block.data, block.data, size, count, out, size));
  expect_pair("accumulate_direct", rows, &sums, 1e-4);
  release(&block), release(&queries), release(&start), release(&p), release(&correction);
}

static void check_packed(int dtype, size_t size, size_t rows, size_t count) {
  size_t stride = (size + lane_padding - 1) / lane_padding * lane_padding, padded = (rows + 7) / 8 * 8;
  memory block = random_block(dtype, size), values = random_floats(KEYS * stride, 1, 0);
  memory queries = random_floats(padded * stride, 1, 0), start = random_floats(rows * stride, 1, 0);
  memory p = random_floats(padded * KEYS, 1, 0), correction = random_floats(padded, 0.1f, 1);
  pair packed = both(size * KEYS), scores = both(padded * KEYS), sums = both_from(start.data, rows * stride);
  memory keys = random_floats(size * KEYS, 1, 0);
  RUN(packed, attention->pack_keys[dtype](block.data, size, count, out));
  expect_keys("pack_keys", size, count, &packed);
  RUN(scores, attention->score_packed(queries.data, stride, rows, keys.data, size, out));
  expect_keys("score_packed", rows, KEYS, &scores);
  RUN(sums, attention->accumulate_packed(p.data, rows, correction.data, values.data, stride, count, out));
  expect_pair("accumulate_packed", rows, &sums, 1e-4);
  release(&block), release(&queries), release(&values), release(&p), release(&correction), release(&start), release(&keys);
}

static void check_softmax(size_t count) {
  memory scores = random_floats(KEYS, 2, 0);
  for (size_t j = count; j < KEYS; j++) ((float *)scores.data)[j] = -INFINITY;
  pair p = both(KEYS + 3);
  memcpy(p.got.data, scores.data, scores.size), memcpy(p.wanted.data, scores.data, scores.size);
  RUN(p, (out[KEYS] = -1, out[KEYS + 1] = 2, out[KEYS + 2] = attention->softmax_block(out, out + KEYS, out + KEYS + 1)));
  expect_pair("softmax_block", count, &p, 1e-5);
  release(&scores);
}

static void check_attention(void) {
  static const size_t sizes[] = {32, 64, 80, 128};
  for (int dtype = nibble_float32; dtype <= nibble_bfloat16; dtype++)
    for (size_t i = 0; i < COUNT(sizes); i++)
      for (size_t rows = 1; rows <= ROWS; rows++) {
        check_direct(dtype, sizes[i], rows, rows % 3 ? KEYS : 17);
        check_packed(dtype, sizes[i] - rows % 2 * 5, rows, rows % 3 ? KEYS : 17);
      }
  for (size_t count = 1; count <= KEYS; count++) check_softmax(count);
}

int main(int count, char **arguments) {
  require_levels(count, arguments);
  plain_loops = nibble_level(0)->elementwise, plain_attention = nibble_level(0)->attention;
  for (int i = 1; i < nibble_level_count(); i++) {
    const nibble_kernels *kernels = nibble_level(i);
    if (!nibble_level_is_supported(kernels)) continue;
    level = nibble_level_name(kernels), level_loops = kernels->elementwise, level_attention = kernels->attention;
    for (size_t j = 0; j < COUNT(counts); j++) {
      random_state = j + 1;
      check_widen(counts[j]), check_narrow(counts[j]), check_elements(counts[j]);
      check_activations(counts[j]), check_rows(counts[j]), check_rotation(counts[j]);
    }
    check_attention();
  }
  return summarize("innermost loops");
}
