// What linear.c and the kernels for each instruction set share.
#pragma once

#include "nibble_linear.h"

enum {
  /// Depth of a panel: K is walked in pieces of this many columns.
  PANEL_DEPTH = 256,
  /// Input rows whose sums are kept at a time.
  ROW_BLOCK = 512,
  /// Rows of packed input are padded with zeros to a multiple of this many elements.
  INPUT_PADDING = 64,
};

/// A thread's workspace.
typedef struct {
  /// A tile's weights, unpacked: PANEL_DEPTH × 16 values.
  _Alignas(64) float panel[PANEL_DEPTH * NIBBLE_TILE];
  /// The same, row by row.
  _Alignas(64) float rows[NIBBLE_TILE * PANEL_DEPTH];
  /// Sums of up to ROW_BLOCK rows: float32 or int32.
  _Alignas(64) float sums[ROW_BLOCK * NIBBLE_TILE];
} linear_scratch;

typedef struct {
  /// Bytes of an element of packed input; 0 where the form needs none.
  size_t (*packed_element)(nibble_input_form form);
  /// Brings rows `begin ..< end` of the input into their form.
  void (*prepare_input)(const nibble_linear_call *call, size_t begin, size_t end);
  /// Computes tile `tile` of `layer` for all rows.
  void (*tile)(const nibble_linear_call *call, const nibble_linear_layer *layer, size_t tile, linear_scratch *scratch,
               float *nested_scales);
} linear_kernels;

extern const linear_kernels linear_reference;
#if defined(__x86_64__)
extern const linear_kernels linear_avx2, linear_avxvnni, linear_avx512, linear_avx512vnni, linear_avx512bf16;
#endif

static inline size_t linear_round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/// Elements between rows of packed input.
static inline size_t linear_packed_stride(const nibble_linear_call *call) { return linear_round_up(call->K, INPUT_PADDING); }

/// The constant CUDA multiplies int8 sums with: 1 / 127² as it rounds there.
#define INT8_PRODUCT_SCALE 0x1.040c2p-14f
/// 1 / 127
#define INT8_VALUE_SCALE 0x1.020408p-7f
