// 4-bit weights in tiles times few rows of floats on NEON: four features at a time, whose columns lie in the lanes.

/// A block of four features: acc[4r + i] += feature i times row r, column by column.
INLINE void few_rows_block(const int rows, codebook_vectors table, const uint8_t *codes, const float *x, size_t stride,
                           size_t depth, vec *acc) {
  for (size_t k = 0; k < depth; k += GROUP, codes += 64) {
    uint8x16_t packed = vld1q_u8(codes);
    uint8x16_t nibbles[2] = {vshrq_n_u8(packed, 4), vandq_u8(packed, vdupq_n_u8(15))};
    UNROLL for (int parity = 0; parity < 2; parity++) {
      vec w[4];
      look_up_floats(table, nibbles[parity], w);
      UNROLL for (int r = 0; r < rows; r++) {
        vec xs = load(x + (size_t)r * stride + k + (size_t)parity * 4);
        UNROLL for (int i = 0; i < 4; i++) acc[4 * r + i] = fma_(w[i], xs, acc[4 * r + i]);
      }
    }
  }
}

INLINE void few_rows_float(const int rows, const uint8_t *codes, const float *scales, const nibble_linear_layer *layer,
                           const float *x, size_t stride, size_t K, float *sums) {
  codebook_vectors table = load_codebook(nibble_codebook_values(layer->codebook));
  vec totals[VECTORS][4 * ROWS_AT_ONCE] = {};
  for (size_t k = 0; k < K; k += layer->block_size, scales += NIBBLE_TILE)
    for (int v = 0; v < VECTORS; v++) {
      vec acc[4 * ROWS_AT_ONCE] = {}, scale = load(scales + 4 * v);
      few_rows_block(rows, table, codes + k * 8 + 16 * v, x + k, stride, layer->block_size, acc);
      UNROLL for (int i = 0; i < 4 * rows; i++) totals[v][i] = fma_(acc[i], splat(scale[i % 4]), totals[v][i]);
    }
  UNROLL for (int r = 0; r < rows; r++) for (int v = 0; v < VECTORS; v++) {
    const vec *t = totals[v] + 4 * r;
    float32x4_t first = vpaddq_f32((float32x4_t)t[0], (float32x4_t)t[1]),
                second = vpaddq_f32((float32x4_t)t[2], (float32x4_t)t[3]);
    store(sums + r * NIBBLE_TILE + 4 * v, (vec)vpaddq_f32(first, second));
  }
}
