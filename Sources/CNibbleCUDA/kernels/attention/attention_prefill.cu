// Attention of many queries per row over a dense cache.
#include "attention_prefill.cuh"

#define INSTANCE(T) WIDTHS(attend_prefill, false, T)
NIBBLE_FOR_TYPES(CHOOSE)
