// Linear layers at every level: workspace and tasks.
#pragma STDC FP_CONTRACT OFF

#include "../include/nibble_linear.h"

#include <math.h>
#include <string.h>

#include "../formats/half.h"
#include "../include/nibble_operations.h"
#include "../kernels.h"

static const linear_kernels *kernels_of(const nibble_linear_arguments *call) { return call->kernels->linear; }

// MARK: Workspace

/// Hands out pieces of workspace, or only adds up their sizes while `base` is NULL.
typedef struct {
  char *base;
  size_t used;
} arena;

static void *take(arena *arena, size_t bytes) {
  void *piece = arena->base ? arena->base + arena->used : NULL;
  arena->used += linear_round_up(bytes, 64);
  return piece;
}

/// What one tile of a layer needs beside linear_scratch: codes if they have to be rearranged, plain scales if they are coded
/// or have to be rearranged.
typedef struct {
  size_t codes, scales;
} tile_bytes;

static tile_bytes bytes_of_tile(const nibble_linear_arguments *call, const nibble_linear_layer *layer) {
  tile_bytes bytes = {0, 0};
  if (layer->kind != NIBBLE_WEIGHT_4BIT && layer->kind != NIBBLE_WEIGHT_4BIT_TILED) return bytes;
  bool rearranges = layer->kind == NIBBLE_WEIGHT_4BIT && linear_is_tiled(call, layer);
  if (rearranges) bytes.codes = linear_round_up(NIBBLE_TILE * call->K / 2, 64);
  // A tile may begin and end inside a block. Nested scales are decoded, then rearranged.
  size_t blocks = NIBBLE_TILE * call->K / layer->block_size + 2;
  if (rearranges || layer->scale_codes) bytes.scales = linear_round_up(2 * blocks * sizeof(float), 64);
  return bytes;
}

/// Most tiles that are computed together.
static size_t tiles_at_a_time(const nibble_linear_arguments *call) {
  return (call->T > GEMV_ROWS || call->batch_invariant) && kernels_of(call)->gemm ? TILE_GROUP : 1;
}

static size_t scratch_bytes(const nibble_linear_arguments *call) {
  size_t most = 0;
  for (size_t i = 0; i < call->layer_count; i++) {
    tile_bytes bytes = bytes_of_tile(call, &call->layers[i]);
    most = bytes.codes + bytes.scales > most ? bytes.codes + bytes.scales : most;
  }
  return sizeof(linear_scratch) + tiles_at_a_time(call) * most;
}

static void divide_input(nibble_linear_arguments *call, arena *arena) {
  const linear_kernels *kernels = kernels_of(call);
  size_t T = call->T, K = call->K;
  bool is_int8 = call->form == NIBBLE_INPUT_INT8, is_runs = call->form == NIBBLE_INPUT_INT8_RUNS;
  bool is_float = kernels->needs_input(call) && !is_int8 && !is_runs;
  bool has_outliers = is_int8 && call->threshold > 0;
  call->work.rounded =
      take(arena, is_float || (is_int8 && call->rounds_to_half) ? linear_round_up(T, FEW_PADDING) * K * sizeof(float) : 0);
  call->work.packed = take(arena, linear_round_up(T, ROW_PADDING) * linear_packed_stride(call) * kernels->packed_element(call));
  size_t sums = is_int8 ? T : is_runs ? T * (K / call->input_block) : 0;
  call->work.row_absmax = take(arena, sums * sizeof(float));
  call->work.row_sums = take(arena, sums * sizeof(int32_t));
  call->work.outlier_counts = take(arena, is_int8 ? T * sizeof(int32_t) : 0);
  call->work.outliers = take(arena, has_outliers ? T * K * sizeof(int32_t) : 0);
  call->work.column_flags = take(arena, has_outliers && call->shares_outlier_columns ? K : 0);
  call->work.low_rank = take(arena, T * call->ranks * sizeof(float));
}

static void divide(nibble_linear_arguments *call, arena *arena, int threads) {
  call->work.scratch_bytes = scratch_bytes(call);
  call->work.scratch = take(arena, (size_t)threads * call->work.scratch_bytes);
  divide_input(call, arena);
}

/// The calls share the threads' scratch.
static void divide_batch(nibble_linear_batch *batch, arena *arena, int threads) {
  size_t most = 0;
  for (size_t i = 0; i < batch->count; i++) {
    size_t bytes = scratch_bytes(&batch->calls[i]);
    most = bytes > most ? bytes : most;
  }
  char *scratch = take(arena, (size_t)threads * most);
  for (size_t i = 0; i < batch->count; i++) {
    batch->calls[i].work.scratch = scratch;
    batch->calls[i].work.scratch_bytes = most;
    divide_input(&batch->calls[i], arena);
  }
}

size_t nibble_linear_input_block(const nibble_kernels *kernels, size_t K, size_t block_size) {
  if (!kernels->linear->has_int8_runs || !nibble_can_tile_4bit(K, block_size)) return 0;
  return linear_smaller(block_size, LONGEST_RUN);
}

static void choose_form(nibble_linear_arguments *call) {
  if (call->form == NIBBLE_INPUT_INT8_RUNS && !kernels_of(call)->has_int8_runs) call->form = NIBBLE_INPUT_F32;
}

size_t nibble_linear_workspace(nibble_linear_arguments *call, int threads) {
  choose_form(call);
  nibble_linear_arguments copy = *call;
  arena counter = {NULL, 0};
  divide(&copy, &counter, threads);
  return counter.used;
}

void nibble_linear_bind(nibble_linear_arguments *call, void *workspace, int threads) {
  arena memory = {workspace, 0};
  divide(call, &memory, threads);
}

size_t nibble_linear_batch_workspace(nibble_linear_batch *batch, int threads) {
  for (size_t i = 0; i < batch->count; i++) choose_form(&batch->calls[i]);
  arena counter = {NULL, 0};
  divide_batch(batch, &counter, threads);
  return counter.used;
}

void nibble_linear_batch_bind(nibble_linear_batch *batch, void *workspace, int threads) {
  arena memory = {workspace, 0};
  divide_batch(batch, &memory, threads);
}

// MARK: Tasks

bool nibble_linear_needs_input(const nibble_linear_arguments *call) { return kernels_of(call)->needs_input(call); }

void nibble_linear_find_columns(nibble_linear_arguments *call) {
  if (call->form != NIBBLE_INPUT_INT8 || !(call->threshold > 0) || !call->shares_outlier_columns) return;
  uint8_t *flags = call->work.column_flags;
  memset(flags, 0, call->K);
  for (size_t t = 0; t < call->T; t++) {
    const float *x = call->x + t * call->K;
    for (size_t k = 0; k < call->K; k++) {
      float value = call->rounds_to_half ? half_to_float(float_to_half(x[k])) : x[k];
      flags[k] |= fabsf(value) >= call->threshold;
    }
  }
}

void nibble_linear_input_task(void *context, size_t begin, size_t end, int thread) {
  (void)thread;
  kernels_of(context)->prepare_input(context, begin, end);
}

static size_t rank_units_of(const nibble_linear_layer *layer) { return layer->low_rank.ranks / RANK_UNIT; }

size_t nibble_linear_rank_units(const nibble_linear_arguments *call) {
  size_t units = 0;
  for (size_t i = 0; i < call->layer_count; i++) units += rank_units_of(&call->layers[i]);
  return units;
}

void nibble_linear_rank_task(void *context, size_t begin, size_t end, int thread) {
  (void)thread;
  const nibble_linear_arguments *call = context;
  size_t first = 0;
  for (size_t i = 0; i < call->layer_count && first < end; i++) {
    const nibble_linear_layer *layer = &call->layers[i];
    size_t units = rank_units_of(layer), from = begin > first ? begin - first : 0, to = linear_smaller(end - first, units);
    for (size_t unit = from; unit < to; unit++) kernels_of(call)->shrink(call, layer, unit);
    first += units;
  }
}

static size_t tiles_of(const nibble_linear_layer *layer) { return (layer->N + NIBBLE_TILE - 1) / NIBBLE_TILE; }

size_t nibble_linear_tiles(const nibble_linear_arguments *call) {
  size_t tiles = 0;
  for (size_t i = 0; i < call->layer_count; i++) tiles += tiles_of(&call->layers[i]);
  return tiles;
}

static void prefetch(const void *memory, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)memory + i);
}

/// The nested scales of four rows, whose codes begin at `at`: decoded as nibble_dequantize_scales does, NIBBLE_TILE apart.
static void decode_four_rows(const nibble_linear_layer *layer, const size_t *at, size_t blocks, float *tiled) {
  enum { NESTED_BLOCK = 256 };
  typedef float four __attribute__((vector_size(16)));
  const float *map = nibble_dynamic_map(), *absmax = layer->nested_absmax;
  const uint8_t *a = layer->scale_codes + at[0], *b = layer->scale_codes + at[1], *c = layer->scale_codes + at[2],
                *d = layer->scale_codes + at[3];
  four offset = layer->nested_offset - (four){};
  for (size_t block = 0; block < blocks;) {
    // Up to where the first of the four rows enters another nested block.
    size_t end = blocks;
    four factor;
    for (int i = 0; i < 4; i++) {
      factor[i] = absmax[(at[i] + block) / NESTED_BLOCK];
      end = linear_smaller(end, block + NESTED_BLOCK - (at[i] + block) % NESTED_BLOCK);
    }
    for (; block < end; block++) {
      four values = {map[a[block]], map[b[block]], map[c[block]], map[d[block]]};
      values = values * factor + offset;
      memcpy(tiled + block * NIBBLE_TILE, &values, sizeof values);
    }
  }
}

typedef uint8_t sixteen_bytes __attribute__((vector_size(16)));
typedef uint32_t sixteen_words __attribute__((vector_size(64)));

/// Transposes 16 vectors of 16 bytes: each of four rounds interleaves the first half of the vectors with the second.
static void transpose_bytes(sixteen_bytes v[16]) {
  for (int round = 0; round < 4; round++) {
    sixteen_bytes next[16];
    for (int i = 0; i < 8; i++) {
      next[2 * i] = __builtin_shufflevector(v[i], v[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      next[2 * i + 1] = __builtin_shufflevector(v[i], v[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    memcpy(v, next, sizeof next);
  }
}

/// The powers of two of sixteen rows, whose exponents begin at `at`, in blocks `begin ..< begin + count`, up to 16.
static void decode_exponents(const nibble_linear_layer *layer, const size_t *at, size_t begin, size_t count, float *tiled) {
  sixteen_bytes rows[NIBBLE_TILE] = {};
  for (size_t i = 0; i < NIBBLE_TILE; i++) memcpy(&rows[i], layer->scale_codes + at[i] + begin, count);
  transpose_bytes(rows);
  for (size_t block = 0; block < count; block++) {
    sixteen_words exponents = __builtin_convertvector(rows[block], sixteen_words);
    sixteen_words powers = exponents << 23 | ((sixteen_words)(exponents == 0) & 0x400000);
    memcpy(tiled + (begin + block) * NIBBLE_TILE, &powers, sizeof powers);
  }
}

/// A tile's nested scales, or powers of two, in the order of the tiled layout. Lanes beyond the last row repeat it.
///
/// Keeps the memory busy meanwhile: prefetches the scales of the next tile, which hardware does not foresee, and weights
/// (`values`) that the kernel has not prefetched yet.
static void decode_tile_scales(const nibble_linear_layer *layer, size_t first, size_t rows, size_t blocks, const char *values,
                               float *tiled) {
  prefetch(layer->scale_codes + first + NIBBLE_TILE * blocks, NIBBLE_TILE * blocks);
  if (!layer->nested_absmax) {
    size_t at[NIBBLE_TILE];
    for (size_t lane = 0; lane < NIBBLE_TILE; lane++) at[lane] = first + linear_smaller(lane, rows - 1) * blocks;
    prefetch(values + PREFETCH_AHEAD, 64 * blocks / 4);
    size_t begin = 0;
    for (; begin + 16 <= blocks; begin += 16) decode_exponents(layer, at, begin, 16, tiled);
    if (begin < blocks) decode_exponents(layer, at, begin, blocks - begin, tiled);
    return;
  }
  for (size_t lane = 0; lane < NIBBLE_TILE; lane += 4) {
    size_t at[4];
    for (size_t i = 0; i < 4; i++) at[i] = first + linear_smaller(lane + i, rows - 1) * blocks;
    prefetch(values + PREFETCH_AHEAD + lane * 16 * blocks / 4, 16 * blocks);
    decode_four_rows(layer, at, blocks, tiled + lane);
  }
}

/// Brings one tile of a 4-bit layer into the form the kernels want, tiled wherever possible, and returns its plain scales.
static linear_scales unpack_tile(const nibble_linear_arguments *call, const nibble_linear_layer *layer, size_t tile, char *codes,
                                 char *memory) {
  size_t K = call->K, block_size = layer->block_size, first_row = tile * NIBBLE_TILE;
  size_t rows = linear_smaller(NIBBLE_TILE, layer->N - first_row);
  size_t first = first_row * K / block_size, end = ((first_row + rows) * K + block_size - 1) / block_size;
  tile_bytes bytes = bytes_of_tile(call, layer);
  float *plain = (float *)memory, *tiled = plain + bytes.scales / sizeof(float) / 2;
  linear_scales scales = {layer->scales, 0};
  if (layer->kind == NIBBLE_WEIGHT_4BIT_TILED && layer->scale_codes) {
    decode_tile_scales(layer, first, rows, K / block_size, (const char *)layer->values + first_row * K / 2, tiled);
    return (linear_scales){tiled, first};
  }
  if (layer->scale_codes) {
    nibble_dequantize_scales(layer->scale_codes, layer->nested_absmax, layer->nested_offset, first, end - first, plain);
    scales = (linear_scales){plain, first};
  }
  if (bytes.codes > 0) {
    nibble_tile_4bit((const uint8_t *)layer->values + first_row * K / 2, scales.scales + (first - scales.first), rows, K,
                     block_size, 0, 1, (uint8_t *)codes, tiled);
    return (linear_scales){tiled, first};
  }
  return scales;
}

/// Computes tiles `tile ..< tile + count` of layer `i`: one for GEMV, up to TILE_GROUP for GEMM.
///
/// - `ahead`: the tile's low-rank sums, or NULL.
static void compute_tiles(const nibble_linear_arguments *call, size_t i, size_t tile, size_t count, const float *ahead,
                          linear_scratch *scratch) {
  const linear_kernels *kernels = kernels_of(call);
  nibble_linear_layer layer = call->layers[i];
  layer.low_rank.ahead = ahead;
  linear_scales scales[TILE_GROUP] = {};
  tile_bytes bytes = bytes_of_tile(call, &layer);
  if (layer.kind == NIBBLE_WEIGHT_4BIT || layer.kind == NIBBLE_WEIGHT_4BIT_TILED) {
    char *codes = (char *)(scratch + 1), *plain = codes + count * bytes.codes;
    for (size_t j = 0; j < count; j++)
      scales[j] = unpack_tile(call, &call->layers[i], tile + j, codes + j * bytes.codes, plain + j * bytes.scales);
    if (bytes.codes > 0) {
      layer.kind = NIBBLE_WEIGHT_4BIT_TILED;
      layer.values = codes - tile * bytes.codes;
    }
  }
  if (tiles_at_a_time(call) > 1)
    kernels->gemm(call, &layer, scales, tile, count, scratch);
  else
    kernels->gemv(call, &layer, scales[0], tile, scratch);
}

/// Whether a layer's low-rank sums are made before its products.
static bool expands_ahead(const nibble_linear_arguments *call, const nibble_low_rank *low) {
  return low->ranks > 0 && !low->biases && !low->gains && tiles_at_a_time(call) == 1 && call->T <= GEMV_ROWS &&
         kernels_of(call)->expand_ahead;
}

void nibble_linear_task(void *context, size_t begin, size_t end, int thread) {
  const nibble_linear_arguments *call = context;
  linear_scratch *scratch = (linear_scratch *)(call->work.scratch + (size_t)thread * call->work.scratch_bytes);
  size_t first = 0, step = tiles_at_a_time(call);
  for (size_t i = 0; i < call->layer_count && first < end; i++) {
    size_t tiles = tiles_of(&call->layers[i]), from = begin > first ? begin - first : 0, to = linear_smaller(end - first, tiles);
    bool is_ahead = expands_ahead(call, &call->layers[i].low_rank);
    float *ahead = scratch->group_sums[0];
    for (size_t tile = from; tile < to; tile += step) {
      size_t place = (tile - from) % TILES_AHEAD;
      if (is_ahead && place == 0)
        kernels_of(call)->expand_ahead(call, &call->layers[i], tile, linear_smaller(TILES_AHEAD, to - tile), ahead);
      compute_tiles(call, i, tile, linear_smaller(step, to - tile), is_ahead ? ahead + place * call->T * NIBBLE_TILE : NULL,
                    scratch);
    }
    first += tiles;
  }
}

// MARK: Batches

static size_t input_rows(const nibble_linear_arguments *call) { return nibble_linear_needs_input(call) ? call->T : 0; }

size_t nibble_linear_batch_rows(const nibble_linear_batch *batch) {
  size_t rows = 0;
  for (size_t i = 0; i < batch->count; i++) rows += input_rows(&batch->calls[i]);
  return rows;
}

size_t nibble_linear_batch_tiles(const nibble_linear_batch *batch) {
  size_t tiles = 0;
  for (size_t i = 0; i < batch->count; i++) tiles += nibble_linear_tiles(&batch->calls[i]);
  return tiles;
}

void nibble_linear_batch_input_task(void *context, size_t begin, size_t end, int thread) {
  const nibble_linear_batch *batch = context;
  for (size_t i = 0, first = 0; i < batch->count && first < end; i++) {
    size_t rows = input_rows(&batch->calls[i]);
    size_t from = begin > first ? begin - first : 0, to = linear_smaller(end - first, rows);
    if (from < to) nibble_linear_input_task(&batch->calls[i], from, to, thread);
    first += rows;
  }
}

void nibble_linear_batch_task(void *context, size_t begin, size_t end, int thread) {
  const nibble_linear_batch *batch = context;
  for (size_t i = 0, first = 0; i < batch->count && first < end; i++) {
    size_t tiles = nibble_linear_tiles(&batch->calls[i]);
    size_t from = begin > first ? begin - first : 0, to = linear_smaller(end - first, tiles);
    if (from < to) nibble_linear_task(&batch->calls[i], from, to, thread);
    first += tiles;
  }
}
