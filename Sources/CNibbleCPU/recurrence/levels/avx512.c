// AVX-512 (F, BW, VL, DQ): vectors of 16 floats.
#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"))), apply_to = function)
#define LEVEL avx512
#define LANES 16
#include "../templates/recurrence.inc"
#pragma clang attribute pop

#endif
