// The instruction-set independent part of the linear layers: workspace, tasks, the tiled layout.
#include "nibble_linear.h"

#include <math.h>
#include <string.h>

#include "half.h"
#include "linear_kernels.h"
#include "nibble_dispatch.h"

static const linear_kernels *kernels = &linear_reference;

void nibble_linear_select(uint32_t features) {
  kernels = &linear_reference;
#if defined(__x86_64__) && 0
  if (features & NIBBLE_FEATURE_AVX2) kernels = &linear_avx2;
  if (features & NIBBLE_FEATURE_AVXVNNI) kernels = &linear_avxvnni;
  if (features & NIBBLE_FEATURE_AVX512) kernels = &linear_avx512;
  if (features & NIBBLE_FEATURE_AVX512 && features & NIBBLE_FEATURE_AVX512VNNI) kernels = &linear_avx512vnni;
  if (features & NIBBLE_FEATURE_AVX512VNNI && features & NIBBLE_FEATURE_AVX512VBMI && features & NIBBLE_FEATURE_AVX512BF16)
    kernels = &linear_avx512bf16;
#endif
}

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

/// Scales of one tile of the widest 4-bit layer, where its scales are nested.
static size_t nested_scale_bytes(const nibble_linear_call *call) {
  size_t most = 0;
  for (size_t i = 0; i < call->layer_count; i++) {
    const nibble_linear_layer *layer = &call->layers[i];
    if (!layer->scale_codes) continue;
    // A tile of a canonical weight may begin and end inside a block.
    size_t blocks = NIBBLE_TILE * call->K / layer->block_size + 2;
    most = blocks > most ? blocks : most;
  }
  return linear_round_up(most * sizeof(float), 64);
}

static size_t scratch_bytes(const nibble_linear_call *call) { return sizeof(linear_scratch) + nested_scale_bytes(call); }

static void divide(nibble_linear_call *call, arena *arena, int threads) {
  size_t T = call->T, K = call->K;
  bool is_rounded = call->form == NIBBLE_INPUT_F16 || call->form == NIBBLE_INPUT_BF16, is_int8 = call->form == NIBBLE_INPUT_INT8;
  bool has_outliers = is_int8 && call->threshold > 0;
  call->work.scratch = take(arena, (size_t)threads * scratch_bytes(call));
  call->work.rounded = take(arena, is_rounded ? T * K * sizeof(float) : 0);
  call->work.packed = take(arena, T * linear_packed_stride(call) * kernels->packed_element(call->form));
  call->work.row_absmax = take(arena, is_int8 ? T * sizeof(float) : 0);
  call->work.row_sums = take(arena, is_int8 ? T * sizeof(int32_t) : 0);
  call->work.outlier_counts = take(arena, is_int8 ? T * sizeof(int32_t) : 0);
  call->work.outliers = take(arena, has_outliers ? T * K * sizeof(int32_t) : 0);
  call->work.column_flags = take(arena, has_outliers && call->shares_outlier_columns ? K : 0);
}

size_t nibble_linear_workspace(const nibble_linear_call *call, int threads) {
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

bool nibble_linear_needs_input(const nibble_linear_call *call) { return call->form != NIBBLE_INPUT_F32; }

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
  kernels->prepare_input(context, begin, end);
}

static size_t tiles_of(const nibble_linear_layer *layer) { return (layer->N + NIBBLE_TILE - 1) / NIBBLE_TILE; }

size_t nibble_linear_tiles(const nibble_linear_call *call) {
  size_t tiles = 0;
  for (size_t i = 0; i < call->layer_count; i++) tiles += tiles_of(&call->layers[i]);
  return tiles;
}

void nibble_linear_task(void *context, size_t begin, size_t end, int thread) {
  const nibble_linear_call *call = context;
  char *piece = call->work.scratch + (size_t)thread * scratch_bytes(call);
  float *nested_scales = (float *)(piece + sizeof(linear_scratch));
  size_t first = 0;
  for (size_t i = 0; i < call->layer_count && first < end; i++) {
    const nibble_linear_layer *layer = &call->layers[i];
    size_t tiles = tiles_of(layer);
    size_t from = begin > first ? begin - first : 0, to = end - first < tiles ? end - first : tiles;
    for (size_t tile = from; tile < to; tile++) kernels->tile(call, layer, tile, (linear_scratch *)piece, nested_scales);
    first += tiles;
  }
}

// MARK: The tiled layout

enum { GROUP_COLUMNS = 8, GROUP_BYTES = 4 };

bool nibble_can_tile_4bit(size_t K, size_t block_size) { return K % GROUP_COLUMNS == 0 && block_size && K % block_size == 0; }

void nibble_tile_4bit(const uint8_t *codes, const float *scales, size_t N, size_t K, size_t block_size, size_t begin, size_t end,
                      uint8_t *tiled_codes, float *tiled_scales) {
  size_t groups = K / GROUP_COLUMNS, blocks = K / block_size;
  for (size_t tile = begin; tile < end; tile++) {
    for (size_t lane = 0; lane < NIBBLE_TILE; lane++) {
      size_t row = tile * NIBBLE_TILE + lane;
      uint8_t *to = tiled_codes + (tile * groups * NIBBLE_TILE + lane) * GROUP_BYTES;
      for (size_t g = 0; g < groups; g++, to += NIBBLE_TILE * GROUP_BYTES) {
        if (row < N) memcpy(to, codes + (row * groups + g) * GROUP_BYTES, GROUP_BYTES);
        else memset(to, 0, GROUP_BYTES);
      }
      for (size_t b = 0; scales && b < blocks; b++)
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
