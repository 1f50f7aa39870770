#include "peak.h"

// Enough independent sums to hide the latency of an addition on two multipliers.
enum { SUMS = 12 };

#define LOOP(NAME, TARGET, LANES)                                                                                           \
  TARGET static void NAME(long iterations) {                                                                                \
    typedef float vec __attribute__((vector_size(4 * LANES)));                                                              \
    vec sums[SUMS] = {}, a = {1e-9f}, b = {0.5f};                                                                           \
    for (long i = 0; i < iterations; i++) {                                                                                 \
      _Pragma("clang loop unroll(full)") for (int j = 0; j < SUMS; j++) sums[j] = __builtin_elementwise_fma(a, b, sums[j]); \
      __asm__ volatile("" : KEEP(a), KEEP(b));                                                                              \
    }                                                                                                                       \
    for (int j = 0; j < SUMS; j++) __asm__ volatile("" : KEEP(sums[j]));                                                    \
  }

#if defined(__x86_64__)
#define KEEP(x) "+x"(x)
LOOP(multiply_avx2, __attribute__((target("avx2,fma"))), 8)
#undef KEEP
#define KEEP(x) "+v"(x)
LOOP(multiply_avx512, __attribute__((target("avx512f"))), 16)

static int has_avx512(void) { return __builtin_cpu_supports("avx512f"); }

void peak_multiply(long iterations) { has_avx512() ? multiply_avx512(iterations) : multiply_avx2(iterations); }
double peak_flops_per_iteration(void) { return 2.0 * SUMS * (has_avx512() ? 16 : 8); }
#else
#define KEEP(x) "+w"(x)
LOOP(multiply, , 4)

void peak_multiply(long iterations) { multiply(iterations); }
double peak_flops_per_iteration(void) { return 2.0 * SUMS * 4; }
#endif
