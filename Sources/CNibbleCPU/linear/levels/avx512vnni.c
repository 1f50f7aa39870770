// AVX-512 with vpdpbusd.
#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512cd,avx2,fma,f16c,avx512vnni"))), \
                             apply_to = function)
#define LEVEL avx512vnni
#define LANES 16
#define VNNI 1
#define BF16 0
#define AMX 0
#define DOT_BYTES(sum, a, b) ((ivec)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(a), (__m512i)(b)))
#define LOOK_UP_BYTES(table, index) ((ivec)_mm512_shuffle_epi8((__m512i)(table), (__m512i)(index)))
#include "../templates/linear.inc"
#pragma clang attribute pop

#endif
