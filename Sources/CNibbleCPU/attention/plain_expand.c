// The plain loops that read a quantized cache.
#define SELECT_EXPAND nibble_expand_generic
#include "templates/expand.inc"
