#define _GNU_SOURCE
#include "../include/nibble_levels.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "../kernels.h"

enum {
  AVX2 = 1 << 0,        // with fma and f16c
  AVXVNNI = 1 << 1,     // 256-bit vpdpbusd
  AVX512 = 1 << 2,      // f, bw, vl, dq and cd
  AVX512VNNI = 1 << 3,  // 512-bit vpdpbusd
  AVX512BF16 = 1 << 4,
  AMX = 1 << 5,  // tile, int8 and bf16, with the kernel's permission for this process
  NEON = 1 << 6,
  DOTPROD = 1 << 7,  // sdot
  I8MM = 1 << 8,     // smmla
};

// Every level has kernels of its own for at least one folder, so that its name says what runs.
static const nibble_kernels levels[] = {
    {"generic", 0, &nibble_elementwise_generic, &nibble_attention_generic, &nibble_linear_generic, &nibble_quantize_generic,
     &nibble_recurrence_generic},
#if defined(__x86_64__)
#define X86(name, features, vectors, linear) \
  {name,                                     \
   AVX2 | (features),                        \
   &nibble_elementwise_##vectors,            \
   &nibble_attention_##vectors,              \
   &nibble_linear_##linear,                  \
   &nibble_quantize_avx2,                    \
   &nibble_recurrence_##vectors}
    X86("avx2", 0, avx2, avx2),
    X86("avxvnni", AVXVNNI, avx2, avxvnni),
    X86("avx512", AVX512, avx512, avx512),
    X86("avx512vnni", AVX512 | AVX512VNNI, avx512, avx512vnni),
    X86("avx512bf16", AVX512 | AVX512VNNI | AVX512BF16, avx512, avx512bf16),
    X86("amx", AVX512 | AVX512VNNI | AVX512BF16 | AMX, avx512, amx),
#elif defined(__aarch64__)
#define ARM(name, features, linear) \
  {name,                            \
   NEON | (features),               \
   &nibble_elementwise_neon,        \
   &nibble_attention_neon,          \
   &nibble_linear_##linear,         \
   &nibble_quantize_generic,        \
   &nibble_recurrence_neon}
    ARM("neon", 0, neon),
    ARM("neon-dotprod", DOTPROD, neon_dotprod),
    ARM("neon-i8mm", DOTPROD | I8MM, neon_i8mm),
#endif
};

int nibble_level_count(void) { return sizeof levels / sizeof levels[0]; }
const nibble_kernels *nibble_level(int index) { return &levels[index]; }
const char *nibble_level_name(const nibble_kernels *kernels) { return kernels->level; }

#if defined(__x86_64__)
// Tile registers enlarge what Linux saves of a thread, so a process has to ask for them; asking again changes nothing.
static bool has_amx(void) {
  enum { request_permission = 0x1023, tile_data = 18 };  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  if (!__builtin_cpu_supports("amx-tile") || !__builtin_cpu_supports("amx-int8") || !__builtin_cpu_supports("amx-bf16"))
    return false;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif

static uint32_t machine_features(void) {
  uint32_t features = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) return 0;
  features |= AVX2;
  if (__builtin_cpu_supports("avxvnni")) features |= AVXVNNI;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512cd"))
    return features;
  features |= AVX512;
  if (__builtin_cpu_supports("avx512vnni")) features |= AVX512VNNI;
  if (__builtin_cpu_supports("avx512bf16")) features |= AVX512BF16;
  if (has_amx()) features |= AMX;
#elif defined(__aarch64__)
  features |= NEON;
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) features |= DOTPROD;
  if (getauxval(AT_HWCAP2) & HWCAP2_I8MM) features |= I8MM;
#endif
  return features;
}

static bool covers(uint32_t features, const nibble_kernels *kernels) { return (kernels->features & ~features) == 0; }

bool nibble_level_is_supported(const nibble_kernels *kernels) { return covers(machine_features(), kernels); }

const nibble_kernels *nibble_best_level(void) {
  uint32_t features = machine_features();
#if defined(__x86_64__)
  // Intel's vdpbf16ps occupies both ports for two cycles; in that time two float32 fused multiply-adds do twice the work.
  if (__builtin_cpu_is("intel") && !(features & AMX)) features &= ~(uint32_t)AVX512BF16;
#endif
  int best = 0;
  for (int i = 1; i < nibble_level_count(); i++)
    if (covers(features, &levels[i])) best = i;
  return &levels[best];
}

const nibble_kernels *nibble_standard_level(void) {
  const char *name = getenv("NIBBLE_CPU");
  for (int i = 0; name && i < nibble_level_count(); i++)
    if (!strcmp(levels[i].level, name) && nibble_level_is_supported(&levels[i])) return &levels[i];
  return nibble_best_level();
}
