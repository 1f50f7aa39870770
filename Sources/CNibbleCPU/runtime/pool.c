#define _GNU_SOURCE
#include "../include/nibble_pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// A dispatch publishes the job and advances `epoch`, which the workers watch. They spin for a while, because the next operation
// of a forward pass follows within microseconds, then sleep. The caller takes part and waits for `pending` to reach zero.

enum { cache_line = 64, pure_spin_ns = 10000, spin_ns = 50000 };

typedef struct {
  size_t count, grain;
  nibble_task task;
  void *context;
  int is_dynamic;
} job;

struct nibble_pool {
  int threads;
  pthread_mutex_t mutex;
  pthread_t *workers;
  job job;
  alignas(cache_line) _Atomic uint32_t epoch;
  _Atomic uint32_t sleepers;
  _Atomic int stopping;
  alignas(cache_line) _Atomic uint32_t pending;
  _Atomic uint32_t caller_sleeps;
  alignas(cache_line) _Atomic size_t next;
};

typedef struct {
  nibble_pool *pool;
  int index;
} worker_start;

// The index of the thread while it is inside a task, where a further dispatch must run inline; −1 outside.
static _Thread_local int task_thread = -1;

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0); }

// Spins until `*word` differs from `value` (or equals it, if `until_equal`). Returns 0 when the time for spinning is over.
// Yields after a while, so that an oversubscribed machine can run the thread it waits for.
static int spin(_Atomic uint32_t *word, uint32_t value, int until_equal) {
  int64_t start = 0;
  for (;;) {
    for (int i = 0; i < 32; i++) {
      if ((atomic_load_explicit(word, memory_order_acquire) == value) == until_equal) return 1;
      relax();
    }
    int64_t now = now_ns();
    if (!start) start = now;
    if (now - start > spin_ns) return 0;
    if (now - start > pure_spin_ns) sched_yield();
  }
}

static void run_share(nibble_pool *pool, int index) {
  const job *job = &pool->job;
  if (job->is_dynamic) {
    for (;;) {
      size_t begin = atomic_fetch_add_explicit(&pool->next, job->grain, memory_order_relaxed);
      if (begin >= job->count) return;
      size_t end = job->count - begin < job->grain ? job->count : begin + job->grain;
      job->task(job->context, begin, end, index);
    }
  }
  size_t grains = (job->count + job->grain - 1) / job->grain;
  size_t threads = (size_t)pool->threads, t = (size_t)index;
  size_t share = grains / threads, rest = grains % threads;
  size_t first = t * share + (t < rest ? t : rest);
  size_t begin = first * job->grain, end = (first + share + (t < rest)) * job->grain;
  if (end > job->count) end = job->count;
  if (begin < end) job->task(job->context, begin, end, index);
}

static void *work(void *argument) {
  worker_start start = *(worker_start *)argument;
  free(argument);
  nibble_pool *pool = start.pool;
  task_thread = start.index;
  uint32_t seen = 0;
  for (;;) {
    while (!spin(&pool->epoch, seen, 0)) {
      atomic_fetch_add(&pool->sleepers, 1);
      if (atomic_load(&pool->epoch) == seen) futex_wait(&pool->epoch, seen);
      atomic_fetch_sub(&pool->sleepers, 1);
    }
    seen = atomic_load_explicit(&pool->epoch, memory_order_acquire);
    if (atomic_load_explicit(&pool->stopping, memory_order_relaxed)) return NULL;
    run_share(pool, start.index);
    if (atomic_fetch_sub(&pool->pending, 1) == 1 && atomic_load(&pool->caller_sleeps)) futex_wake_all(&pool->pending);
  }
}

static void publish(nibble_pool *pool) {
  atomic_fetch_add(&pool->epoch, 1);
  if (atomic_load(&pool->sleepers)) futex_wake_all(&pool->epoch);
}

static void await_workers(nibble_pool *pool) {
  while (!spin(&pool->pending, 0, 1)) {
    uint32_t left = atomic_load(&pool->pending);
    atomic_store(&pool->caller_sleeps, 1);
    if (left && atomic_load(&pool->pending) == left) futex_wait(&pool->pending, left);
    atomic_store(&pool->caller_sleeps, 0);
  }
}

static void dispatch(nibble_pool *pool, job job) {
  if (job.count == 0) return;
  if (job.grain == 0) job.grain = 1;
  if (pool->threads == 1 || task_thread >= 0 || job.count <= job.grain) {
    job.task(job.context, 0, job.count, task_thread >= 0 ? task_thread : 0);
    return;
  }
  pthread_mutex_lock(&pool->mutex);
  pool->job = job;
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->pending, (uint32_t)pool->threads - 1, memory_order_relaxed);
  publish(pool);
  task_thread = 0;
  run_share(pool, 0);
  task_thread = -1;
  await_workers(pool);
  pthread_mutex_unlock(&pool->mutex);
}

void nibble_pool_run(nibble_pool *pool, size_t count, size_t grain, nibble_task task, void *context) {
  dispatch(pool, (job){count, grain, task, context, 0});
}

void nibble_pool_run_dynamic(nibble_pool *pool, size_t count, size_t grain, nibble_task task, void *context) {
  dispatch(pool, (job){count, grain, task, context, 1});
}

void nibble_pool_lock(nibble_pool *pool) { pthread_mutex_lock(&pool->mutex); }
void nibble_pool_unlock(nibble_pool *pool) { pthread_mutex_unlock(&pool->mutex); }
int nibble_pool_threads(const nibble_pool *pool) { return pool->threads; }

static int start_worker(nibble_pool *pool, int index) {
  worker_start *start = malloc(sizeof *start);
  if (!start) return -1;
  *start = (worker_start){pool, index};
  if (pthread_create(&pool->workers[index - 1], NULL, work, start) == 0) return 0;
  free(start);
  return -1;
}

nibble_pool *nibble_pool_create(int threads) {
  nibble_pool *pool = aligned_alloc(cache_line, (sizeof *pool + cache_line - 1) / cache_line * cache_line);
  if (!pool) return NULL;
  *pool = (nibble_pool){.threads = 1};
  pthread_mutexattr_t recursive;
  pthread_mutexattr_init(&recursive);
  pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&pool->mutex, &recursive);
  pthread_mutexattr_destroy(&recursive);
  pool->workers = calloc((size_t)(threads > 1 ? threads : 1), sizeof(pthread_t));
  if (!pool->workers) {
    free(pool);
    return NULL;
  }
  // Fewer threads than asked for still make a working pool.
  for (int index = 1; index < threads && start_worker(pool, index) == 0; index++) pool->threads = index + 1;
  return pool;
}

void nibble_pool_destroy(nibble_pool *pool) {
  atomic_store(&pool->stopping, 1);
  publish(pool);
  for (int index = 1; index < pool->threads; index++) pthread_join(pool->workers[index - 1], NULL);
  pthread_mutex_destroy(&pool->mutex);
  free(pool->workers);
  free(pool);
}
