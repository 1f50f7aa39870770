// AVX2 with FMA and F16C.
#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#define LEVEL avx2
#define LANES 8
#define VNNI 0
#define BF16 0
#define AMX 0
#define MULTIPLY_PAIRS(a, b) ((ivec)_mm256_madd_epi16((__m256i)(a), (__m256i)(b)))
#define LOOK_UP_BYTES(table, index) ((ivec)_mm256_shuffle_epi8((__m256i)(table), (__m256i)(index)))
#include "../templates/linear.inc"
#pragma clang attribute pop

#endif
