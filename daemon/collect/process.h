/* A process as /proc tells it. A pid is identified by pidfd and start time, never by number alone. Thread: any. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

enum { PROCESS_COMM_BYTES = 64 };

struct process {
	pid_t pid;
	pid_t tgid;
	char comm[PROCESS_COMM_BYTES]; /* as it is: any bytes but NUL */
	char state;                    /* R S D Z ... */
	bool is_kernel_thread;
	bool is_exiting;
	uint64_t start_ticks; /* USER_HZ since boot */
	uint32_t threads;
};

/* Parses one /proc/PID/stat line. -EINVAL when it is not one. tgid is not in it: *ret has tgid 0. */
int process_parse_stat(const char *text, struct process *ret);

/* Reads /proc/PID. -ESRCH when there is none. */
int process_read(pid_t pid, struct process *ret);

/* A thread of the process that can be asked about its memory: pid itself, unless the leader has ended before its threads. */
pid_t process_living_thread(pid_t pid);
/* The number that thread tid of process pid has in its innermost pid namespace (what gettid() returns there). -ESRCH; -EINVAL. */
int process_inner_tid(pid_t pid, pid_t tid, uint32_t *ret);
/* A thread by its own stat file: cpu_ticks and start_ticks are the thread's; tgid is pid. (/proc/TID/stat would sum up the whole process each time: so much
 * for each of 10,000 threads takes minutes.) -ESRCH; -EINVAL. */
int process_read_thread(pid_t pid, pid_t tid, struct process *ret);
/* Whether the process is in our time namespace: then start times are as /proc shows them to us. False when it cannot be known. */
bool process_shares_time(pid_t pid);
/* Where the program's stack begins (mm->start_stack), by which one program in this process is told from another; of a thread's number as well.
 * 0 when it cannot be seen. */
uint64_t process_start_stack(pid_t tid);

/* Opens a pidfd and checks, before and after, that it is a live process (not a thread, a kernel thread or a zombie):
 * -ESRCH, -EINVAL, -EOPNOTSUPP with a text for people. *ret_pidfd is the caller's. */
int process_open(pid_t pid, int *ret_pidfd, struct process *ret, struct error *err);
/* CPU time of all its threads, ended ones included; 0 when there is no such process. */
uint64_t process_cpu_ns(pid_t pid);
/* Whether the process of this pidfd has exited. */
bool process_has_exited(int pidfd);

/* The target's control group as a path ("/system.slice/x.service"), v2 if there is one; "" when unknown. */
void process_cgroup(pid_t pid, char *ret, size_t bytes);

/* Who owns it, by the rule of ptrace access: may a user with these ids (and no capabilities) look into this process? All of the target's real,
 * effective and saved ids must be the user's, it must be dumpable, hold no capabilities, and live in the same user namespace. */
bool process_is_wholly_own(pid_t pid, uid_t uid, gid_t gid);
/* The user whose wholly own process it is; false: nobody's. */
bool process_whole_owner(pid_t pid, uid_t *ret_uid, gid_t *ret_gid);
