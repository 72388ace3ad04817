/* What the programs to profile share. Each prints one line {"ready": PID, ...} once it does what it is for, and one line of JSON
 * with what it really did when it ends (after --seconds, or at SIGTERM), so that a test can compare a profile with the truth. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Set by SIGTERM and SIGINT once target_begin was called, and by the deadline that target_over looks at. */
extern volatile int target_stop;

struct target_flag {
	const char *name; /* "threads" for --threads=N */
	long *value;
};

/* Parses --name=N arguments (--name is 1); any other option, or an N that is no number, ends the program with 2. Returns the index of the first argument that is none of ours
 * ("--" is skipped). */
int target_parse(int argc, char **argv, const struct target_flag *flags, size_t n_flags);

/* Installs the handlers and sets the deadline; 0 seconds: none. */
void target_begin(long seconds);
bool target_over(void);

/* Prints {"ready": PID and, unless NULL, more of the object's JSON ("\"key\": value") and flushes. */
void target_ready(const char *more);

uint64_t target_now_ns(void);         /* CLOCK_MONOTONIC */
uint64_t target_thread_cpu_ns(void);  /* of the caller */
uint64_t target_process_cpu_ns(void); /* all threads, ended ones too */
pid_t target_tid(void);
void target_sleep_us(long us);

/* A chain of dependent multiplications: about a nanosecond each, whatever the alignment. Inline, so that its caller is charged. */
static inline __attribute__((always_inline)) void target_burn(uint64_t iterations)
{
	uint64_t x = iterations | 1;
	for (uint64_t i = 0; i < iterations; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		__asm__ volatile("" : "+r"(x));
	}
}
/* For functions that a profile is to show under their own names: no inlining, no specialized copies. */
#if __has_attribute(noipa)
#define TARGET_NOINLINE __attribute__((noinline, noipa))
#else
#define TARGET_NOINLINE __attribute__((noinline))
#endif

/* Ends each leaf function that a profile is to show: unlike others of the same code (which the compiler would make one), and with
 * a frame of its own (gcc gives none, whatever the options, to a leaf that leaves the stack alone). */
#define TARGET_OWN_FRAME(name)                \
	do {                                  \
		volatile char on_stack = 0;   \
		(void)on_stack;               \
		__asm__ volatile("# " #name); \
	} while (0)

/* Iterations of target_burn in a microsecond, measured now. */
uint64_t target_burn_per_us(void);

void target_die(const char *what) __attribute__((noreturn)); /* perror and exit 1 */
