// Many rows in AMX tiles: int8 layers (tdpbsud), and 4-bit ones that compute in bfloat16 (tdpbf16ps).
//
// A tile register holds 16 rows of 64 bytes. Two blocks of 16 input rows (registers 4, 5) times the panels of two tiles of the
// weight (6, 7) add to four blocks of sums (0 … 3), so that each register loaded is used twice.

enum { REGISTER_ROWS = 16, REGISTER_WORDS = 16 * 16, REGISTER_ROW_BYTES = 64 };

static void configure_registers(void) {
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } configuration = {.palette = 1};
  _Static_assert(sizeof configuration == 64, "the layout that ldtilecfg reads");
  for (int i = 0; i < 8; i++) {
    configuration.row_bytes[i] = REGISTER_ROW_BYTES;
    configuration.rows[i] = REGISTER_ROWS;
  }
  _tile_loadconfig(&configuration);
}

/// What a pair of tiles multiplies in one chunk.
typedef struct {
  const int32_t *x;
  const uint32_t *panels[2];
  float *sums[2];
  /// words of the input between blocks of 16 rows; steps of 16 words
  size_t block, steps;
} amx_chunk;

#define MULTIPLY_REGISTERS(is_int8, sums, x, w) \
  do {                                          \
    if (is_int8)                                \
      _tile_dpbsud(sums, x, w);                 \
    else                                        \
      _tile_dpbf16ps(sums, x, w);               \
  } while (0)

/// One or two blocks of rows from row r times the panels of one or two tiles.
INLINE void multiply_registers(const bool is_int8, const int blocks, const int tiles, const amx_chunk *chunk, size_t r) {
  float *left = chunk->sums[0] + r * NIBBLE_TILE, *right = chunk->sums[1] + r * NIBBLE_TILE;
  const int32_t *x = chunk->x + r / REGISTER_ROWS * chunk->block;
  _tile_loadd(0, left, REGISTER_ROW_BYTES);
  if (tiles == 2) _tile_loadd(1, right, REGISTER_ROW_BYTES);
  if (blocks == 2) _tile_loadd(2, left + REGISTER_WORDS, REGISTER_ROW_BYTES);
  if (blocks == 2 && tiles == 2) _tile_loadd(3, right + REGISTER_WORDS, REGISTER_ROW_BYTES);
  for (size_t k = 0; k < chunk->steps; k++) {
    _tile_loadd(4, x + k * REGISTER_WORDS, REGISTER_ROW_BYTES);
    _tile_loadd(6, chunk->panels[0] + k * REGISTER_WORDS, REGISTER_ROW_BYTES);
    MULTIPLY_REGISTERS(is_int8, 0, 4, 6);
    if (tiles == 2) {
      _tile_loadd(7, chunk->panels[1] + k * REGISTER_WORDS, REGISTER_ROW_BYTES);
      MULTIPLY_REGISTERS(is_int8, 1, 4, 7);
    }
    if (blocks == 2) {
      _tile_loadd(5, x + chunk->block + k * REGISTER_WORDS, REGISTER_ROW_BYTES);
      MULTIPLY_REGISTERS(is_int8, 2, 5, 6);
    }
    if (blocks == 2 && tiles == 2) MULTIPLY_REGISTERS(is_int8, 3, 5, 7);
  }
  _tile_stored(0, left, REGISTER_ROW_BYTES);
  if (tiles == 2) _tile_stored(1, right, REGISTER_ROW_BYTES);
  if (blocks == 2) _tile_stored(2, left + REGISTER_WORDS, REGISTER_ROW_BYTES);
  if (blocks == 2 && tiles == 2) _tile_stored(3, right + REGISTER_WORDS, REGISTER_ROW_BYTES);
}

/// All of `rows` rows; sums beyond them, up to a whole block, are filled with what does not matter.
INLINE void multiply_amx_chunk(const bool is_int8, const int tiles, const amx_chunk *chunk, size_t rows) {
  size_t r = 0;
  for (; r + REGISTER_ROWS < rows; r += 2 * REGISTER_ROWS) multiply_registers(is_int8, 2, tiles, chunk, r);
  if (r < rows) multiply_registers(is_int8, 1, tiles, chunk, r);
}

/// `depth` columns of a tile, padded with zeros to whole registers.
static void fill_words(const nibble_linear_call *call, const nibble_linear_layer *layer, linear_scales scales, size_t tile,
                       size_t start, size_t depth, size_t steps, linear_scratch *scratch, uint32_t *words) {
  size_t filled;
  if (call->form == NIBBLE_INPUT_INT8) {
    size_t first = tile * NIBBLE_TILE, features = linear_smaller(NIBBLE_TILE, layer->N - first);
    int8_panel((const int8_t *)layer->values + first * call->K + start, call->K, features, depth, words);
    filled = (depth + 3) / 4;
  } else {
    pairs_panel(call, layer, scales, tile, start, depth, scratch, words);
    filled = (depth + 1) / 2;
  }
  memset(words + filled * NIBBLE_TILE, 0, (steps * 16 - filled) * NIBBLE_TILE * sizeof *words);
}

static void multiply_amx(const nibble_linear_call *call, const nibble_linear_layer *layer, const linear_scales *scales,
                         size_t tile, size_t count, size_t t, size_t rows, size_t start, linear_scratch *scratch) {
  bool is_int8 = call->form == NIBBLE_INPUT_INT8;
  size_t columns = is_int8 ? 4 : 2, depth = linear_smaller(PANEL_DEPTH * columns, call->K - start);
  size_t words = linear_smaller(PANEL_DEPTH, (linear_packed_stride(call) - start) / columns);
  amx_chunk chunk = {.panels = {scratch->words[0], scratch->words[1]}, .block = words * REGISTER_ROWS, .steps = words / 16};
  chunk.x = (const int32_t *)call->work.packed + start / columns * linear_round_up(call->T, ROW_PADDING) + t * words;
  for (size_t i = 0; i < count; i += 2) {
    size_t tiles = linear_smaller(2, count - i);
    for (size_t j = 0; j < tiles; j++) {
      fill_words(call, layer, scales[i + j], tile + i + j, start, depth, chunk.steps, scratch, scratch->words[j]);
      chunk.sums[j] = scratch->group_sums[i + j];
    }
    if (tiles == 1) chunk.sums[1] = chunk.sums[0];
    if (is_int8 && tiles == 2)
      multiply_amx_chunk(true, 2, &chunk, rows);
    else if (is_int8)
      multiply_amx_chunk(true, 1, &chunk, rows);
    else if (tiles == 2)
      multiply_amx_chunk(false, 2, &chunk, rows);
    else
      multiply_amx_chunk(false, 1, &chunk, rows);
  }
}

static void amx_many_rows(const nibble_linear_call *call, const nibble_linear_layer *layer, const linear_scales *scales,
                          size_t tile, size_t count, linear_scratch *scratch) {
  size_t step = rows_at_a_time(call);
  bool is_int8 = call->form == NIBBLE_INPUT_INT8;
  configure_registers();
  for (size_t t = 0; t < call->T; t += step) {
    size_t rows = linear_smaller(step, call->T - t), padded = linear_round_up(rows, REGISTER_ROWS);
    for (size_t i = 0; i < count; i++) memset(scratch->group_sums[i], 0, padded * NIBBLE_TILE * sizeof(float));
    for (size_t start = 0; start < call->K; start += PANEL_DEPTH * (is_int8 ? 4 : 2))
      multiply_amx(call, layer, scales, tile, count, t, rows, start, scratch);
    for (size_t i = 0; i < count; i++) {
      float *sums = scratch->group_sums[i];
      if (is_int8) scale_sums(call, layer, tile + i, t, rows, sums);
      if (is_int8)
        linear_finish_int8(call, layer, tile + i, t, rows, sums);
      else
        linear_finish(call, layer, tile + i, t, rows, sums);
    }
  }
  _tile_release();
}
