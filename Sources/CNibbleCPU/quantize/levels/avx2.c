// AVX2 with F16C.
#if defined(__x86_64__)

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx2,f16c"))), apply_to = function)
#define LEVEL avx2
#define HAS_F16C
#include "../templates/loops.inc"
#pragma clang attribute pop

#endif
