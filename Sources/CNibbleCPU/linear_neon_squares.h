// smmla multiplies two rows of eight bytes with two others: two words of two rows with those of two features.

/// acc[r][n] += x(r) × w(n) over words of four columns as they are arranged for one at a time; returns how many it took: pairs,
/// if rows are.
INLINE size_t add_squares(const int rows, const int32_t *x, size_t step, const int32_t *panel, size_t count, ivec *acc) {
  if (rows % 2) return 0;
  int32x4_t squares[INT8_ROWS / 2 * 2 * VECTORS] = {};
  size_t k = 0;
  for (; k + 2 <= count; k += 2) {
    int32x4_t both[INT8_ROWS / 2];
    UNROLL for (int r = 0; r < rows / 2; r++) {
      int32x2_t first = vld1_s32(x + k * step + 2 * r), second = vld1_s32(x + (k + 1) * step + 2 * r);
      both[r] = vcombine_s32(vzip1_s32(first, second), vzip2_s32(first, second));
    }
    UNROLL for (int v = 0; v < VECTORS; v++) {
      int32x4_t first = vld1q_s32(panel + k * NIBBLE_TILE + 4 * v), second = vld1q_s32(panel + (k + 1) * NIBBLE_TILE + 4 * v);
      int32x4_t w[2] = {vzip1q_s32(first, second), vzip2q_s32(first, second)};
      UNROLL for (int r = 0; r < rows / 2; r++) UNROLL for (int i = 0; i < 2; i++) {
        int32x4_t *square = &squares[(r * VECTORS + v) * 2 + i];
        *square = MULTIPLY_SQUARES(*square, both[r], w[i]);
      }
    }
  }
  UNROLL for (int i = 0; i < rows / 2 * VECTORS; i++) {
    int64x2_t left = (int64x2_t)squares[2 * i], right = (int64x2_t)squares[2 * i + 1];
    ivec *upper = acc + i / VECTORS * 2 * VECTORS + i % VECTORS;
    upper[0] += (ivec)vzip1q_s64(left, right);
    upper[VECTORS] += (ivec)vzip2q_s64(left, right);
  }
  return k;
}
