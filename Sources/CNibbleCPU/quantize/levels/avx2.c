// AVX2.
#if defined(__x86_64__)

#include <stdint.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#define LEVEL avx2
#include "../templates/loops.inc"
#pragma clang attribute pop

#endif
