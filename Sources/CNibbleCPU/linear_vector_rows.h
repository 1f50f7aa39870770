// Many rows: bound by arithmetic. The blocking that the products of all forms share.
//
// The input is arranged as [chunk of K][block of rows][column of the chunk, row of the block]. A group of tiles walks the
// chunks together: a chunk of the input stays in the second-level cache while each tile of the group in turn unpacks its
// weights of the chunk into a panel [column, 16] that stays in the first-level cache, and multiplies it with all blocks.

/// Where column k of row t stands among arranged elements, when chunks are `chunk` columns, blocks `height` rows and rows padded
/// to K columns; the next column of the row stands `*step` elements further.
INLINE size_t arranged_place(const nibble_linear_call *call, size_t K, size_t chunk, size_t height, size_t t, size_t k, size_t *step) {
  size_t start = k / chunk * chunk, depth = linear_smaller(chunk, K - start), first;
  *step = block_rows(call, t, height, &first);
  return start * call->T + first * depth + (k - start) * *step + (t - first);
}

/// Rows whose sums are kept at a time: as even as possible, whole blocks but for the last.
static size_t rows_at_a_time(const nibble_linear_call *call) {
  size_t parts = (call->T + ROW_BLOCK - 1) / ROW_BLOCK;
  return linear_round_up((call->T + parts - 1) / parts, ROW_STEP);
}
