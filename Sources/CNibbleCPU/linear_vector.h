// Linear layers over vectors of LANES floats (4 for NEON, 8 or 16). Compiled once per instruction set by a file that turns its
// target on and defines LANES, TABLE (the table's name), 0 or 1 for VNNI (bytes are multiplied four a lane: vpdpbusd, NEON), BF16
// (vdpbf16ps) and AMX (tiles of int8 and bfloat16, with both others), and the operations on integers that they have: DOT_BYTES or
// MULTIPLY_PAIRS, LOOK_UP_BYTES, and NEON's MULTIPLY_SQUARES.
//
// Few rows (T ≤ 4) multiply weights as they are read: bound by memory. For many see linear_vector_rows.h: bound by arithmetic.
// Sums run over k in ascending order within a lane, so the two differ in rounding.

#pragma STDC FP_CONTRACT OFF

#include "codebooks.h"
#include "half.h"
#include "linear_kernels.h"
#include "nibble_operations.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef float vec8 __attribute__((vector_size(32)));

enum {
  /// Vectors that hold a tile's 16 features.
  VECTORS = NIBBLE_TILE / LANES,
  /// Input rows multiplied together: as many as leave registers for their sums.
  FLOAT_ROWS = LANES == 16 ? 12 : 6,
#ifdef MULTIPLY_SQUARES
  INT8_ROWS = 4,
  RUNS_ROWS = 4,
#else
  INT8_ROWS = FLOAT_ROWS,
  RUNS_ROWS = LANES == 16 ? 12
  : VNNI                  ? 6
                          : 4,
#endif
  /// What a weight becomes DOT_BYTES' first operand with, which is unsigned but for NEON's.
  BYTE_OFFSET = VNNI && LANES != 4 ? 128 : 0,
  /// A multiple of the height of all blocks.
  ROW_STEP = AMX ? 48 : 12,
  /// Most rows at a time: a chunk of them stays in the second-level cache.
  MOST_ROWS = LANES == 16 ? ROW_BLOCK : ROW_BLOCK / 2,
};

INLINE vec load(const float *x) {
  vec v;
  memcpy(&v, x, sizeof v);
  return v;
}
INLINE ivec load_integers(const void *x) {
  ivec v;
  memcpy(&v, x, sizeof v);
  return v;
}
INLINE void store(float *out, vec v) { memcpy(out, &v, sizeof v); }
INLINE void store_integers(void *out, ivec v) { memcpy(out, &v, sizeof v); }
INLINE vec splat(float x) { return x - (vec){}; }
INLINE ivec splat_integer(int32_t x) { return x - (ivec){}; }
INLINE vec fma_(vec a, vec b, vec c) { return __builtin_elementwise_fma(a, b, c); }

INLINE float largest_of(vec v) {
  float lanes[LANES], largest = 0;
  store(lanes, v);
  UNROLL for (int i = 0; i < LANES; i++) largest = lanes[i] > largest ? lanes[i] : largest;
  return largest;
}

/// The block of `height` rows that holds row t: where it begins, and how many rows it has.
INLINE size_t block_rows(const nibble_linear_call *call, size_t t, size_t height, size_t *first) {
  *first = t / height * height;
  return linear_smaller(height, call->T - *first);
}

#include "linear_vector_float.h"
#include "linear_vector_4bit.h"
#include "linear_vector_4bit_few.h"
#include "linear_vector_rows.h"
#if BF16
#include "linear_vector_rows_bf16.h"
#endif
#include "linear_vector_quantize.h"
#include "linear_vector_int8.h"
#include "linear_vector_rows_float.h"
#ifdef MULTIPLY_SQUARES
#include "linear_neon_squares.h"
#endif
#include "linear_vector_rows_int8.h"
#if AMX
#include "linear_vector_rows_amx.h"
#endif
#ifdef LOOK_UP_BYTES
#include "linear_vector_4bit_int8.h"
#include "linear_vector_rows_runs.h"
#endif

static bool has_few_rows(const nibble_linear_call *call) { return call->T <= FEW_ROWS; }

static bool needs_input(const nibble_linear_call *call) {
  return call->form != NIBBLE_INPUT_F32 || !has_few_rows(call) || wants_shuffled_input(call);
}

static size_t packed_element(const nibble_linear_call *call) {
  if (call->form == NIBBLE_INPUT_INT8) return INT8_ELEMENT;
  if (call->form == NIBBLE_INPUT_INT8_RUNS) return sizeof(int8_t);
  if (wants_shuffled_input(call)) return sizeof(float);
  return BF16 && call->form == NIBBLE_INPUT_BF16 ? sizeof(uint16_t) : 0;
}

static void prepare_input(const nibble_linear_call *call, size_t begin, size_t end) {
  for (size_t t = begin; t < end; t++) {
    if (call->form == NIBBLE_INPUT_INT8) {
      quantize_row(call, t);
      continue;
    }
#ifdef LOOK_UP_BYTES
    if (call->form == NIBBLE_INPUT_INT8_RUNS) {
      quantize_runs(call, t);
      continue;
    }
#endif
    if (has_few_rows(call)) {
      // Words are rounded as they are made.
      if (tiled_layers(call) < call->layer_count) round_row(call, t);
      if (wants_shuffled_input(call)) shuffle_row(call, t);
    } else {
      arrange_row(call, t);
    }
  }
}

static void tile(const nibble_linear_call *call, const nibble_linear_layer *layer, linear_scales scales, size_t tile,
                 linear_scratch *scratch) {
#ifdef LOOK_UP_BYTES
  if (call->form == NIBBLE_INPUT_INT8_RUNS) {
    four_bit_int8_few_rows(call, layer, scales, tile, scratch);
    return;
  }
#endif
  if (layer->kind == NIBBLE_WEIGHT_INT8)
    int8_few_rows_tile(call, layer, tile, scratch);
  else if (layer->kind == NIBBLE_WEIGHT_DENSE)
    dense_few_rows(call, layer, tile, scratch);
  else if (layer->kind == NIBBLE_WEIGHT_4BIT_TILED)
    four_bit_few_rows(call, layer, scales, tile, scratch);
  else
    panel_few_rows(call, layer, scales, tile, scratch);
}

static void many_rows(const nibble_linear_call *call, const nibble_linear_layer *layer, const linear_scales *scales, size_t tile,
                      size_t count, linear_scratch *scratch) {
#ifdef LOOK_UP_BYTES
  if (call->form == NIBBLE_INPUT_INT8_RUNS) {
    runs_many_rows(call, layer, scales, tile, count, scratch);
    return;
  }
#endif
#if AMX
  if (call->form == NIBBLE_INPUT_INT8 || call->form == NIBBLE_INPUT_BF16) {
    amx_many_rows(call, layer, scales, tile, count, scratch);
    return;
  }
#else
  if (layer->kind == NIBBLE_WEIGHT_INT8) {
    int8_many_rows(call, layer, tile, count, scratch);
    return;
  }
#endif
  float_many_rows(call, layer, scales, tile, count, scratch);
}

#ifdef LOOK_UP_BYTES
#define HAS_INT8_RUNS true
#else
#define HAS_INT8_RUNS false
#endif

const linear_kernels TABLE = {
    .needs_input = needs_input,
    .packed_element = packed_element,
    .prepare_input = prepare_input,
    .tile = tile,
    .many_rows = many_rows,
    .has_int8_runs = HAS_INT8_RUNS,
};
