// The plain reference of reading a quantized cache.
#define SELECT_EXPAND nibble_expand_generic
#include "cache_expand.h"
