#if defined(__x86_64__)

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c"))), apply_to = function)
#define SELECT_EXPAND nibble_expand_avx512
#include "../templates/expand.inc"
#pragma clang attribute pop

#endif
