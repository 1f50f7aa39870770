// AVX-512 (F, BW, VL, DQ, CD).
#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512cd,avx2,fma,f16c"))), \
                             apply_to = function)
#define LEVEL avx512
#define LANES 16
#define VNNI 0
#define BF16 0
#define AMX 0
#define MULTIPLY_PAIRS(a, b) ((ivec)_mm512_madd_epi16((__m512i)(a), (__m512i)(b)))
#include "../templates/linear.inc"
#pragma clang attribute pop

#endif
