/* Clocks in nanoseconds. */
#pragma once
#include <stdint.h>

#define NS_PER_S  UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

uint64_t clock_monotonic_ns(void); /* CLOCK_MONOTONIC, as bpf_ktime_get_ns() */
uint64_t clock_boottime_ns(void);  /* CLOCK_BOOTTIME, as task->start_boottime */
uint64_t clock_realtime_ns(void);  /* since the Unix epoch */
uint64_t clock_thread_cpu_ns(void);
uint64_t clock_process_cpu_ns(void);
