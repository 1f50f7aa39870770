// Attention of many queries a row over a quantized cache, whose blocks become numbers as they come into shared memory.
#include "attention_prefill.cuh"

#define INSTANCE(T) WIDTHS(attend_prefill_codes, true, T)
NIBBLE_FOR_TYPES(CHOOSE)
