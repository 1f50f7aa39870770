// A fixed set of threads that runs loops: a dispatch costs a few microseconds and allocates nothing.
#pragma once

#include <stddef.h>

typedef struct nibble_pool nibble_pool;

/// Handles items `begin ..< end` on thread `thread` (0 is the caller's).
typedef void (*nibble_task)(void *context, size_t begin, size_t end, int thread);

/// `threads` counts the calling thread. NULL if threads cannot be made.
nibble_pool *nibble_pool_create(int threads);
void nibble_pool_destroy(nibble_pool *pool);
int nibble_pool_threads(const nibble_pool *pool);

/// Splits `count` items into one contiguous range per thread (the same for the same count, in multiples of `grain`) and returns
/// when all are done. Inside a task it runs inline.
void nibble_pool_run(nibble_pool *pool, size_t count, size_t grain, nibble_task task, void *context);

/// As `nibble_pool_run`, but threads fetch `grain` items at a time: for items of unequal cost.
void nibble_pool_run_dynamic(nibble_pool *pool, size_t count, size_t grain, nibble_task task, void *context);

/// Excludes other callers. The holder may dispatch. Recursive.
void nibble_pool_lock(nibble_pool *pool);
void nibble_pool_unlock(nibble_pool *pool);

/// Cores this process may use: its affinity mask without hyperthread siblings, and no more than its cgroup's quota.
int nibble_available_cores(void);
