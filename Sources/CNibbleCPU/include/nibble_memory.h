// Large aligned allocations.
#pragma once

#include <stddef.h>

/// Uninitialised memory aligned to a cache line (large pages where the system offers them), or NULL.
void *nibble_allocate(size_t bytes);
void nibble_free(void *memory);
