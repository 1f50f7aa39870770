// aarch64's baseline: vectors of 4 floats.
#if defined(__aarch64__)

#define LANES 4
#define SELECT nibble_kernels_neon
#include "../templates/elementwise.inc"

#endif
