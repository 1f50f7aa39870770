#define _GNU_SOURCE
#include "../include/nibble_memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { cache_line = 64, large_page = 2 << 20 };

void *nibble_allocate(size_t bytes) {
  if (bytes > PTRDIFF_MAX - 2 * (size_t)large_page) return NULL;
  // Large pages, for fewer TLB misses. A tail gets a large page of its own if it fills three quarters of it.
  size_t paged = (bytes + large_page / 4) / large_page * large_page, alignment = paged > 0 ? large_page : cache_line;
  void *memory = NULL;
  if (posix_memalign(&memory, alignment, paged > bytes ? paged : bytes) != 0) return NULL;
  if (paged > 0) madvise(memory, paged, MADV_HUGEPAGE);
  return memory;
}

void nibble_free(void *memory) { free(memory); }

void nibble_read_task(void *memory, size_t begin, size_t end, int thread) {
  (void)thread;
  typedef uint64_t lanes __attribute__((vector_size(16)));
  enum { SUMS = 8 };
  lanes sums[SUMS] = {};
  const lanes *from = (const lanes *)((const char *)memory + begin * NIBBLE_READ_GRAIN);
  for (size_t i = 0; i < (end - begin) * NIBBLE_READ_GRAIN / sizeof(lanes); i += SUMS) {
    __builtin_prefetch(from + i + 4096 / sizeof(lanes));
    for (size_t j = 0; j < SUMS; j++) sums[j] ^= from[i + j];
  }
  for (size_t j = 0; j < SUMS; j++) __asm__ volatile("" ::"g"(&sums[j]) : "memory");
}
