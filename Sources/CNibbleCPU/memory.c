#define _GNU_SOURCE
#include "nibble_memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { cache_line = 64, large_page = 2 << 20 };

void *nibble_allocate(size_t bytes) {
  size_t alignment = bytes >= 2 * (size_t)large_page ? large_page : cache_line;
  if (bytes > PTRDIFF_MAX - alignment) return NULL;
  void *memory = NULL;
  if (posix_memalign(&memory, alignment, bytes) != 0) return NULL;
  // Weights and caches are read in long runs: fewer TLB misses.
  if (alignment == large_page) madvise(memory, bytes / large_page * large_page, MADV_HUGEPAGE);
  return memory;
}

void nibble_free(void *memory) { free(memory); }
