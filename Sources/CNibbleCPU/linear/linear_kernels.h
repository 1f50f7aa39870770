// What linear.c and the kernels for each instruction set share.
#pragma once

#include "../include/nibble_linear.h"

enum {
  /// Depth of a panel of floats: K is walked in pieces of this many columns.
  PANEL_DEPTH = 256,
  /// Most input rows whose sums are kept at a time: a multiple of the heights of all blocks.
  ROW_BLOCK = 528,
  /// Most tiles that share the reading of such a chunk.
  TILE_GROUP = 8,
  /// Most columns of a run of NIBBLE_INPUT_INT8_RUNS.
  LONGEST_RUN = 64,
  /// Up to this many rows the input stays row by row, and weights are multiplied as they are read.
  FEW_ROWS = 4,
  /// Rows of packed input are padded with zeros to a multiple of this many elements.
  INPUT_PADDING = 64,
  /// Rows of weights that a tile is read in at a time, these many rows apart: four runs of memory, each as long as can be.
  QUARTER = NIBBLE_TILE / 4,
  /// Bytes between what a kernel for few rows reads and what it asks the memory for: hardware stops at the end of a page.
  PREFETCH_AHEAD = 4096,
  /// The same for scales in tiles, in floats.
  SCALES_AHEAD = 512,
  /// Packed input is padded to a multiple of this many rows.
  ROW_PADDING = 16,
};

/// A thread's workspace.
typedef struct {
  /// A tile's weights, unpacked: PANEL_DEPTH × 16 values.
  _Alignas(64) float panel[PANEL_DEPTH * NIBBLE_TILE];
  /// The same, row by row.
  _Alignas(64) float rows[NIBBLE_TILE * PANEL_DEPTH];
  /// Words of one or two tiles: pairs of 16-bit values, or four bytes.
  _Alignas(64) uint32_t words[2][PANEL_DEPTH * NIBBLE_TILE];
  /// Sums of a tile for few rows: float32 or int32.
  _Alignas(64) float sums[FEW_ROWS * NIBBLE_TILE];
  /// Sums of each tile of a group for up to ROW_BLOCK rows.
  _Alignas(64) float group_sums[TILE_GROUP][ROW_BLOCK * NIBBLE_TILE];
} linear_scratch;

/// The scales of a 4-bit weight, plain: where a tile's nested ones have been decoded, `scales` begins with block `first`.
typedef struct {
  const float *scales;
  size_t first;
} linear_scales;

typedef struct {
  /// Whether the input has to be brought into another form, and bytes of an element of `work.packed` then.
  bool (*needs_input)(const nibble_linear_call *call);
  size_t (*packed_element)(const nibble_linear_call *call);
  /// Brings rows `begin ..< end` of the input into their form.
  void (*prepare_input)(const nibble_linear_call *call, size_t begin, size_t end);
  /// Computes tile `tile` of `layer`: for up to FEW_ROWS rows, or for any number where `many_rows` is NULL.
  void (*tile)(const nibble_linear_call *call, const nibble_linear_layer *layer, linear_scales scales, size_t tile,
               linear_scratch *scratch);
  /// Computes tiles `tile ..< tile + count`, up to TILE_GROUP of them with scales for each, for more rows.
  void (*many_rows)(const nibble_linear_call *call, const nibble_linear_layer *layer, const linear_scales *scales, size_t tile,
                    size_t count, linear_scratch *scratch);
  /// Whether they know NIBBLE_INPUT_INT8_RUNS.
  bool has_int8_runs;
} linear_kernels;

extern const linear_kernels linear_reference;
#if defined(__x86_64__)
extern const linear_kernels linear_avx2, linear_avxvnni, linear_avx512, linear_avx512vnni, linear_avx512bf16, linear_amx;
#elif defined(__aarch64__)
extern const linear_kernels linear_neon, linear_neon_dotprod, linear_neon_i8mm;
#endif

static inline size_t linear_round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/// Elements between rows of packed input.
static inline size_t linear_packed_stride(const nibble_linear_call *call) { return linear_round_up(call->K, INPUT_PADDING); }

/// Whether the kernels see the layer in tiles: prepared, or rearranged tile by tile as it is read.
static inline bool linear_is_tiled(const nibble_linear_call *call, const nibble_linear_layer *layer) {
  return layer->kind == NIBBLE_WEIGHT_4BIT_TILED ||
         (layer->kind == NIBBLE_WEIGHT_4BIT && nibble_can_tile_4bit(call->K, layer->block_size));
}

/// The constant CUDA multiplies int8 sums with: 1 / 127² as it rounds there.
#define INT8_PRODUCT_SCALE 0x1.040c2p-14f
/// 1 / 127
#define INT8_VALUE_SCALE 0x1.020408p-7f

static inline size_t linear_smaller(size_t a, size_t b) { return a < b ? a : b; }

/// A tile's 16 of N values, zeros beyond N or where `values` is NULL.
void linear_load_lanes(const float *values, const nibble_linear_layer *layer, size_t tile, float *lanes);
/// bias, activation, scale and residual for `rows` rows of sums [rows, 16], then the output.
void linear_finish(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile, size_t first_row, size_t rows,
                   float *sums);
/// The same for int8 products that have been scaled and have their bias, unless they are rounded to float16 first; adds
/// outliers.
void linear_finish_int8(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile, size_t first_row,
                        size_t rows, float *sums);
