// AVX2 with the 256-bit vpdpbusd of AVX-VNNI.
#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#define LEVEL avxvnni
#define LANES 8
#define VNNI 1
#define BF16 0
#define AMX 0
#define DOT_BYTES(sum, a, b) ((ivec)_mm256_dpbusd_avx_epi32((__m256i)(sum), (__m256i)(a), (__m256i)(b)))
#define LOOK_UP_BYTES(table, index) ((ivec)_mm256_shuffle_epi8((__m256i)(table), (__m256i)(index)))
#include "../templates/linear.inc"
#pragma clang attribute pop

#endif
