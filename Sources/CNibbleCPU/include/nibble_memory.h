// Large aligned allocations.
#pragma once

#include <stddef.h>

/// Uninitialised memory aligned to a cache line (large pages where the system offers them), or NULL.
void *nibble_allocate(size_t bytes);
void nibble_free(void *memory);

/// A task that reads `NIBBLE_READ_GRAIN` bytes of aligned memory per item and does hardly anything else, to measure bandwidth.
enum { NIBBLE_READ_GRAIN = 4096 };
void nibble_read_task(void *memory, size_t begin, size_t end, int thread);
