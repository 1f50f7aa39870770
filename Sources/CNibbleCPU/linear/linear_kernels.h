// What linear.c and the kernels of each level share.
#pragma once

#include "../include/nibble_linear.h"

enum {
  /// Most input rows of a GEMV.
  GEMV_ROWS = 4,
  /// Depth of a panel of floats: GEMM walks K in chunks of this many columns.
  PANEL_DEPTH = 256,
  /// Most input rows whose sums a GEMM keeps at a time: a multiple of the heights of all blocks.
  ROW_BLOCK = 528,
  /// Most tiles that a GEMM multiplies with a chunk of the input before it goes on to the next chunk.
  TILE_GROUP = 8,
  /// Ranks of a unit of nibble_linear_rank_task. They lie far apart, so that the units that follow go on with long streams.
  RANK_UNIT = 4,
  /// Tiles whose low-rank sums a GEMV makes at a time: products are not interrupted, and B is read in one go.
  TILES_AHEAD = 64,
  /// Most columns of a run of NIBBLE_INPUT_INT8_RUNS.
  LONGEST_RUN = 64,
  /// Rows of packed input are padded with zeros to a multiple of this many elements, and their number to a multiple of
  /// ROW_PADDING.
  INPUT_PADDING = 64,
  ROW_PADDING = 16,
  /// Up to a level's FEW_ROWS, rows in floats are padded to a multiple of this.
  FEW_PADDING = 4,
  /// GEMV reads a dense or int8 tile in four streams, so many rows of weights apart: long runs for the prefetcher.
  QUARTER = NIBBLE_TILE / 4,
  /// GEMV prefetches this many bytes ahead, because the hardware stops at the end of a page.
  PREFETCH_AHEAD = 4096,
  /// The same for tiled scales, in floats.
  SCALES_AHEAD = 512,
};

/// One thread's workspace.
typedef struct {
  /// A tile's weights, unpacked: PANEL_DEPTH × 16 values.
  _Alignas(64) float panel[PANEL_DEPTH * NIBBLE_TILE];
  /// The same, row by row.
  _Alignas(64) float rows[NIBBLE_TILE * PANEL_DEPTH];
  /// Words of one or two tiles: two 16-bit values or four bytes each.
  _Alignas(64) uint32_t words[2][PANEL_DEPTH * NIBBLE_TILE];
  /// A tile's sums in a GEMV: float32 or int32.
  _Alignas(64) float sums[GEMV_ROWS * NIBBLE_TILE];
  /// Sums of each tile of a group in a GEMM.
  _Alignas(64) float group_sums[TILE_GROUP][ROW_BLOCK * NIBBLE_TILE];
} linear_scratch;

/// Plain scales of a 4-bit weight. `scales` begins with block `first`: 0, or a tile's first where its nested ones were decoded.
typedef struct {
  const float *scales;
  size_t first;
} linear_scales;

typedef struct {
  /// Whether the input has to be brought into another form, and the bytes of an element of `work.packed` then.
  bool (*needs_input)(const nibble_linear_arguments *call);
  size_t (*packed_element)(const nibble_linear_arguments *call);
  /// Brings rows `begin ..< end` of the input into their form.
  void (*prepare_input)(const nibble_linear_arguments *call, size_t begin, size_t end);
  /// Computes tile `tile` of `layer` for up to GEMV_ROWS rows, or for any number where `gemm` is NULL.
  void (*gemv)(const nibble_linear_arguments *call, const nibble_linear_layer *layer, linear_scales scales, size_t tile,
               linear_scratch *scratch);
  /// Computes tiles `tile ..< tile + count`, up to TILE_GROUP of them with scales for each, for any number of rows.
  void (*gemm)(const nibble_linear_arguments *call, const nibble_linear_layer *layer, const linear_scales *scales, size_t tile,
               size_t count, linear_scratch *scratch);
  /// Computes RANK_UNIT ranks of a layer's `work.low_rank`: unit, and those a quarter, a half and three quarters of R behind it.
  void (*shrink)(const nibble_linear_arguments *call, const nibble_linear_layer *layer, size_t unit);
  /// Adds low-rank sums to `rows` rows of sums [rows, 16], which include the layer's bias.
  void (*expand)(const nibble_linear_arguments *call, const nibble_linear_layer *layer, size_t tile, size_t first_row,
                 size_t rows, const float *bias, float *sums);
  /// Stores the low-rank sums of tiles `tile ..< tile + count` for a GEMV: [count, T, 16].
  void (*expand_ahead)(const nibble_linear_arguments *call, const nibble_linear_layer *layer, size_t tile, size_t count,
                       float *sums);
  /// Whether the level multiplies NIBBLE_INPUT_INT8_RUNS.
  bool has_int8_runs;
} linear_kernels;

extern const linear_kernels nibble_linear_generic;
#if defined(__x86_64__)
extern const linear_kernels nibble_linear_avx2, nibble_linear_avxvnni, nibble_linear_avx512, nibble_linear_avx512vnni,
    nibble_linear_avx512bf16, nibble_linear_amx;
#elif defined(__aarch64__)
extern const linear_kernels nibble_linear_neon, nibble_linear_neon_dotprod, nibble_linear_neon_i8mm;
#endif

static inline size_t linear_round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/// Elements between rows of packed input.
static inline size_t linear_packed_stride(const nibble_linear_arguments *call) { return linear_round_up(call->K, INPUT_PADDING); }

/// Whether the kernels see the layer in tiles: prepared, or rearranged tile by tile while it is read.
static inline bool linear_is_tiled(const nibble_linear_arguments *call, const nibble_linear_layer *layer) {
  return layer->kind == NIBBLE_WEIGHT_4BIT_TILED ||
         (layer->kind == NIBBLE_WEIGHT_4BIT && nibble_can_tile_4bit(call->K, layer->block_size));
}

/// The constant by which bitsandbytes multiplies int8 sums on CUDA: 1 / 127² as it rounds there.
#define INT8_PRODUCT_SCALE 0x1.040c2p-14f
/// 1 / 127
#define INT8_VALUE_SCALE 0x1.020408p-7f

static inline size_t linear_smaller(size_t a, size_t b) { return a < b ? a : b; }

/// What token t takes of an adapter.
static inline float linear_adapter_weight(const nibble_linear_arguments *call, size_t t, int32_t adapter) {
  int32_t slot = call->adapter_slots ? call->adapter_slots[t] : 0;
  return slot < 0 ? 0 : call->adapter_weights[(size_t)slot * call->adapter_stride + (size_t)adapter];
}

/// A tile's 16 of N values, zeros beyond N or where `values` is NULL.
void linear_load_lanes(const float *values, const nibble_linear_layer *layer, size_t tile, float *lanes);
/// The epilogue: applies bias, activation, scale and residual to `rows` rows of sums [rows, 16] and stores them.
void linear_finish(const nibble_linear_arguments *call, const nibble_linear_layer *layer, size_t tile, size_t first_row,
                   size_t rows, float *sums);
/// The epilogue of int8 products, which adds outliers. The products have been scaled and have their bias already, unless
/// they are rounded to float16 first.
void linear_finish_int8(const nibble_linear_arguments *call, const nibble_linear_layer *layer, size_t tile, size_t first_row,
                        size_t rows, float *sums);
