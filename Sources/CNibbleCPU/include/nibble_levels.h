// Which instruction sets the kernels use: found once at start, forced by the environment variable NIBBLE_CPU or by a test.
#pragma once

#include <stdint.h>

/// avx2, fma and f16c together.
#define NIBBLE_FEATURE_AVX2 (1u << 0)
/// 256-bit vpdpbusd (avxvnni).
#define NIBBLE_FEATURE_AVXVNNI (1u << 1)
/// avx512 f, bw, vl, dq and cd together.
#define NIBBLE_FEATURE_AVX512 (1u << 2)
#define NIBBLE_FEATURE_AVX512VNNI (1u << 3)
#define NIBBLE_FEATURE_AVX512VBMI (1u << 4)
#define NIBBLE_FEATURE_AVX512BF16 (1u << 5)
#define NIBBLE_FEATURE_AVX512FP16 (1u << 6)
/// aarch64's baseline.
#define NIBBLE_FEATURE_NEON (1u << 7)
/// amx tile, int8 and bf16 together, which the system allows this process to use.
#define NIBBLE_FEATURE_AMX (1u << 8)
/// aarch64's sdot.
#define NIBBLE_FEATURE_DOTPROD (1u << 9)
/// aarch64's smmla.
#define NIBBLE_FEATURE_I8MM (1u << 10)

/// A named set of features: what NIBBLE_CPU may say.
typedef struct {
  const char *name;
  uint32_t features;
} nibble_cpu_level;

/// All named levels, poorest first; `*count` receives how many.
const nibble_cpu_level *nibble_cpu_levels(int *count);

/// What this machine can run.
uint32_t nibble_cpu_supported(void);

/// What the kernels in use were chosen for: a subset of what is supported.
uint32_t nibble_cpu_features(void);

/// Finds the features and fills every kernel table; later calls do nothing. Called by the backend.
void nibble_cpu_initialize(void);

/// Fills every kernel table for the named level. Returns 0, or -1 (nothing changes) for an unknown level or one the machine
/// cannot run. Not to be called while kernels run.
int nibble_cpu_select(const char *level);

/// The name of the level in use.
const char *nibble_cpu_level_name(void);

/// The word in NIBBLE_CPU that could not be honoured, or NULL.
const char *nibble_cpu_refused_level(void);
