// Many rows of floats: dense weights, and 4-bit ones that compute in float32, or in a 16-bit type without instructions for it.

/// Row t, rounded, into its places.
static void arrange_row(const nibble_linear_call *call, size_t t) {
  size_t K = call->K;
  const float *x = call->x + t * K;
  float chunk[PANEL_DEPTH];
  for (size_t start = 0; start < K; start += PANEL_DEPTH) {
    size_t length = linear_smaller(PANEL_DEPTH, K - start), step;
    memcpy(chunk, x + start, length * sizeof(float));
    if (call->form != NIBBLE_INPUT_F32) nibble_round_floats(chunk, length, rounded_dtype(call->form));
#if BF16
    if (call->form == NIBBLE_INPUT_BF16) {
      arrange_bf16(call, t, start, length, chunk);
      continue;
    }
#endif
    float *out = call->work.rounded + arranged_place(call, K, PANEL_DEPTH, FLOAT_ROWS, t, start, &step);
    for (size_t k = 0; k < length; k++) out[k * step] = chunk[k];
  }
}

/// A block of up to FLOAT_ROWS rows, arranged as [depth, rows].
static void multiply_block(size_t rows, const float *x, const float *panel, size_t depth, float *sums) {
  if (rows == FLOAT_ROWS) {
    multiply_rows(FLOAT_ROWS, x, 1, FLOAT_ROWS, panel, depth, sums);
    return;
  }
  size_t r = 0;
  for (; r + 4 <= rows; r += 4) multiply_rows(4, x + r, 1, rows, panel, depth, sums + r * NIBBLE_TILE);
  for (; r + 2 <= rows; r += 2) multiply_rows(2, x + r, 1, rows, panel, depth, sums + r * NIBBLE_TILE);
  for (; r < rows; r++) multiply_rows(1, x + r, 1, rows, panel, depth, sums + r * NIBBLE_TILE);
}

/// The sums of rows `t ..< t + rows` with columns `start ..< start + depth` of a tile.
static void multiply_chunk(const nibble_linear_call *call, const nibble_linear_layer *layer, linear_scales scales, size_t tile,
                           size_t t, size_t rows, size_t start, size_t depth, linear_scratch *scratch, float *sums) {
#if BF16 && !AMX
  if (call->form == NIBBLE_INPUT_BF16) {
    multiply_bf16(call, layer, scales, tile, t, rows, start, depth, scratch, sums);
    return;
  }
#endif
  fill_panel(call, layer, scales, tile, start, depth, scratch);
  const float *x = call->work.rounded + start * call->T + t * depth;
  for (size_t r = 0; r < rows; r += FLOAT_ROWS)
    multiply_block(linear_smaller(FLOAT_ROWS, rows - r), x + r * depth, scratch->panel, depth, sums + r * NIBBLE_TILE);
}

static void float_many_rows(const nibble_linear_call *call, const nibble_linear_layer *layer, const linear_scales *scales,
                            size_t tile, size_t count, linear_scratch *scratch) {
  size_t step = rows_at_a_time(call);
  for (size_t t = 0; t < call->T; t += step) {
    size_t rows = linear_smaller(step, call->T - t);
    for (size_t i = 0; i < count; i++) memset(scratch->group_sums[i], 0, rows * NIBBLE_TILE * sizeof(float));
    for (size_t start = 0; start < call->K; start += PANEL_DEPTH) {
      size_t depth = linear_smaller(PANEL_DEPTH, call->K - start);
      for (size_t i = 0; i < count; i++)
        multiply_chunk(call, layer, scales[i], tile + i, t, rows, start, depth, scratch, scratch->group_sums[i]);
    }
    for (size_t i = 0; i < count; i++) linear_finish(call, layer, tile + i, t, rows, scratch->group_sums[i]);
  }
}
