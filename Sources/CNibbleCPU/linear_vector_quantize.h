// Activations to int8: rows against their absmax with outliers aside, and runs of columns against theirs.

enum {
  /// Columns that one instruction multiplies and adds, and bytes of a column.
  WORD_COLUMNS = VNNI ? 4 : 2,
  INT8_ELEMENT = 4 / WORD_COLUMNS,
  /// Columns that are quantized at a time.
  STEP = 64,
};

/// The largest |x| that is less than `limit`, and whether there are others.
static float largest_below(const float *x, size_t count, float limit, bool *found) {
  vec best = {};
  ivec beyond = {};
  float last[LANES] = {};
  for (size_t k = 0; k < count; k += LANES) {
    size_t left = count - k;
    if (left < LANES) memcpy(last, x + k, left * sizeof(float));
    vec size = (vec)((ivec)load(left < LANES ? last : x + k) & 0x7FFFFFFF);
    ivec is_outlier = size >= splat(limit);
    vec kept = (vec)((ivec)size & ~is_outlier);
    beyond |= is_outlier;
    best = (vec)(((ivec)kept & (kept > best)) | ((ivec)best & ~(kept > best)));
  }
  *found = __builtin_reduce_or(beyond) != 0;
  return largest_of(best);
}

/// Codes k ..< k + 64 of row t into their places.
static void arrange_codes(const nibble_linear_call *call, size_t t, size_t k, const int8_t *codes) {
  int32_t words[STEP / WORD_COLUMNS];
#if VNNI
  memcpy(words, codes, STEP);
#else
  for (size_t i = 0; i < STEP / 2; i++) words[i] = (int32_t)((uint16_t)codes[2 * i] | (uint32_t)codes[2 * i + 1] << 16);
#endif
  arrange_words(call, linear_packed_stride(call) / WORD_COLUMNS, PANEL_DEPTH, INT8_ROWS, t, k / WORD_COLUMNS, words,
                STEP / WORD_COLUMNS);
}

/// Codes k ..< k + 64 of row t in the order the products want. Few rows stay row by row.
static void place_codes(const nibble_linear_call *call, size_t t, size_t k, const int8_t *codes) {
  if (call->T > FEW_ROWS) {
    arrange_codes(call, t, k, codes);
    return;
  }
  char *out = (char *)call->work.packed + (t * linear_packed_stride(call) + k) * INT8_ELEMENT;
#if VNNI
  memcpy(out, codes, STEP);
#else
  int16_t wide[STEP];
  for (size_t i = 0; i < STEP; i++) wide[i] = codes[i];
  memcpy(out, wide, sizeof wide);
#endif
}

/// Lists row t's outliers and returns the absmax of the rest.
static float find_outliers(const nibble_linear_call *call, const float *x, size_t t) {
  size_t K = call->K;
  bool finds = call->threshold > 0, shares = finds && call->shares_outlier_columns;
  float limit = finds ? call->threshold : INFINITY;
  bool found;
  float absmax = largest_below(x, K, limit, &found);
  int32_t count = 0, *outliers = call->work.outliers + t * K;
  for (size_t k = 0; (shares || (finds && found)) && k < K; k++)
    if (shares ? call->work.column_flags[k] : fabsf(x[k]) >= limit) outliers[count++] = (int32_t)k;
  call->work.outlier_counts[t] = count;
  return absmax;
}

static void quantize_row(const nibble_linear_call *call, size_t t) {
  size_t K = call->K;
  const float *x = call->x + t * K;
  if (call->rounds_to_half) {
    float *rounded = call->work.rounded + t * K;
    memcpy(rounded, x, K * sizeof(float));
    nibble_round_floats(rounded, K, nibble_float16);
    x = rounded;
  }
  float absmax = find_outliers(call, x, t), factor = absmax > 1e-30f ? 127 * (1 / absmax) : 0;
  int32_t sum = 0, next = 0, count = call->work.outlier_counts[t];
  const int32_t *outliers = call->work.outliers + t * K;
  for (size_t k = 0; k < linear_packed_stride(call); k += STEP) {
    int8_t codes[STEP] = {};
    size_t length = K - k < STEP ? K - k : STEP;
    // Adding 1.5 × 2^23 rounds to the nearest integer, ties to even, and leaves it in the low bits.
    if (length == STEP)
      for (size_t i = 0; i < STEP; i++) codes[i] = (int8_t)bits_of(x[k + i] * factor + 0x1.8p23f);
    else
      for (size_t i = 0; i < length; i++) codes[i] = (int8_t)bits_of(x[k + i] * factor + 0x1.8p23f);
    for (; next < count && (size_t)outliers[next] < k + length; next++) codes[(size_t)outliers[next] - k] = 0;
    for (size_t i = 0; i < STEP; i++) sum += codes[i];
    place_codes(call, t, k, codes);
  }
  call->work.row_absmax[t] = absmax;
  call->work.row_sums[t] = sum;
}

#ifdef LOOK_UP_BYTES
// MARK: Runs of columns, for 4-bit weights

enum {
  GROUP_OF_CODES = 8,
  CODE_OFFSET = BYTE_OFFSET,
};

/// Where codes k ..< k + 8 of a row of few go: [K / 4, T, 4].
INLINE int8_t *run_place(const nibble_linear_call *call, size_t t, size_t k) {
  return (int8_t *)call->work.packed + (k / 4 * call->T + t) * 4;
}

/// Where the scale of a run and its offset go: [runs, T].
INLINE size_t run_index(const nibble_linear_call *call, size_t t, size_t run) { return run * call->T + t; }

/// The codes of a run of row t, from column k, into their places: four columns a word.
static void arrange_run(const nibble_linear_call *call, size_t t, size_t k, size_t length, const int8_t *codes) {
  size_t step;
  int32_t *out = (int32_t *)call->work.packed + arranged_place(call, call->K / 4, PANEL_DEPTH, RUNS_ROWS, t, k / 4, &step);
  for (size_t i = 0; i < length / 4; i++) memcpy(out + i * step, codes + 4 * i, 4);
}

/// Quantizes one run and returns the sum of its codes, which lie even columns of each group of 8 before odd ones.
INLINE int32_t quantize_run(const float *x, size_t length, float *absmax, int8_t *codes) {
  bool found;
  *absmax = largest_below(x, length, INFINITY, &found);
  float factor = *absmax > 1e-30f ? 127 * (1 / *absmax) : 0;
  int32_t sum = 0;
  for (size_t i = 0; i < length; i += GROUP_OF_CODES) UNROLL for (size_t j = 0; j < GROUP_OF_CODES; j++) {
      int8_t code = (int8_t)bits_of(x[i + j] * factor + 0x1.8p23f);
      codes[i + j % 2 * 4 + j / 2] = code;
      sum += code;
    }
  return sum;
}

static void quantize_runs(const nibble_linear_call *call, size_t t) {
  size_t length = call->input_block, runs = call->K / length;
  for (size_t run = 0; run < runs; run++) {
    int8_t codes[LONGEST_RUN];
    float absmax;
    int32_t sum = quantize_run(call->x + t * call->K + run * length, length, &absmax, codes);
    if (call->T > FEW_ROWS)
      arrange_run(call, t, run * length, length, codes);
    else
      for (size_t i = 0; i < length; i += 4) memcpy(run_place(call, t, run * length + i), codes + i, 4);
    call->work.row_absmax[run_index(call, t, run)] = absmax * (1.0f / 127);
    call->work.row_sums[run_index(call, t, run)] = -CODE_OFFSET * sum;
  }
}

#endif
