// The argument header's function-like macros as functions, for the host.
#pragma once

#include "nibble_kernel_arguments.h"

static inline int nibble_tiled4_supports(int outFeatures, int inFeatures, int blockSizeLog2) {
    return NIBBLE_TILED4_SUPPORTS(outFeatures, inFeatures, blockSizeLog2);
}

static inline long long nibble_tiled4_bytes(long long outFeatures, long long inFeatures) {
    return NIBBLE_TILED4_BYTES(outFeatures, inFeatures);
}

static inline long long nibble_tiled4_shared(int inFeatures) { return NIBBLE_TILED4_SHARED_1(inFeatures); }

static inline long long nibble_staged4_bytes(long long tokens, long long inFeatures, int isFloat32) {
    return NIBBLE_STAGED4_BYTES(tokens, inFeatures, isFloat32);
}

#ifdef NIBBLE_ATTEND_SHARED
static inline int nibble_attend_shared(int keySize, int valueSize) { return NIBBLE_ATTEND_SHARED(keySize, valueSize); }
static inline int nibble_prefill_supports(int keySize, int valueSize) { return NIBBLE_PREFILL_SUPPORTS(keySize, valueSize); }
static inline int nibble_prefill_shared(int keySize, int valueSize) { return NIBBLE_PREFILL_SHARED(keySize, valueSize); }
static inline int nibble_split_supports(int keySize, int valueSize) { return NIBBLE_SPLIT_SUPPORTS(keySize, valueSize); }
static inline int nibble_split_shared(int keySize, int valueSize) { return NIBBLE_SPLIT_SHARED(keySize, valueSize); }
#else
static inline int nibble_attend_shared(int keySize, int valueSize) { return 0 * (keySize + valueSize); }
static inline int nibble_prefill_supports(int keySize, int valueSize) { return 0 * (keySize + valueSize); }
static inline int nibble_prefill_shared(int keySize, int valueSize) { return 0 * (keySize + valueSize); }
static inline int nibble_split_supports(int keySize, int valueSize) { return 0 * (keySize + valueSize); }
static inline int nibble_split_shared(int keySize, int valueSize) { return 0 * (keySize + valueSize); }
#endif
