// Compares the linear layers of every instruction level that this machine runs with the plain ones. Arguments are names of
// levels that it must run. Needs no Swift toolchain for the target, and is small enough for an emulator.
#include "linear_cases.h"

// MARK: Cases

enum { LAYERS = 2, GUARD_COLUMNS = 3, LONGEST_LABEL = 160 };

static const double float32_error = 2e-5, float16_error = 0x1p-9, bfloat16_error = 0x1p-6;
static const double runs_error = 1e-1, typical_runs_error = 3e-2;

#define DENSE(d, n) {.name = n, .kind = NIBBLE_WEIGHT_DENSE, .dtype = d, .tolerance = float32_error}
#define INT8(n, limit, shared) \
  {.name = n, .kind = NIBBLE_WEIGHT_INT8, .form = NIBBLE_INPUT_INT8, .threshold = limit, .is_shared = shared}

static const format others[] = {
    DENSE(nibble_float32, "float32"), DENSE(nibble_float16, "float16"), DENSE(nibble_bfloat16, "bfloat16"),
    INT8("int8", 0, false),           INT8("int8 outliers", 3, false),  INT8("int8 outliers of the call", 3, true),
};

static const format codebooks[] = {
    {.name = "nf4", .codebook = NIBBLE_NF4, .block_size = 64},
    {.name = "fp4", .codebook = NIBBLE_FP4, .block_size = 64},
    {.name = "nf4 nested", .codebook = NIBBLE_NF4, .block_size = 64, .is_nested = true},
    {.name = "fp4 128 nested", .codebook = NIBBLE_FP4, .block_size = 128, .is_nested = true},
    {.name = "nf4 32", .codebook = NIBBLE_NF4, .block_size = 32},
    {.name = "nf4 256", .codebook = NIBBLE_NF4, .block_size = 256},
};

typedef struct {
  const char *name;
  nibble_input_form form;
  bool half_precision;
  double tolerance;
} arithmetic;

static const arithmetic arithmetics[] = {
    {"float32", NIBBLE_INPUT_F32, false, float32_error},      {"half precision", NIBBLE_INPUT_F32, true, float16_error},
    {"float16", NIBBLE_INPUT_F16, false, float16_error},      {"bfloat16", NIBBLE_INPUT_BF16, false, bfloat16_error},
    {"int8 runs", NIBBLE_INPUT_INT8_RUNS, false, runs_error},
};

/// (N, K) of the first layer: whole tiles; ragged N; blocks that straddle rows; tiny; a single feature; several panels deep.
static const shape sizes[] = {
    {0, 32, 128}, {0, 41, 256}, {0, 33, 80}, {0, 5, 7}, {0, 1, 64}, {0, 19, 576}, {0, 20, 1100}, {0, 18, 1280},
};
static const size_t rows[] = {1, 2, 3, 4, 5, 8, 17, 64};

static const epilogue epilogues[] = {
    {.scale = 1},
    {.scale = 1, .has_bias = true},
    {.scale = 1, .has_residual = true},
    {.scale = 0.5f,
     .has_bias = true,
     .activation = nibble_silu,
     .has_row_scale = true,
     .has_residual = true,
     .is_in_place = true},
    {.scale = -2, .activation = nibble_gelu_tanh},
};

/// Whether results are the generic ones to the last bit where integers are.
static bool is_exact(const format *f, const epilogue *e) {
  return f->tolerance == 0 && e->activation == nibble_identity && e->scale == 1 && !e->has_row_scale;
}

// MARK: One call

/// A call's operands: layers of one format side by side, the second one smaller.
typedef struct {
  const format *format;
  const epilogue *epilogue;
  shape shape;
  owned_layer layers[LAYERS];
  memory x, row_scale, residual;
  size_t width;
} operands;

static operands random_operands(const format *f, const epilogue *e, shape s) {
  operands o = {.format = f, .epilogue = e, .shape = s};
  for (size_t i = 0; i < LAYERS; i++) {
    size_t N = i == 0 ? s.N : s.N / 2 + 1;
    o.layers[i] = random_layer(f, N, s.K, o.width, e->has_bias);
    o.width += N;
  }
  o.x = random_floats(s.T * s.K, 1, 0);
  for (size_t i = 3; i < s.T * s.K; i += 61) ((float *)o.x.data)[i] *= 5;
  o.row_scale = random_floats(s.T, 0.2f, 1);
  o.residual = random_floats(s.T * (o.width + GUARD_COLUMNS), 1, 0);
  return o;
}

static void release_operands(operands *o) {
  for (size_t i = 0; i < LAYERS; i++) release_layer(&o->layers[i]);
  release(&o->x), release(&o->row_scale), release(&o->residual);
}

/// In two parts of the tiles, as two threads would.
static void run_call(nibble_linear_arguments *call) {
  enum { THREADS = 2 };
  memory work = allocate((nibble_linear_workspace(call, THREADS) + 63) / 64 * 64);
  memset(work.data, 0xFF, work.size);
  nibble_linear_bind(call, work.data, THREADS);
  if (nibble_linear_needs_input(call)) {
    nibble_linear_find_columns(call);
    nibble_linear_input_task(call, call->T / 2, call->T, 1);
    nibble_linear_input_task(call, 0, call->T / 2, 0);
  }
  size_t tiles = nibble_linear_tiles(call), half = (tiles + 1) / 3;
  nibble_linear_task(call, half, tiles, 1);
  nibble_linear_task(call, 0, half, 0);
  release(&work);
}

/// The output [T, width + GUARD_COLUMNS], with what was there in the last columns. Empty where the level has no
/// kernels for the form.
static memory multiply(const nibble_kernels *kernels, const operands *o, const nibble_linear_layer *layers,
                       nibble_input_form form) {
  const format *f = o->format;
  size_t stride = o->width + GUARD_COLUMNS;
  nibble_linear_arguments call = {
      .kernels = kernels,
      .x = o->x.data,
      .T = o->shape.T,
      .K = o->shape.K,
      .form = form,
      .half_precision = f->half_precision,
      .threshold = f->threshold,
      .shares_outlier_columns = f->is_shared,
      .rounds_to_half = f->is_shared,
      .layers = layers,
      .layer_count = LAYERS,
      .output_stride = stride,
      .activation = o->epilogue->activation,
      .scale = o->epilogue->scale,
  };
  if (form == NIBBLE_INPUT_INT8_RUNS) {
    call.input_block = nibble_linear_input_block(kernels, call.K, f->block_size);
    if (call.input_block == 0) return (memory){};
  }
  memory output = allocate(o->residual.size);
  if (o->epilogue->is_in_place)
    memcpy(output.data, o->residual.data, output.size);
  else
    memset(output.data, 0xFF, output.size);
  call.output = output.data;
  if (o->epilogue->has_row_scale) call.row_scale = o->row_scale.data;
  if (o->epilogue->has_residual) call.residual = o->epilogue->is_in_place ? output.data : o->residual.data;
  call.residual_stride = stride;
  run_call(&call);
  return output;
}

// MARK: Comparison

static void report(const char *level, const operands *o, const char *layout, const char *what, double error) {
  if (failures++ >= 20) return;
  const epilogue *e = o->epilogue;
  printf("%s: %s%s [%zu, %zu] × %zu%s%s: %s %g\n", level, o->format->name, layout, o->shape.N, o->shape.K, o->shape.T,
         e->has_bias ? ", bias" : "", e->activation || e->has_residual ? ", epilogue" : "", what, error);
}

static bool guards_hold(const operands *o, const memory *got, const memory *wanted) {
  size_t stride = o->width + GUARD_COLUMNS;
  for (size_t t = 0; t < o->shape.T; t++) {
    size_t at = t * stride + o->width;
    if (memcmp((float *)got->data + at, (float *)wanted->data + at, GUARD_COLUMNS * sizeof(float))) return false;
  }
  return true;
}

static void compare(const char *level, const operands *o, const char *layout, const memory *got, const memory *wanted) {
  const float *a = got->data, *b = wanted->data;
  size_t stride = o->width + GUARD_COLUMNS;
  double squares = 0, worst = 0, error_squares = 0;
  comparisons++;
  if (!guards_hold(o, got, wanted)) report(level, o, layout, "columns overwritten", GUARD_COLUMNS);
  for (size_t i = 0; i < o->shape.T * stride; i++)
    if (i % stride < o->width && isfinite(b[i])) squares += (double)b[i] * b[i];
  double count = (double)(o->shape.T * o->width), mean = sqrt(squares / count);
  for (size_t i = 0; i < o->shape.T * stride; i++) {
    if (i % stride >= o->width || (!isfinite(a[i]) && !isfinite(b[i]))) continue;
    double difference = fabs((double)a[i] - b[i]);
    double error = difference / fmax(fmax(fabs((double)b[i]), mean), 1e-30);
    if (!(error <= worst)) worst = isnan(error) ? INFINITY : error;
    error_squares += difference * difference;
  }
  double allowed = o->format->tolerance > 0 ? o->format->tolerance : is_exact(o->format, o->epilogue) ? 0 : float32_error;
  if (worst > allowed) report(level, o, layout, "error", worst);
  // int8 runs: single results may be far off, all together not.
  double typical = sqrt(error_squares / count) / fmax(mean, 1e-30);
  if (o->format->form == NIBBLE_INPUT_INT8_RUNS && typical > typical_runs_error)
    report(level, o, layout, "typical error", typical);
}

static void check(const operands *o, const nibble_linear_layer *layers, const char *layout, const memory *wanted) {
  for (int i = 1; i < nibble_level_count(); i++) {
    const nibble_kernels *level = nibble_level(i);
    if (!nibble_level_is_supported(level)) continue;
    memory got = multiply(level, o, layers, o->format->form);
    if (got.data) compare(nibble_level_name(level), o, layout, &got, wanted);
    release(&got);
  }
}

static void run_case(const format *f, const epilogue *e, shape s, bool has_infinity) {
  operands o = random_operands(f, e, s);
  if (has_infinity) ((float *)o.x.data)[s.T * s.K - 2] = INFINITY;
  nibble_linear_layer layers[LAYERS];
  for (size_t i = 0; i < LAYERS; i++) layers[i] = o.layers[i].layer;
  memory wanted = multiply(nibble_level(0), &o, layers, f->form == NIBBLE_INPUT_INT8_RUNS ? NIBBLE_INPUT_F32 : f->form);
  check(&o, layers, "", &wanted);
  if (f->kind == NIBBLE_WEIGHT_4BIT && nibble_can_tile_4bit(s.K, f->block_size)) {
    owned_layer tiled[LAYERS];
    for (size_t i = 0; i < LAYERS; i++) tiled[i] = tiled_layer(&layers[i], s.K), layers[i] = tiled[i].layer;
    check(&o, layers, ", tiled", &wanted);
    for (size_t i = 0; i < LAYERS; i++) release_layer(&tiled[i]);
  }
  release(&wanted);
  release_operands(&o);
}

// MARK: All of them

/// Every size with every number of rows; epilogues in turn.
static void run_format(const format *f) {
  size_t turn = 0;
  for (size_t i = 0; i < COUNT(sizes); i++)
    for (size_t j = 0; j < COUNT(rows); j++, turn++) {
      // The plain form takes long in an emulator: many rows need not be deep.
      if (rows[j] * sizes[i].N * sizes[i].K > 600000) continue;
      random_state = turn + 1;
      run_case(f, &epilogues[turn % COUNT(epilogues)], (shape){rows[j], sizes[i].N, sizes[i].K}, false);
    }
  // More rows than sums are kept of at a time; more tiles than share a chunk of the input.
  run_case(f, &epilogues[1], (shape){541, 3, 64}, false);
  run_case(f, &epilogues[1], (shape){6, 150, 64}, false);
  bool is_float = f->form != NIBBLE_INPUT_INT8 && f->form != NIBBLE_INPUT_INT8_RUNS;
  for (size_t T = 1; is_float && T <= 5; T += 4) run_case(f, &epilogues[0], (shape){T, 20, 256}, true);
}

static void run_4bit(const format *codebook) {
  for (size_t i = 0; i < COUNT(arithmetics); i++) {
    char name[LONGEST_LABEL];
    snprintf(name, sizeof name, "%s in %s", codebook->name, arithmetics[i].name);
    format f = *codebook;
    f.name = name;
    f.kind = NIBBLE_WEIGHT_4BIT;
    f.form = arithmetics[i].form;
    f.half_precision = arithmetics[i].half_precision;
    f.tolerance = arithmetics[i].tolerance;
    run_format(&f);
  }
}

int main(int count, char **arguments) {
  require_levels(count, arguments);
  for (size_t i = 0; i < COUNT(others); i++) run_format(&others[i]);
  for (size_t i = 0; i < COUNT(codebooks); i++) run_4bit(&codebooks[i]);
  return summarize("linear layers");
}
