// The argument header's function-like macros as functions, for the host.
#pragma once

#include "nibble_kernel_arguments.h"

static inline int nibble_tiled_4bit_supports(int outFeatures, int inFeatures, int blockSizeLog2, int arePowers) {
    return NIBBLE_TILED_4BIT_SUPPORTS(outFeatures, inFeatures, blockSizeLog2, arePowers);
}

static inline long long nibble_tiled_4bit_bytes(long long outFeatures, long long inFeatures) {
    return NIBBLE_TILED_4BIT_BYTES(outFeatures, inFeatures);
}

static inline long long nibble_tiled_4bit_scales(long long outFeatures, long long inFeatures) {
    return NIBBLE_TILED_4BIT_SCALES(outFeatures, inFeatures);
}

static inline int nibble_spreads_table(int level) { return NIBBLE_SPREADS_TABLE(level); }

static inline int nibble_tiled_4bit_shared(int isSpread) { return NIBBLE_TILED_4BIT_SHARED(isSpread); }

static inline int nibble_single_4bit_supports(int inFeatures) { return NIBBLE_SINGLE_4BIT_SUPPORTS(inFeatures); }

static inline int nibble_tiled_4bit_shared_1(int isSpread, int inFeatures) {
    return NIBBLE_TILED_4BIT_SHARED_1(isSpread, inFeatures);
}

static inline long long nibble_staged_4bit_bytes(long long tokens, long long inFeatures, int isFloat32) {
    return NIBBLE_STAGED_4BIT_BYTES(tokens, inFeatures, isFloat32);
}

static inline long long nibble_router_shared(long long own, long long experts, long long inFeatures) {
    return NIBBLE_ROUTER_SHARED(own, experts, inFeatures);
}

static inline int nibble_wide_4bit_shared(int tokens) { return NIBBLE_WIDE_4BIT_SHARED(tokens); }

static inline int nibble_wide_int8_stage(int tokens, int hasOutliers) { return NIBBLE_WIDE_INT8_STAGE(tokens, hasOutliers); }

static inline int nibble_single_int8_token(int inFeatures) { return NIBBLE_SINGLE_INT8_TOKEN(inFeatures); }

static inline int nibble_wide_int8_sums(int tokens) { return NIBBLE_WIDE_INT8_SUMS(tokens); }

static inline int nibble_prefill_supports(int keySize, int valueSize) { return NIBBLE_PREFILL_SUPPORTS(keySize, valueSize); }

static inline int nibble_prefill_width(int size) { return NIBBLE_PREFILL_WIDTH(size); }

static inline int nibble_prefill_shared(int keySize, int valueSize) {
    (void)valueSize;
    return NIBBLE_PREFILL_SHARED(keySize, valueSize);
}

static inline int nibble_prefill_wide_supports(int keySize, int valueSize) {
    return NIBBLE_PREFILL_WIDE_SUPPORTS(keySize, valueSize);
}

static inline int nibble_prefill_wide_shared(int keySize) { return NIBBLE_PREFILL_WIDE_SHARED(keySize); }

static inline int nibble_split_supports(int keySize, int valueSize, int elementBytes) {
    return NIBBLE_SPLIT_SUPPORTS(keySize, valueSize, elementBytes);
}

static inline int nibble_prefill_codes_supports(int size, int bits, int group) {
    return NIBBLE_PREFILL_CODES_SUPPORTS(size, bits, group);
}

static inline int nibble_split_codes_supports(int keySize, int valueSize, int bits, int group) {
    return NIBBLE_SPLIT_CODES_SUPPORTS(keySize, valueSize, bits, group);
}

static inline int nibble_split_heads(int size) { return NIBBLE_SPLIT_HEADS_OF(size); }

static inline int nibble_split_shared(int heads, int keyValueHeads, int valueSize) {
    return NIBBLE_SPLIT_SHARED(heads, keyValueHeads, valueSize);
}

static inline int nibble_step_supports(int keySize, int valueSize) { return NIBBLE_STEP_SUPPORTS(keySize, valueSize); }

static inline int nibble_step_shared(int group, int size) { return NIBBLE_STEP_SHARED(group, size); }
