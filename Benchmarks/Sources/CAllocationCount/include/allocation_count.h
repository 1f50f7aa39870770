// Counts allocations of the whole process: an executable that links this has malloc and its relatives go through it.
#pragma once

#include <stdint.h>

/// Calls of malloc, calloc, realloc, aligned_alloc, memalign and posix_memalign so far.
uint64_t allocation_count(void);
