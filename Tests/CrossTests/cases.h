// Random values in memory that ends where a page does, so that reading beyond it is noticed; levels and what they may get wrong.
#pragma once

#define _GNU_SOURCE
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "nibble_levels.h"
#include "nibble_operations.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

// MARK: Memory

typedef struct {
  void *base, *data;
  size_t mapped, size;
} memory;

static void fail(const char *why) {
  perror(why);
  exit(2);
}

/// `size` bytes before a page that cannot be read.
static memory allocate(size_t size) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (size + page - 1) / page * page;
  memory m = {.mapped = used + page, .size = size};
  m.base = mmap(NULL, m.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (m.base == MAP_FAILED) fail("mmap");
  if (mprotect((char *)m.base + used, page, PROT_NONE)) fail("mprotect");
  m.data = (char *)m.base + used - size;
  return m;
}

static void release(memory *m) {
  if (m->base) munmap(m->base, m->mapped);
  *m = (memory){};
}

// MARK: Values

static uint64_t random_state;

static uint32_t random_bits(void) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(random_state >> 32);
}

/// Roughly normal, with standard deviation 1.
static float random_normal(void) {
  float sum = -2;
  for (int i = 0; i < 4; i++) sum += (float)(random_bits() >> 8) * 0x1p-24f;
  return sum * 1.7320508f;
}

static memory random_floats(size_t count, float scale, float offset) {
  memory m = allocate(count * sizeof(float));
  for (size_t i = 0; i < count; i++) ((float *)m.data)[i] = offset + scale * random_normal();
  return m;
}

static memory random_bytes(size_t count) {
  memory m = allocate(count);
  for (size_t i = 0; i < count; i++) ((uint8_t *)m.data)[i] = (uint8_t)(random_bits() >> 13);
  return m;
}

// MARK: Levels

static size_t failures, comparisons;

/// The level of that name if this machine runs it, else NULL.
static const nibble_kernels *level_named(const char *name) {
  for (int i = 0; i < nibble_level_count(); i++)
    if (strcmp(nibble_level_name(nibble_level(i)), name) == 0 && nibble_level_is_supported(nibble_level(i)))
      return nibble_level(i);
  return NULL;
}

/// The arguments of the program are names of levels that the machine must run.
static void require_levels(int count, char **arguments) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (int i = 1; i < count; i++) {
    if (level_named(arguments[i])) continue;
    printf("this machine does not run %s\n", arguments[i]);
    failures++;
  }
}

static int summarize(const char *what) {
  printf("%s of", what);
  for (int i = 1; i < nibble_level_count(); i++)
    if (nibble_level_is_supported(nibble_level(i))) printf(" %s", nibble_level_name(nibble_level(i)));
  printf(": %zu comparisons, %zu failures\n", comparisons, failures);
  return failures > 0;
}
