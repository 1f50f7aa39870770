// The instruction-set independent part of the linear layers: workspace, tasks, the tiled layout.
#pragma STDC FP_CONTRACT OFF

#include "../include/nibble_linear.h"

#include <math.h>
#include <string.h>

#include "../formats/half.h"
#include "linear_kernels.h"
#include "../include/nibble_levels.h"
#include "../include/nibble_operations.h"

static const linear_kernels *kernels = &linear_reference;

void nibble_linear_select(uint32_t features) {
  kernels = &linear_reference;
#if defined(__x86_64__)
  if (features & NIBBLE_FEATURE_AVX2) kernels = &linear_avx2;
  if (features & NIBBLE_FEATURE_AVXVNNI) kernels = &linear_avxvnni;
  if (features & NIBBLE_FEATURE_AVX512) kernels = &linear_avx512;
  if (features & NIBBLE_FEATURE_AVX512 && features & NIBBLE_FEATURE_AVX512VNNI) kernels = &linear_avx512vnni;
  uint32_t bfloat = NIBBLE_FEATURE_AVX512VNNI | NIBBLE_FEATURE_AVX512VBMI | NIBBLE_FEATURE_AVX512BF16;
  if ((features & bfloat) != bfloat) return;
  // Intel's vdpbf16ps occupies both ports for two cycles: two float32 multiplications and additions in that time do twice the
  // work.
  if (!__builtin_cpu_is("intel")) kernels = &linear_avx512bf16;
  if (features & NIBBLE_FEATURE_AMX) kernels = &linear_amx;
#elif defined(__aarch64__)
  if (features & NIBBLE_FEATURE_NEON) kernels = &linear_neon;
  if (features & NIBBLE_FEATURE_DOTPROD) kernels = &linear_neon_dotprod;
  if (features & NIBBLE_FEATURE_DOTPROD && features & NIBBLE_FEATURE_I8MM) kernels = &linear_neon_i8mm;
#endif
}

static const linear_kernels *kernels_of(const nibble_linear_call *call) { return call->work.kernels; }

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

/// What one tile of a layer needs beside linear_scratch: its codes, where they have to be rearranged, and its plain scales,
/// where they are nested or have to be rearranged.
typedef struct {
  size_t codes, scales;
} tile_bytes;

static tile_bytes bytes_of_tile(const nibble_linear_call *call, const nibble_linear_layer *layer) {
  tile_bytes bytes = {0, 0};
  if (layer->kind != NIBBLE_WEIGHT_4BIT && layer->kind != NIBBLE_WEIGHT_4BIT_TILED) return bytes;
  bool rearranges = layer->kind == NIBBLE_WEIGHT_4BIT && linear_is_tiled(call, layer);
  if (rearranges) bytes.codes = linear_round_up(NIBBLE_TILE * call->K / 2, 64);
  // A tile may begin and end inside a block. Nested scales are decoded, then rearranged.
  size_t blocks = NIBBLE_TILE * call->K / layer->block_size + 2;
  if (rearranges || layer->scale_codes) bytes.scales = linear_round_up(2 * blocks * sizeof(float), 64);
  return bytes;
}

/// Tiles that are computed together.
static size_t tiles_at_a_time(const nibble_linear_call *call) {
  return call->T > FEW_ROWS && kernels_of(call)->many_rows ? TILE_GROUP : 1;
}

static size_t scratch_bytes(const nibble_linear_call *call) {
  size_t most = 0;
  for (size_t i = 0; i < call->layer_count; i++) {
    tile_bytes bytes = bytes_of_tile(call, &call->layers[i]);
    most = bytes.codes + bytes.scales > most ? bytes.codes + bytes.scales : most;
  }
  return sizeof(linear_scratch) + tiles_at_a_time(call) * most;
}

static void divide(nibble_linear_call *call, arena *arena, int threads) {
  const linear_kernels *kernels = kernels_of(call);
  size_t T = call->T, K = call->K;
  bool is_int8 = call->form == NIBBLE_INPUT_INT8, is_runs = call->form == NIBBLE_INPUT_INT8_RUNS;
  bool is_float = kernels->needs_input(call) && !is_int8 && !is_runs;
  bool has_outliers = is_int8 && call->threshold > 0;
  call->work.scratch = take(arena, (size_t)threads * scratch_bytes(call));
  call->work.rounded = take(arena, is_float || (is_int8 && call->rounds_to_half) ? T * K * sizeof(float) : 0);
  call->work.packed = take(arena, linear_round_up(T, ROW_PADDING) * linear_packed_stride(call) * kernels->packed_element(call));
  size_t sums = is_int8 ? T : is_runs ? T * (K / call->input_block) : 0;
  call->work.row_absmax = take(arena, sums * sizeof(float));
  call->work.row_sums = take(arena, sums * sizeof(int32_t));
  call->work.outlier_counts = take(arena, is_int8 ? T * sizeof(int32_t) : 0);
  call->work.outliers = take(arena, has_outliers ? T * K * sizeof(int32_t) : 0);
  call->work.column_flags = take(arena, has_outliers && call->shares_outlier_columns ? K : 0);
}

size_t nibble_linear_input_block(size_t K, size_t block_size) {
  if (!kernels->has_int8_runs || !nibble_can_tile_4bit(K, block_size)) return 0;
  return linear_smaller(block_size, LONGEST_RUN);
}

size_t nibble_linear_workspace(nibble_linear_call *call, int threads) {
  // One choice for the whole call, even if another is made meanwhile.
  call->work.kernels = kernels;
  if (call->form == NIBBLE_INPUT_INT8_RUNS && !kernels_of(call)->has_int8_runs) call->form = NIBBLE_INPUT_F32;
  nibble_linear_call copy = *call;
  arena counter = {NULL, 0};
  divide(&copy, &counter, threads);
  return counter.used;
}

void nibble_linear_bind(nibble_linear_call *call, void *workspace, int threads) {
  arena memory = {workspace, 0};
  divide(call, &memory, threads);
}

// MARK: Tasks

bool nibble_linear_needs_input(const nibble_linear_call *call) { return kernels_of(call)->needs_input(call); }

void nibble_linear_find_columns(nibble_linear_call *call) {
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

static size_t tiles_of(const nibble_linear_layer *layer) { return (layer->N + NIBBLE_TILE - 1) / NIBBLE_TILE; }

size_t nibble_linear_tiles(const nibble_linear_call *call) {
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
    // Up to where the first of the rows comes to another nested block.
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

/// A tile's nested scales in the order of the tiled layout. Lanes beyond the last row repeat it.
///
/// So that the memory does not rest meanwhile, this asks for what comes next: scales of the next tile, which hardware does not
/// foresee, and weights (`values`) that the kernel has not asked for yet.
static void decode_tile_scales(const nibble_linear_layer *layer, size_t first, size_t rows, size_t blocks, const char *values,
                               float *tiled) {
  prefetch(layer->scale_codes + first + NIBBLE_TILE * blocks, NIBBLE_TILE * blocks);
  for (size_t lane = 0; lane < NIBBLE_TILE; lane += 4) {
    size_t at[4];
    for (size_t i = 0; i < 4; i++) at[i] = first + linear_smaller(lane + i, rows - 1) * blocks;
    prefetch(values + PREFETCH_AHEAD + lane * 16 * blocks / 4, 16 * blocks);
    decode_four_rows(layer, at, blocks, tiled + lane);
  }
}

/// One tile of a 4-bit layer as the kernels want it: in tiles wherever that is possible, with plain scales.
static linear_scales unpack_tile(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile, char *codes,
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

/// Up to TILE_GROUP tiles of layer `i`, which are computed together for many rows.
static void compute_tiles(const nibble_linear_call *call, size_t i, size_t tile, size_t count, linear_scratch *scratch) {
  const linear_kernels *kernels = kernels_of(call);
  nibble_linear_layer layer = call->layers[i];
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
    kernels->many_rows(call, &layer, scales, tile, count, scratch);
  else
    kernels->tile(call, &layer, scales[0], tile, scratch);
}

void nibble_linear_task(void *context, size_t begin, size_t end, int thread) {
  const nibble_linear_call *call = context;
  linear_scratch *scratch = (linear_scratch *)(call->work.scratch + (size_t)thread * scratch_bytes(call));
  size_t first = 0, step = tiles_at_a_time(call);
  for (size_t i = 0; i < call->layer_count && first < end; i++) {
    size_t tiles = tiles_of(&call->layers[i]), from = begin > first ? begin - first : 0, to = linear_smaller(end - first, tiles);
    for (size_t tile = from; tile < to; tile += step) compute_tiles(call, i, tile, linear_smaller(step, to - tile), scratch);
    first += tiles;
  }
}

// MARK: From sums to results

static void store_results(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile, size_t first_row,
                          size_t rows, float *sums) {
  if (call->activation != nibble_identity) nibble_activate(call->activation, call->parameter, sums, sums, rows * NIBBLE_TILE);
  size_t column = layer->column + tile * NIBBLE_TILE, columns = linear_smaller(NIBBLE_TILE, layer->N - tile * NIBBLE_TILE);
  for (size_t i = 0; i < rows; i++) {
    size_t t = first_row + i;
    const float *y = sums + i * NIBBLE_TILE;
    float factor = call->row_scale ? call->scale * call->row_scale[t] : call->scale;
    float *out = call->output + t * call->output_stride + column;
    if (call->residual) {
      const float *residual = call->residual + t * call->residual_stride + column;
      for (size_t n = 0; n < columns; n++) out[n] = y[n] * factor + residual[n];
    } else {
      for (size_t n = 0; n < columns; n++) out[n] = y[n] * factor;
    }
  }
}

void linear_load_lanes(const float *values, const nibble_linear_layer *layer, size_t tile, float *lanes) {
  memset(lanes, 0, NIBBLE_TILE * sizeof(float));
  size_t columns = linear_smaller(NIBBLE_TILE, layer->N - tile * NIBBLE_TILE);
  if (values) memcpy(lanes, values + tile * NIBBLE_TILE, columns * sizeof(float));
}

void linear_finish(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile, size_t first_row, size_t rows,
                   float *sums) {
  bool is_rounded = call->form == NIBBLE_INPUT_F16 || call->form == NIBBLE_INPUT_BF16;
  int32_t dtype = call->form == NIBBLE_INPUT_F16 ? nibble_float16 : nibble_bfloat16;
  if (layer->bias) {
    float bias[NIBBLE_TILE];
    linear_load_lanes(layer->bias, layer, tile, bias);
    if (is_rounded) nibble_round_floats(bias, NIBBLE_TILE, dtype);
    for (size_t i = 0; i < rows; i++)
      for (size_t n = 0; n < NIBBLE_TILE; n++) sums[i * NIBBLE_TILE + n] += bias[n];
  }
  if (is_rounded) nibble_round_floats(sums, rows * NIBBLE_TILE, dtype);
  store_results(call, layer, tile, first_row, rows, sums);
}

/// Row t's outliers, in float32.
static void add_outliers(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile, size_t t,
                         const float *scales, float *y) {
  const float *x = call->x + t * call->K;
  const int32_t *outliers = call->work.outliers + t * call->K;
  size_t columns = linear_smaller(NIBBLE_TILE, layer->N - tile * NIBBLE_TILE);
  const int8_t *w = (const int8_t *)layer->values + tile * NIBBLE_TILE * call->K;
  for (size_t n = 0; n < columns; n++, w += call->K) {
    float sum = 0;
    for (int32_t i = 0; i < call->work.outlier_counts[t]; i++)
      sum += x[outliers[i]] * ((float)w[outliers[i]] * scales[n] * INT8_VALUE_SCALE);
    y[n] += sum;
  }
}

void linear_finish_int8(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile, size_t first_row,
                        size_t rows, float *sums) {
  float bias[NIBBLE_TILE], scales[NIBBLE_TILE];
  linear_load_lanes(layer->bias, layer, tile, bias);
  linear_load_lanes(layer->scales, layer, tile, scales);
  for (size_t i = 0; i < rows; i++) {
    float *y = sums + i * NIBBLE_TILE;
    if (call->rounds_to_half) {
      // The reference's product is a float16 to which the bias is added.
      nibble_round_floats(y, NIBBLE_TILE, nibble_float16);
      for (size_t n = 0; n < NIBBLE_TILE; n++) y[n] += bias[n];
      nibble_round_floats(y, NIBBLE_TILE, nibble_float16);
    }
    if (call->work.outlier_counts[first_row + i]) add_outliers(call, layer, tile, first_row + i, scales, y);
  }
  store_results(call, layer, tile, first_row, rows, sums);
}

// MARK: The tiled layout

enum { GROUP_COLUMNS = 8, GROUP_BYTES = 4 };

bool nibble_can_tile_4bit(size_t K, size_t block_size) { return K % GROUP_COLUMNS == 0 && block_size && K % block_size == 0; }

static void tile_codes(const uint8_t *codes, size_t N, size_t K, size_t tile, uint8_t *tiled) {
  size_t groups = K / GROUP_COLUMNS;
  for (size_t lane = 0; lane < NIBBLE_TILE; lane++) {
    size_t row = tile * NIBBLE_TILE + lane;
    uint8_t *to = tiled + (tile * groups * NIBBLE_TILE + lane) * GROUP_BYTES;
    for (size_t g = 0; g < groups; g++, to += NIBBLE_TILE * GROUP_BYTES) {
      if (row < N)
        memcpy(to, codes + (row * groups + g) * GROUP_BYTES, GROUP_BYTES);
      else
        memset(to, 0, GROUP_BYTES);
    }
  }
}

void nibble_tile_4bit(const uint8_t *codes, const float *scales, size_t N, size_t K, size_t block_size, size_t begin, size_t end,
                      uint8_t *tiled_codes, float *tiled_scales) {
  size_t blocks = K / block_size;
  for (size_t tile = begin; tile < end; tile++) {
    if (codes) tile_codes(codes, N, K, tile, tiled_codes);
    for (size_t lane = 0; scales && lane < NIBBLE_TILE; lane++) {
      size_t row = tile * NIBBLE_TILE + lane;
      for (size_t b = 0; b < blocks; b++)
        tiled_scales[(tile * blocks + b) * NIBBLE_TILE + lane] = row < N ? scales[row * blocks + b] : 0;
    }
  }
}

void nibble_untile_4bit(const uint8_t *tiled_codes, const float *tiled_scales, size_t N, size_t K, size_t block_size,
                        size_t begin, size_t end, uint8_t *codes, float *scales) {
  size_t groups = K / GROUP_COLUMNS, blocks = K / block_size;
  for (size_t tile = begin; tile < end; tile++) {
    for (size_t lane = 0; lane < NIBBLE_TILE && tile * NIBBLE_TILE + lane < N; lane++) {
      size_t row = tile * NIBBLE_TILE + lane;
      const uint8_t *from = tiled_codes + (tile * groups * NIBBLE_TILE + lane) * GROUP_BYTES;
      for (size_t g = 0; g < groups; g++, from += NIBBLE_TILE * GROUP_BYTES)
        memcpy(codes + (row * groups + g) * GROUP_BYTES, from, GROUP_BYTES);
      for (size_t b = 0; scales && b < blocks; b++)
        scales[row * blocks + b] = tiled_scales[(tile * blocks + b) * NIBBLE_TILE + lane];
    }
  }
}
