// How the tokens of one slot are chosen, as NibbleCore's SelectionRecord. Compiled by C and by NVRTC.
#pragma once

enum {
  nibble_slot_counts = 1,  // counts tokens and applies penalties
  nibble_slot_masks = 2    // only tokens of the slot's mask
};

typedef struct {
  float temperature;  // 0: greedy
  float top_p, min_p;
  float repetition, presence, frequency;
  int top_k;  // 0: all
  int minimum_tokens;
  unsigned long long seed, stream;
  int bias_count;  // entries of the slot's bias
  int end_count;   // entries after those: tokens that are forbidden while the counter is below minimum_tokens
  int flags;
  int unused;
} nibble_selection_record;

// In place of a token where every logit is −∞.
#define NIBBLE_NO_TOKEN (-1)
// In place of a token where a logit is NaN.
#define NIBBLE_NOT_A_NUMBER (-2)
// In place of a token of a row without a slot.
#define NIBBLE_NO_SLOT (-3)

#define NIBBLE_SELECTION_RECORD_WORDS 16
#define NIBBLE_MOST_SCORES 20  // k of `scores`
