// aarch64's baseline: vectors of 4 floats.
#if defined(__aarch64__)

#include <arm_neon.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/// Products of signed bytes, four a lane: two of them stay within 16 bits, as none of the operands are both −128.
static inline __attribute__((always_inline)) int32x4_t dot_bytes(int32x4_t sum, int8x16_t a, int8x16_t b) {
  int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
  return vpadalq_s16(sum, vpaddq_s16(low, high));
}

#define LEVEL neon
#define LANES 4
#define VNNI 1
#define BF16 0
#define AMX 0
#define DOT_BYTES(sum, a, b) ((ivec)dot_bytes((int32x4_t)(sum), (int8x16_t)(a), (int8x16_t)(b)))
#define LOOK_UP_BYTES(table, index) ((ivec)vqtbl1q_u8((uint8x16_t)(table), (uint8x16_t)(index)))
#include "../templates/linear.inc"

#endif
