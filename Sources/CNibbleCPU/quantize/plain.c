#define TABLE quantize_generic
#include "templates/loops.inc"
