// Convolutions, gated delta rules and state space models as tasks over rows and heads: an item goes through its row's tokens one
// by one, so that however a prompt is cut into calls, the results are the same.
#include <math.h>
#include <string.h>

#include "../elementwise/norm.h"
#include "../include/nibble_recurrence.h"
#include "../kernels.h"

typedef struct {
  size_t first, count;  // tokens
  size_t from, to;      // blocks
  int begins;           // from zeros
} row_place;

/// Where a row's tokens and states lie. False if there is nothing to do.
static int find_row(const nibble_recurrent_rows *rows, size_t r, row_place *place) {
  int64_t first = rows->query_offsets[r], count = rows->query_offsets[r + 1] - first;
  if (count <= 0) return 0;
  int64_t end = rows->lengths[r], start = end - count;
  const int32_t *table = rows->block_table + r * rows->table_width;
  int64_t last = (end - 1) / nibble_block_size;
  if (start < 0 || last >= (int64_t)rows->table_width) return *rows->out_of_range = 1, 0;
  int64_t to = table[last], from = start > 0 ? table[(start - 1) / nibble_block_size] : to;
  if (from < 0 || to < 0 || from >= (int64_t)rows->blocks || to >= (int64_t)rows->blocks) return *rows->out_of_range = 1, 0;
  *place = (row_place){first, count, from, to, start == 0};
  return 1;
}

/// log(1 + eˣ)
static float softplus(float x) { return x > 20 ? x : log1pf(expf(x)); }
static float sigmoid(float x) { return 1 / (1 + expf(-x)); }

// MARK: Convolution

/// The input of one token, times its gate; `gated` is memory for the product.
static const float *gated_input(const nibble_convolve_arguments *a, size_t token, size_t channel, size_t count, float *gated) {
  size_t at = token * a->input.width + channel;
  const float *x = a->input.first + at;
  if (!a->input_gate) return x;
  a->kernels->elementwise->gate(nibble_identity, 0, x, a->input_gate + at, gated, count);
  return gated;
}

/// The activation, and the output gate.
static void finish(const nibble_convolve_arguments *a, size_t token, size_t channel, size_t count, float *out) {
  const elementwise_kernels *k = a->kernels->elementwise;
  if (a->output_gate)
    k->gate(a->activation, a->parameter, out, a->output_gate + token * a->input.width + channel, out, count);
  else if (a->activation != nibble_identity)
    k->activate(a->activation, a->parameter, out, out, count);
}

static void convolve_token(const nibble_convolve_arguments *a, const row_place *row, size_t channel, size_t count) {
  size_t held = a->taps - 1;
  float zeros[nibble_channel_block * (nibble_largest_taps - 1)] = {0}, gated[nibble_channel_block];
  const float *past = row->begins ? zeros : a->inputs + (row->from * a->channels + channel) * held;
  float *next = a->inputs + (row->to * a->channels + channel) * held;
  float *out = a->out + row->first * a->channels + channel;
  const float *x = gated_input(a, row->first, channel, count, gated);
  a->kernels->recurrence->convolve_step(past, x, a->weight + channel * a->taps, a->bias ? a->bias + channel : NULL, next, out,
                                        a->taps, count);
  finish(a, row->first, channel, count, out);
}

static void convolve_tokens(const nibble_convolve_arguments *a, const row_place *row, size_t channel, size_t count) {
  size_t taps = a->taps, held = taps - 1;
  // The state's inputs, or a ring of products with the gate, in rows of nibble_channel_block channels.
  float weights[nibble_largest_taps * nibble_channel_block], ring[nibble_largest_taps][nibble_channel_block];
  float past[nibble_largest_taps][nibble_channel_block];
  const float *window[nibble_largest_taps];
  const float *from = a->inputs + (row->from * a->channels + channel) * held;
  for (size_t c = 0; c < count; c++) {
    for (size_t j = 0; j < taps; j++) weights[j * nibble_channel_block + c] = a->weight[(channel + c) * taps + j];
    for (size_t j = 0; j < held; j++) past[j][c] = row->begins ? 0 : from[c * held + j];
  }
  for (size_t j = 0; j < held; j++) window[j + 1] = past[j];
  for (size_t i = 0; i < row->count; i++) {
    size_t token = row->first + i;
    float *out = a->out + token * a->channels + channel;
    for (size_t j = 0; j < held; j++) window[j] = window[j + 1];
    window[held] = gated_input(a, token, channel, count, ring[i % taps]);
    a->kernels->recurrence->convolve(window, weights, a->bias ? a->bias + channel : NULL, out, taps, count);
    finish(a, token, channel, count, out);
  }
  float *to = a->inputs + (row->to * a->channels + channel) * held;
  for (size_t c = 0; c < count; c++)
    for (size_t j = 0; j < held; j++) to[c * held + j] = window[j + 1][c];
}

void nibble_convolve_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_convolve_arguments *a = arguments;
  size_t blocks = (a->channels + nibble_channel_block - 1) / nibble_channel_block;
  for (size_t item = begin; item < end; item++) {
    row_place row;
    if (!find_row(&a->rows, item / blocks, &row)) continue;
    size_t channel = item % blocks * nibble_channel_block, left = a->channels - channel;
    size_t count = left < nibble_channel_block ? left : nibble_channel_block;
    (row.count == 1 ? convolve_token : convolve_tokens)(a, &row, channel, count);
  }
}

// MARK: Gated delta rule

/// out = x · scale / √(Σx² + 1e-6)
static void unit(const elementwise_kernels *k, const float *x, float scale, float *out, size_t count) {
  k->scale(x, scale / sqrtf(k->square_sum(x, 0, count) + 1e-6f), out, count);
}

/// A head's state, or some of its columns: [K, stride].
typedef struct {
  const float *from;
  float *to;
  size_t stride;
} delta_state;

static void delta_tokens(const nibble_gated_delta_arguments *a, const row_place *row, size_t head, size_t column, size_t columns,
                         delta_state state) {
  const elementwise_kernels *k = a->kernels->elementwise;
  size_t keys = a->key_size, values = a->value_size;
  size_t key_head = head / (a->value_heads / a->key_heads);
  float q[nibble_largest_state_size], key[nibble_largest_state_size];
  float rate = -expf(a->rate[head]);
  for (size_t t = row->first; t < row->first + row->count; t++) {
    const float *token = a->mixed.first + t * a->mixed.width;
    unit(k, token + key_head * keys, 1 / sqrtf((float)keys), q, keys);
    unit(k, token + (a->key_heads + key_head) * keys, 1, key, keys);
    const float *v = token + 2 * a->key_heads * keys + head * values + column;
    float decay = expf(rate * softplus(a->a.first[t * a->a.width + head] + a->time_bias[head]));
    float beta = sigmoid(a->b.first[t * a->b.width + head]);
    float *out = a->out + (t * a->value_heads + head) * values + column;
    a->kernels->recurrence->delta(state.from, state.to, state.stride, q, key, v, decay, beta, out, keys, columns);
    state.from = state.to;
  }
}

static void copy_columns(const float *from, size_t from_stride, float *to, size_t to_stride, size_t rows, size_t columns) {
  for (size_t i = 0; i < rows; i++) memcpy(to + i * to_stride, from + i * from_stride, columns * sizeof(float));
}

static void delta_head(const nibble_gated_delta_arguments *a, const row_place *row, size_t head, size_t column, size_t columns) {
  size_t keys = a->key_size, values = a->value_size, size = keys * values;
  float *to = a->matrix + (row->to * a->value_heads + head) * size + column;
  const float *from = a->matrix + (row->from * a->value_heads + head) * size + column;
  if (row->begins) {
    for (size_t i = 0; i < keys; i++) memset(to + i * values, 0, columns * sizeof(float));
    from = to;
  }
  if (columns > nibble_delta_slice || row->count == 1)
    return delta_tokens(a, row, head, column, columns, (delta_state){from, to, values});
  // Rows that lie close together fit into the first-level cache; at the state's own distance they would share few of its sets.
  float local[nibble_largest_state_size * nibble_delta_slice];
  copy_columns(from, values, local, columns, keys, columns);
  delta_tokens(a, row, head, column, columns, (delta_state){local, local, columns});
  copy_columns(local, columns, to, values, keys, columns);
}

void nibble_gated_delta_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_gated_delta_arguments *a = arguments;
  size_t slices = (a->value_size + a->slice - 1) / a->slice, items = a->value_heads * slices;
  for (size_t item = begin; item < end; item++) {
    row_place row;
    if (!find_row(&a->rows, item / items, &row)) continue;
    size_t column = item % slices * a->slice, left = a->value_size - column;
    delta_head(a, &row, item % items / slices, column, left < a->slice ? left : a->slice);
  }
}

// MARK: Mamba 2

static float limited(float x, float least, float largest) { return x < least ? least : x > largest ? largest : x; }

static void scan_head(const nibble_state_space_arguments *a, const row_place *row, size_t head, size_t first, size_t count) {
  size_t size = a->state_size, inner = a->heads * a->head_size;
  size_t at = (head * a->head_size + first) * size, block = inner * size;
  size_t group = head / (a->heads / a->groups);
  float *state = a->matrix + row->to * block + at;
  const float *from = a->matrix + row->from * block + at;
  if (row->begins) {
    memset(state, 0, count * size * sizeof(float));
    from = state;
  }
  float rate = -expf(a->rate[head]);
  for (size_t t = row->first; t < row->first + row->count; t++) {
    const float *token = a->mixed.first + t * a->mixed.width;
    const float *x = token + head * a->head_size + first;
    const float *b = token + inner + group * size, *c = b + a->groups * size;
    float dt = softplus(a->time_scale * a->dt.first[t * a->dt.width + head] + a->time_bias[head]);
    dt = limited(dt, a->least_time, a->largest_time);
    float *out = a->out + t * inner + head * a->head_size + first;
    a->kernels->recurrence->state_space(from, state, x, b, c, expf(dt * rate), dt, a->skip[head], out, count, size);
    from = state;
  }
}

void nibble_state_space_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_state_space_arguments *a = arguments;
  size_t slices = (a->head_size + a->slice - 1) / a->slice, items = a->heads * slices;
  for (size_t item = begin; item < end; item++) {
    row_place row;
    if (!find_row(&a->rows, item / items, &row)) continue;
    size_t first = item % slices * a->slice, left = a->head_size - first;
    scan_head(a, &row, item % items / slices, first, left < a->slice ? left : a->slice);
  }
}

// MARK: Gated norms

/// out = activation(scale · gate) · x
static void apply_gate(const nibble_gated_norm_arguments *a, const float *gate, const float *x, float *out) {
  const elementwise_kernels *k = a->kernels->elementwise;
  if (a->gate_scale == 1) return k->gate(a->activation, a->parameter, gate, x, out, a->width);
  float scaled[nibble_channel_block];
  for (size_t i = 0; i < a->width; i += nibble_channel_block) {
    size_t count = a->width - i < nibble_channel_block ? a->width - i : nibble_channel_block;
    k->scale(gate + i, a->gate_scale, scaled, count);
    k->gate(a->activation, a->parameter, scaled, x + i, out + i, count);
  }
}

void nibble_gated_norm_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_gated_norm_arguments *a = arguments;
  const nibble_norm *norm = &a->norm;
  for (size_t item = begin; item < end; item++) {
    size_t token = item / a->runs, run = item % a->runs;
    const float *x = a->input + item * a->width;
    const float *gate = a->gate.first + token * a->gate.width + a->layout.offset + run / a->layout.group * a->layout.stride +
                        run % a->layout.group * a->width;
    const float *weight = norm->weight ? norm->weight + run * a->weight_stride : NULL;
    const float *bias = norm->bias ? norm->bias + run * a->weight_stride : NULL;
    float *out = a->out + item * a->width;
    if (a->has_norm && !a->gate_first) {
      nibble_normalize(a->kernels, norm, x, weight, bias, NULL, out, a->width);
      x = out;
    }
    apply_gate(a, gate, x, out);
    if (a->has_norm && a->gate_first) nibble_normalize(a->kernels, norm, out, weight, bias, NULL, out, a->width);
  }
}
