// Selection as the record of each row's slot asks for.
#include "choose.h"

#include <math.h>

static_assert(sizeof(nibble_selection_record) == 4 * NIBBLE_SELECTION_RECORD_WORDS, "as NibbleCore.SelectionRecord");

static void penalize(float *x, int32_t count, const nibble_selection_record *record) {
  // One operation a statement: none may be contracted.
  *x = *x < 0 ? *x * record->repetition : *x / record->repetition;
  int32_t generated = count >> 1;
  if (generated == 0) return;
  *x -= record->presence;
  float often = record->frequency * (float)generated;
  *x -= often;
}

static void apply_penalties(float *logits, const int32_t *counts, size_t count, const nibble_selection_record *record) {
  enum { chunk = 16 };  // of fixed length, so that the first loop becomes a few vectors
  size_t first = 0;
  for (; first + chunk <= count; first += chunk) {
    int32_t any = 0;
    for (size_t i = 0; i < chunk; i++) any |= counts[first + i];
    if (!any) continue;
    for (size_t i = first; i < first + chunk; i++)
      if (counts[i]) penalize(logits + i, counts[i], record);
  }
  for (; first < count; first++)
    if (counts[first]) penalize(logits + first, counts[first], record);
}

static void apply_mask(float *logits, const int32_t *words, size_t count) {
  for (size_t first = 0; first < count; first += 32) {
    uint32_t forbidden = ~(uint32_t)words[first / 32];
    size_t n = count - first < 32 ? count - first : 32;
    if (forbidden == ~0u) {
      for (size_t i = 0; i < n; i++) logits[first + i] = -INFINITY;
    } else {
      for (; forbidden; forbidden &= forbidden - 1) {
        size_t i = (size_t)__builtin_ctz(forbidden);
        if (i < n) logits[first + i] = -INFINITY;
      }
    }
  }
}

static const nibble_selection_record *record_of(const nibble_slots_arguments *a, size_t row) {
  int32_t slot = a->slots[row];
  return slot >= 0 && (size_t)slot < a->slot_count ? a->records + slot : NULL;
}

// Adjusts the logits first ..< last of a row; `first` is a multiple of 32.
static void adjust(const nibble_slots_arguments *a, const nibble_selection_record *record, size_t row, size_t first,
                   size_t last) {
  size_t slot = (size_t)(record - a->records);
  float *logits = a->logits + row * a->vocabulary;
  if (record->flags & nibble_slot_counts)
    apply_penalties(logits + first, a->counts + slot * a->vocabulary + first, last - first, record);
  const int32_t *tokens = a->bias_tokens + slot * a->bias_limit;
  const float *values = a->bias_values + slot * a->bias_limit;
  for (int i = 0; i < record->bias_count; i++) {
    size_t token = (size_t)tokens[i];
    if (token >= first && token < last) logits[token] += values[i];
  }
  for (int i = record->bias_count; a->counters[row] < record->minimum_tokens && i < record->bias_count + record->end_count; i++) {
    size_t token = (size_t)tokens[i];
    if (token >= first && token < last) logits[token] = -INFINITY;
  }
  if (record->flags & nibble_slot_masks) apply_mask(logits + first, a->masks + slot * a->words + first / 32, last - first);
}

static void finish(const nibble_slots_arguments *a, const nibble_selection_record *record, size_t row, int32_t token) {
  a->tokens[row] = token;
  a->latest[record - a->records] = token;
  if (token >= 0 && record->flags & nibble_slot_counts)
    a->counts[(size_t)(record - a->records) * a->vocabulary + (size_t)token] += 2;
}

static int32_t choose(const nibble_slots_arguments *a, const nibble_selection_record *record, size_t row, int thread) {
  const float *logits = a->logits + row * a->vocabulary;
  if (!(record->temperature > 0)) return nibble_greedy(a->kernels, logits, a->vocabulary);
  nibble_sampling s = {
      .temperature = record->temperature,
      .top_p = record->top_p,
      .min_p = record->min_p,
      .top_k = (size_t)record->top_k,
      .seed = record->seed,
      .stream = record->stream,
      .counter = (uint64_t)(uint32_t)a->counters[row],
  };
  return nibble_draw(a->kernels, logits, a->vocabulary, &s, a->scratch + (size_t)thread * nibble_select_floats(a->vocabulary));
}

void nibble_slots_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_slots_arguments *a = arguments;
  for (size_t row = begin; row < end; row++) {
    const nibble_selection_record *record = record_of(a, row);
    if (!record) {
      a->tokens[row] = NIBBLE_NO_SLOT;
    } else if (!a->skips_greedy || record->temperature > 0) {
      adjust(a, record, row, 0, a->vocabulary);
      finish(a, record, row, choose(a, record, row, thread));
    }
  }
}

void nibble_slot_part_task(void *arguments, size_t begin, size_t end, int thread) {
  const nibble_slots_arguments *a = arguments;
  for (size_t i = begin; i < end; i++) {
    size_t first = i * a->part, left = a->vocabulary - first, count = left < a->part ? left : a->part;
    adjust(a, record_of(a, a->row), a->row, first, first + count);
    int32_t token = nibble_greedy(a->kernels, a->logits + a->row * a->vocabulary + first, count);
    a->best[i] = token < 0 ? token : (int32_t)first + token;
  }
}

void nibble_slot_parts_finish(const nibble_slots_arguments *a, size_t parts) {
  const float *logits = a->logits + a->row * a->vocabulary;
  int32_t token = NIBBLE_NO_TOKEN;
  for (size_t i = 0; i < parts && token != NIBBLE_NOT_A_NUMBER; i++) {
    int32_t other = a->best[i];
    if (other == NIBBLE_NOT_A_NUMBER || (other >= 0 && (token < 0 || logits[other] > logits[token]))) token = other;
  }
  finish(a, record_of(a, a->row), a->row, token);
}
