// What the linear layers are tested with: every kind of weight in every form of the input.
#pragma once

#include "cases.h"
#include "nibble_linear.h"

/// A kind of weight and the arithmetic it is multiplied in.
typedef struct {
  const char *name;
  nibble_weight_kind kind;
  int32_t dtype;
  nibble_codebook codebook;
  size_t block_size;
  bool is_nested;
  nibble_input_form form;
  bool half_precision;
  float threshold;
  /// int8: outliers of the call, activations rounded to float16 first
  bool is_shared;
  /// The largest error of a result, as a part of it or of the root mean square of all, whichever is larger; 0: none.
  double tolerance;
} format;

typedef struct {
  size_t T, N, K;
} shape;

/// What goes with a product.
typedef struct {
  bool has_bias, has_row_scale, has_residual, is_in_place;
  int32_t activation;
  float scale;
} epilogue;

// MARK: Layers

/// A layer with the memory it points to.
typedef struct {
  nibble_linear_layer layer;
  memory values, scales, scale_codes, nested_absmax, bias;
} owned_layer;

static void add_scales(owned_layer *owned, size_t blocks, float scale) {
  if (owned->scale_codes.size) return;
  owned->scales = random_floats(blocks, 0.1f * scale, scale);
  owned->layer.scales = owned->scales.data;
}

static void fill_dense(owned_layer *owned, const format *f, size_t count, float scale) {
  memory floats = random_floats(count, scale, 0);
  owned->values = allocate(count * nibble_dtype_size(f->dtype));
  nibble_narrow(nibble_level(0), f->dtype, floats.data, owned->values.data, count);
  release(&floats);
}

static void fill_4bit(owned_layer *owned, const format *f, size_t count, float scale) {
  size_t blocks = (count + f->block_size - 1) / f->block_size;
  owned->values = random_bytes((count + 1) / 2);
  if (f->is_nested) {
    owned->scale_codes = random_bytes(blocks);
    owned->nested_absmax = random_floats((blocks + 255) / 256, 0.05f * scale, 0.4f * scale);
    owned->layer.scale_codes = owned->scale_codes.data;
    owned->layer.nested_absmax = owned->nested_absmax.data;
    owned->layer.nested_offset = scale;
  }
  add_scales(owned, blocks, scale);
}

/// A layer in the canonical layout.
static owned_layer random_layer(const format *f, size_t N, size_t K, size_t column, bool has_bias) {
  owned_layer owned = {};
  float scale = 1 / sqrtf((float)K);
  owned.layer = (nibble_linear_layer){.kind = f->kind, .dtype = f->dtype, .codebook = f->codebook, .N = N, .column = column};
  owned.layer.block_size = f->block_size;
  if (f->kind == NIBBLE_WEIGHT_DENSE) {
    fill_dense(&owned, f, N * K, scale);
  } else if (f->kind == NIBBLE_WEIGHT_4BIT) {
    fill_4bit(&owned, f, N * K, scale);
  } else {
    owned.values = random_bytes(N * K);
    add_scales(&owned, N, 2 * scale);
  }
  owned.layer.values = owned.values.data;
  if (has_bias) owned.bias = random_floats(N, 1, 0), owned.layer.bias = owned.bias.data;
  return owned;
}

/// The same 4-bit layer in tiles; scales that are nested, and the bias, remain the other's.
static owned_layer tiled_layer(const nibble_linear_layer *from, size_t K) {
  owned_layer owned = {.layer = *from};
  size_t tiles = (from->N + NIBBLE_TILE - 1) / NIBBLE_TILE;
  owned.values = allocate(tiles * NIBBLE_TILE * K / 2);
  if (!from->scale_codes) owned.scales = allocate(tiles * NIBBLE_TILE * (K / from->block_size) * sizeof(float));
  nibble_tile_4bit(from->values, from->scales, from->N, K, from->block_size, 0, tiles, owned.values.data, owned.scales.data);
  owned.layer.kind = NIBBLE_WEIGHT_4BIT_TILED;
  owned.layer.values = owned.values.data;
  owned.layer.scales = owned.scales.data;
  return owned;
}

static void release_layer(owned_layer *owned) {
  memory *all[] = {&owned->values, &owned->scales, &owned->scale_codes, &owned->nested_absmax, &owned->bias};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) release(all[i]);
}
