/* Writes functions into memory and calls them, and tells of them as JITs do: in /tmp/perf-PID.map, and with --dump=1 in jit-PID.dump (in the
 * current directory), with lines. At SIGUSR1 it replaces one function by another at the same place. With --turn-ms=N it does so all the time: jit_even,
 * called by drive_even, is there for three times N ms of CPU time, jit_odd, called by drive_odd, for N. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "target.h"

enum { CODE_BYTES = 4096, SLOT_BYTES = 64 };

typedef void jit_function(uint64_t iterations);

/* push %rbp; mov %rsp,%rbp; mov %rdi,%rax; 1: dec %rax; jnz 1b; pop %rbp; ret */
static const uint8_t loop[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xf8, 0x48, 0xff, 0xc8, 0x75, 0xfb, 0x5d, 0xc3};

static uint8_t *code;
static FILE *map;
static int dump = -1;
static volatile sig_atomic_t replace;

static void on_usr1(int number)
{
	(void)number;
	replace = 1;
}

static void put(const void *bytes, size_t n)
{
	if (write(dump, bytes, n) != (ssize_t)n)
		target_die("jit dump");
}

static void begin_dump(void)
{
	char name[64];
	snprintf(name, sizeof(name), "jit-%d.dump", (int)getpid());
	dump = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (dump < 0)
		target_die(name);
	struct {
		uint32_t magic, version, bytes, machine, padding, pid;
		uint64_t time, flags;
	} header = {0x4A695444, 1, 40, 62, 0, (uint32_t)getpid(), target_now_ns(), 0};
	put(&header, sizeof(header));
	/* By this, profilers find the file. */
	if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, dump, 0) == MAP_FAILED)
		target_die("mmap of the jit dump");
}

static void dump_function(const uint8_t *at, const char *name, uint32_t line)
{
	static const char file[] = "/nowhere/script.src";
	struct {
		uint32_t id, bytes;
		uint64_t time, address, entries, entry_address;
		uint32_t line, discriminator;
	} lines = {2,
		   (uint32_t)(sizeof(lines) + sizeof(file)),
		   target_now_ns(),
		   (uint64_t)(uintptr_t)at,
		   1,
		   (uint64_t)(uintptr_t)at,
		   line,
		   0};
	put(&lines, sizeof(lines));
	put(file, sizeof(file));
	struct {
		uint32_t id, bytes;
		uint64_t time;
		uint32_t pid, tid;
		uint64_t vma, address, code_bytes, index;
	} load = {0,
		  (uint32_t)(sizeof(load) + strlen(name) + 1 + SLOT_BYTES),
		  target_now_ns(),
		  (uint32_t)getpid(),
		  (uint32_t)getpid(),
		  (uint64_t)(uintptr_t)at,
		  (uint64_t)(uintptr_t)at,
		  SLOT_BYTES,
		  line};
	put(&load, sizeof(load));
	put(name, strlen(name) + 1);
	put(at, SLOT_BYTES);
}

static jit_function *make(size_t slot, const char *name, uint32_t line)
{
	uint8_t *at = code + slot * SLOT_BYTES;
	memcpy(at, loop, sizeof(loop));
	fprintf(map, "%lx %x %s\n", (unsigned long)(uintptr_t)at, SLOT_BYTES, name);
	fflush(map);
	if (dump >= 0)
		dump_function(at, name, line);
	return (jit_function *)(uintptr_t)at; // NOLINT(performance-no-int-to-ptr): code that was data
}

TARGET_NOINLINE static void drive(jit_function *hot, jit_function *warm)
{
	hot(300000);
	warm(100000);
	__asm__ volatile("");
}

TARGET_NOINLINE static void drive_even(jit_function *even, uint64_t until_ns)
{
	while (target_thread_cpu_ns() < until_ns)
		even(100000);
	__asm__ volatile("# even");
}

TARGET_NOINLINE static void drive_odd(jit_function *odd, uint64_t until_ns)
{
	while (target_thread_cpu_ns() < until_ns)
		odd(100000);
	__asm__ volatile("# odd");
}

/* Both at the same place, one after the other. How much CPU time each has taken into *even_ns and *odd_ns. */
static void take_turns(uint64_t turn_ns, uint64_t *even_ns, uint64_t *odd_ns)
{
	uint64_t begin_ns = target_thread_cpu_ns();
	drive_even(make(0, "jit_even", 400), begin_ns + 3 * turn_ns);
	uint64_t middle_ns = target_thread_cpu_ns();
	drive_odd(make(0, "jit_odd", 500), middle_ns + turn_ns);
	*even_ns += middle_ns - begin_ns;
	*odd_ns += target_thread_cpu_ns() - middle_ns;
}

int main(int argc, char **argv)
{
	long seconds = 0, dumps = 0, turn_ms = 0;
	uint64_t even_ns = 0, odd_ns = 0;
	char path[64];
	const struct target_flag flags[] = {{"seconds", &seconds}, {"dump", &dumps}, {"turn-ms", &turn_ms}};
	target_parse(argc, argv, flags, 3);
	target_begin(seconds);
	signal(SIGUSR1, on_usr1);
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	map = fopen(path, "we");
	code = mmap(NULL, CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!map || code == MAP_FAILED)
		target_die(path);
	if (dumps)
		begin_dump();
	jit_function *hot = make(0, "jit_hot", 100), *warm = make(1, "jit_warm", 200);
	target_ready(NULL);
	while (!target_over()) {
		if (turn_ms)
			take_turns((uint64_t)turn_ms * 1000000, &even_ns, &odd_ns);
		else
			drive(hot, warm);
		if (replace) {
			replace = 0;
			hot = make(0, "jit_replaced", 300);
			target_ready(NULL);
		}
	}
	unlink(path);
	printf("{\"pid\": %d, \"process_cpu_ns\": %llu, \"even_ns\": %llu, \"odd_ns\": %llu}\n", (int)getpid(),
	       (unsigned long long)target_process_cpu_ns(), (unsigned long long)even_ns, (unsigned long long)odd_ns);
	return 0;
}
