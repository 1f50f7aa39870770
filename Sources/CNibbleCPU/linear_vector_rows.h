// Many rows: bound by arithmetic. The blocking that the products of all forms share.
//
// The input is arranged as [chunk of K][block of rows][column of the chunk, row of the block]. A group of tiles walks the
// chunks together: a chunk of the input stays in the second-level cache while each tile of the group in turn unpacks its
// weights of the chunk into a panel [column, 16] that stays in the first-level cache, and multiplies it with all blocks.

/// Where column k of row t stands among arranged elements, when chunks are `chunk` columns, blocks `height` rows and rows padded
/// to K columns; the next column of the row stands `*step` elements further.
INLINE size_t arranged_place(const nibble_linear_call *call, size_t K, size_t chunk, size_t height, size_t t, size_t k,
                             size_t *step) {
  size_t start = k / chunk * chunk, depth = linear_smaller(chunk, K - start), first;
  *step = block_rows(call, t, height, &first);
  return start * call->T + first * depth + (k - start) * *step + (t - first);
}

/// Rows whose sums are kept at a time: as even as possible, whole blocks but for the last.
static size_t rows_at_a_time(const nibble_linear_call *call) {
  size_t parts = (call->T + MOST_ROWS - 1) / MOST_ROWS;
  return linear_round_up((call->T + parts - 1) / parts, ROW_STEP);
}

/// Words `first ..< first + count` of row t into their places among `words` a row. A word holds the columns that one instruction
/// multiplies and adds; chunks are of `chunk` words.
INLINE void arrange_words(const nibble_linear_call *call, size_t words, size_t chunk, size_t height, size_t t, size_t first,
                          const int32_t *values, size_t count) {
  int32_t *out = call->work.packed;
#if AMX
  // Tiles of 16 rows of 16 words: [chunk][block of 16 rows][words / 16, 16 rows, 16 words].
  size_t start = first / chunk * chunk, depth = linear_smaller(chunk, words - start), block = t / 16 * 16;
  out += start * linear_round_up(call->T, ROW_PADDING) + block * depth + (first - start) * 16 + (t - block) * 16;
  for (size_t i = 0; i < count; i += 16) memcpy(out + i * 16, values + i, 64);
  (void)height;
#else
  size_t step;
  out += arranged_place(call, words, chunk, height, t, first, &step);
  for (size_t i = 0; i < count; i++) out[i * step] = values[i];
#endif
}
