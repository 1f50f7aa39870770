// Building one C source for several instruction sets.
//
// A kernel file includes its template once an instruction set, between a push and a pop of the target attribute, with
// NIBBLE_SUFFIX set; NAME() gives the functions distinct names. Loops are left to the compiler's vectorizer where it does well.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define NIBBLE_JOIN_(a, b) a##b
#define NIBBLE_JOIN(a, b) NIBBLE_JOIN_(a, b)
#define NAME(name) NIBBLE_JOIN(name, NIBBLE_SUFFIX)

#define NIBBLE_TARGET_AVX2 "avx2,fma,f16c"
#define NIBBLE_TARGET_AVXVNNI NIBBLE_TARGET_AVX2 ",avxvnni"
#define NIBBLE_TARGET_AVX512 NIBBLE_TARGET_AVX2 ",avx512f,avx512bw,avx512vl,avx512dq,avx512cd"
#define NIBBLE_TARGET_AVX512VNNI NIBBLE_TARGET_AVX512 ",avx512vnni"
#define NIBBLE_TARGET_AVX512BF16 NIBBLE_TARGET_AVX512VNNI ",avx512vbmi,avx512bf16"

#define NIBBLE_INLINE static inline __attribute__((always_inline))
