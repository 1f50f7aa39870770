// Attention of many queries per row over a quantized cache; blocks are dequantized into shared memory.
#include "attention_prefill.cuh"

#define INSTANCE(T) WIDTHS(attend_prefill_codes, true, T)
NIBBLE_FOR_TYPES(CHOOSE)
