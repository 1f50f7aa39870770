// AVX2 with FMA and F16C: vectors of 8 floats.
#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#define LEVEL avx2
#define LANES 8
#include "../templates/recurrence.inc"
#pragma clang attribute pop

#endif
