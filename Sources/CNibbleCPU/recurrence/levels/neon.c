// aarch64's baseline: vectors of 4 floats.
#if defined(__aarch64__)

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LEVEL neon
#define LANES 4
#include "../templates/recurrence.inc"

#endif
