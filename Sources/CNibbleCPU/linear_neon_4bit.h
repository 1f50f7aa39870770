// 4-bit codes to floats on NEON: byte look-ups in the four tables of a codebook's bytes, and their interleaving.

typedef uint8x16x4_t codebook_vectors;

INLINE codebook_vectors load_codebook(const float *table) { return vld4q_u8((const uint8_t *)table); }

/// out[i]: the floats of codes 4i ..< 4i + 4.
INLINE void look_up_floats(codebook_vectors table, uint8x16_t codes, vec *out) {
  uint8x16_t a = vqtbl1q_u8(table.val[0], codes), b = vqtbl1q_u8(table.val[1], codes);
  uint8x16_t c = vqtbl1q_u8(table.val[2], codes), d = vqtbl1q_u8(table.val[3], codes);
  uint16x8_t ab0 = (uint16x8_t)vzip1q_u8(a, b), ab1 = (uint16x8_t)vzip2q_u8(a, b);
  uint16x8_t cd0 = (uint16x8_t)vzip1q_u8(c, d), cd1 = (uint16x8_t)vzip2q_u8(c, d);
  out[0] = (vec)vzip1q_u16(ab0, cd0);
  out[1] = (vec)vzip2q_u16(ab0, cd0);
  out[2] = (vec)vzip1q_u16(ab1, cd1);
  out[3] = (vec)vzip2q_u16(ab1, cd1);
}

/// A group's columns of four features, even ones first.
typedef struct {
  vec columns[GROUP];
} group_columns;

INLINE group_columns look_up_group(codebook_vectors table, ivec codes) {
  const uint8x16_t by_column = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  uint8x16_t packed = vqtbl1q_u8((uint8x16_t)codes, by_column);
  group_columns group;
  look_up_floats(table, vshrq_n_u8(packed, 4), group.columns);
  look_up_floats(table, vandq_u8(packed, vdupq_n_u8(15)), group.columns + GROUP / 2);
  return group;
}

INLINE vec column_of(const group_columns *group, const int j) { return group->columns[j % 2 * (GROUP / 2) + j / 2]; }
