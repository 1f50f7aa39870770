#define _GNU_SOURCE
#include "../include/nibble_levels.h"

#include "../kernels.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

// Each kernel family fills its own table.
void nibble_linear_select(uint32_t features) __attribute__((weak));
void nibble_quantize_select(uint32_t features) __attribute__((weak));

static const nibble_cpu_level levels[] = {
    {"generic", 0},
#if defined(__x86_64__)
    {"avx2", NIBBLE_FEATURE_AVX2},
    {"avxvnni", NIBBLE_FEATURE_AVX2 | NIBBLE_FEATURE_AVXVNNI},
    {"avx512", NIBBLE_FEATURE_AVX2 | NIBBLE_FEATURE_AVX512},
    {"avx512vnni", NIBBLE_FEATURE_AVX2 | NIBBLE_FEATURE_AVX512 | NIBBLE_FEATURE_AVX512VNNI},
    {"avx512vbmi", NIBBLE_FEATURE_AVX2 | NIBBLE_FEATURE_AVX512 | NIBBLE_FEATURE_AVX512VNNI | NIBBLE_FEATURE_AVX512VBMI},
    {"avx512bf16", NIBBLE_FEATURE_AVX2 | NIBBLE_FEATURE_AVX512 | NIBBLE_FEATURE_AVX512VNNI | NIBBLE_FEATURE_AVX512VBMI |
                       NIBBLE_FEATURE_AVX512BF16},
    {"avx512fp16", NIBBLE_FEATURE_AVX2 | NIBBLE_FEATURE_AVX512 | NIBBLE_FEATURE_AVX512VNNI | NIBBLE_FEATURE_AVX512VBMI |
                       NIBBLE_FEATURE_AVX512BF16 | NIBBLE_FEATURE_AVX512FP16},
    {"amx", NIBBLE_FEATURE_AVX2 | NIBBLE_FEATURE_AVX512 | NIBBLE_FEATURE_AVX512VNNI | NIBBLE_FEATURE_AVX512VBMI |
                NIBBLE_FEATURE_AVX512BF16 | NIBBLE_FEATURE_AMX},
#elif defined(__aarch64__)
    {"neon", NIBBLE_FEATURE_NEON},
    {"neon-dotprod", NIBBLE_FEATURE_NEON | NIBBLE_FEATURE_DOTPROD},
    {"neon-i8mm", NIBBLE_FEATURE_NEON | NIBBLE_FEATURE_DOTPROD | NIBBLE_FEATURE_I8MM},
#endif
};
static const int level_count = sizeof levels / sizeof levels[0];

static uint32_t active_features = 0;
static const char *active_level = "generic";
static char refused_level[32];

const nibble_cpu_level *nibble_cpu_levels(int *count) {
  *count = level_count;
  return levels;
}

#if defined(__x86_64__)
// Tile registers enlarge what the kernel saves of a thread: it wants to be asked once a process.
static int has_amx(void) {
  enum { request_permission = 0x1023, tile_data = 18 };  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  if (!__builtin_cpu_supports("amx-tile") || !__builtin_cpu_supports("amx-int8") || !__builtin_cpu_supports("amx-bf16")) return 0;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif

uint32_t nibble_cpu_supported(void) {
  uint32_t features = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
    features |= NIBBLE_FEATURE_AVX2;
  if (!features) return 0;
  if (__builtin_cpu_supports("avxvnni")) features |= NIBBLE_FEATURE_AVXVNNI;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd"))
    features |= NIBBLE_FEATURE_AVX512;
  if (!(features & NIBBLE_FEATURE_AVX512)) return features;
  if (__builtin_cpu_supports("avx512vnni")) features |= NIBBLE_FEATURE_AVX512VNNI;
  if (__builtin_cpu_supports("avx512vbmi")) features |= NIBBLE_FEATURE_AVX512VBMI;
  if (__builtin_cpu_supports("avx512bf16")) features |= NIBBLE_FEATURE_AVX512BF16;
  if (__builtin_cpu_supports("avx512fp16")) features |= NIBBLE_FEATURE_AVX512FP16;
  if (has_amx()) features |= NIBBLE_FEATURE_AMX;
#elif defined(__aarch64__)
  features |= NIBBLE_FEATURE_NEON;
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) features |= NIBBLE_FEATURE_DOTPROD;
  if (getauxval(AT_HWCAP2) & HWCAP2_I8MM) features |= NIBBLE_FEATURE_I8MM;
#endif
  return features;
}

uint32_t nibble_cpu_features(void) { return active_features; }
const char *nibble_cpu_level_name(void) { return active_level; }
const char *nibble_cpu_refused_level(void) { return refused_level[0] ? refused_level : NULL; }

static void use(const nibble_cpu_level *level, uint32_t features) {
  active_level = level->name;
  active_features = features;
  nibble_kernels_select(features);
  if (nibble_linear_select) nibble_linear_select(features);
  if (nibble_quantize_select) nibble_quantize_select(features);
}

int nibble_cpu_select(const char *name) {
  uint32_t supported = nibble_cpu_supported();
  for (int i = 0; i < level_count; i++) {
    if (strcmp(levels[i].name, name) != 0) continue;
    if ((levels[i].features & supported) != levels[i].features) return -1;
    use(&levels[i], levels[i].features);
    return 0;
  }
  return -1;
}

// Everything the machine has, under the name of the richest level it covers.
static void select_best(void) {
  uint32_t supported = nibble_cpu_supported();
  const nibble_cpu_level *best = &levels[0];
  for (int i = 1; i < level_count; i++)
    if ((levels[i].features & supported) == levels[i].features) best = &levels[i];
  use(best, supported);
}

static void initialize(void) {
  const char *wanted = getenv("NIBBLE_CPU");
  if (wanted && wanted[0] && nibble_cpu_select(wanted) == 0) return;
  if (wanted && wanted[0]) strncpy(refused_level, wanted, sizeof refused_level - 1);
  select_best();
}

void nibble_cpu_initialize(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, initialize);
}
