#define _GNU_SOURCE
#include "../include/nibble_pool.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// The lowest-numbered hyperthread of the core that `cpu` belongs to; `cpu` itself if the system does not say.
static int core_leader(int cpu) {
  char path[96];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
  FILE *file = fopen(path, "r");
  if (!file) return cpu;
  int leader = cpu;
  if (fscanf(file, "%d", &leader) != 1 || leader < 0 || leader >= CPU_SETSIZE) leader = cpu;
  fclose(file);
  return leader;
}

// The CPU quota of the control group in cores, rounded up; 0 if unlimited.
static int cgroup_quota(void) {
  FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
  if (!file) return 0;
  long quota = 0, period = 0;
  int fields = fscanf(file, "%ld %ld", &quota, &period);
  fclose(file);
  if (fields != 2 || quota <= 0 || period <= 0) return 0;
  return (int)((quota + period - 1) / period);
}

int nibble_available_cores(void) {
  cpu_set_t allowed, leaders;
  CPU_ZERO(&leaders);
  int cores = 0;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
      if (CPU_ISSET(cpu, &allowed)) CPU_SET(core_leader(cpu), &leaders);
    cores = CPU_COUNT(&leaders);
  } else {
    cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
  }
  int quota = cgroup_quota();
  if (quota > 0 && quota < cores) cores = quota;
  return cores > 0 ? cores : 1;
}
