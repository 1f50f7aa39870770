// NEON with sdot.
#if defined(__aarch64__)

#include <arm_neon.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#define LEVEL neon_dotprod
#define LANES 4
#define VNNI 1
#define BF16 0
#define AMX 0
#define DOT_BYTES(sum, a, b) ((ivec)vdotq_s32((int32x4_t)(sum), (int8x16_t)(a), (int8x16_t)(b)))
#define LOOK_UP_BYTES(table, index) ((ivec)vqtbl1q_u8((uint8x16_t)(table), (uint8x16_t)(index)))
#include "../templates/linear.inc"
#pragma clang attribute pop

#endif
