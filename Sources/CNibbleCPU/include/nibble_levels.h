// Instruction levels: named sets of instructions, each with kernels of its own. A thread pool is made for one level; tasks find
// its kernels in their arguments, so that pools of different levels run side by side.
#pragma once

#include <stdbool.h>

/// The kernels of one level.
typedef struct nibble_kernels nibble_kernels;

/// How many levels this architecture has. Level 0 is "generic", the plain one, which every machine runs.
int nibble_level_count(void);
/// Level `index`; a later one needs more of the machine.
const nibble_kernels *nibble_level(int index);
/// What the environment variable NIBBLE_CPU calls the level.
const char *nibble_level_name(const nibble_kernels *kernels);
/// Whether this machine, and the operating system for this process, can run the level.
bool nibble_level_is_supported(const nibble_kernels *kernels);
/// The fastest level this machine runs.
const nibble_kernels *nibble_best_level(void);
/// The level that the environment variable NIBBLE_CPU names, or the fastest where it names none that this machine runs.
const nibble_kernels *nibble_standard_level(void);
