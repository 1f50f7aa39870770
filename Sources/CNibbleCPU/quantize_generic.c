#define TABLE quantize_generic
#include "quantize_loops.h"
