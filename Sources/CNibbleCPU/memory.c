#define _GNU_SOURCE
#include "nibble_memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { cache_line = 64, large_page = 2 << 20 };

void *nibble_allocate(size_t bytes) {
  size_t alignment = bytes >= large_page ? large_page : cache_line;
  if (bytes > PTRDIFF_MAX - alignment) return NULL;
  // Weights and caches are read in long runs: fewer TLB misses. A tail gets a page of its own where it nearly fills it.
  size_t paged = bytes >= large_page ? (bytes + large_page / 4) / large_page * large_page : 0;
  void *memory = NULL;
  if (posix_memalign(&memory, alignment, paged > bytes ? paged : bytes) != 0) return NULL;
  if (paged > 0) madvise(memory, paged, MADV_HUGEPAGE);
  return memory;
}

void nibble_free(void *memory) { free(memory); }
