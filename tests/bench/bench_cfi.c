/* How large compact unwind tables are, and how long they take to make and to check:
 *     bench_cfi [FILE...]        by default, the large ones of this machine that are there
 * Prints the table of docs/BENCHMARKS.md. Times are of the CPU, median and least of RUNS, the file in the page cache. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "elf/cfi_build.h"
#include "model/cfi_check.h"

enum { RUNS = 11, HEAP_KEPT_BYTES = 8 << 20, MMAP_THRESHOLD_BYTES = 32 << 20 };

static int compare(const void *left, const void *right)
{
	const uint64_t *a = left, *b = right;
	return (*a > *b) - (*a < *b);
}

static void sort(uint64_t *ns)
{
	qsort(ns, RUNS, sizeof(ns[0]), compare);
}

static double ms(uint64_t ns)
{
	return (double)ns / (double)NS_PER_MS;
}

static int measure(struct scratch *scratch, const char *path)
{
	uint64_t build_ns[RUNS], check_ns[RUNS];
	struct cfi_table table = {};
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	for (int i = 0; i < RUNS; i++) {
		scratch_reset(scratch); /* as sprofd-elf does behind each */
		uint64_t start_ns = clock_thread_cpu_ns();
		int r = cfi_build_in(scratch, fd, &table);
		build_ns[i] = clock_thread_cpu_ns() - start_ns;
		if (r < 0)
			return r;
		start_ns = clock_thread_cpu_ns();
		if (!cfi_table_check(table.bytes, table.n))
			return -EBADMSG;
		check_ns[i] = clock_thread_cpu_ns() - start_ns;
	}
	sort(build_ns);
	sort(check_ns);
	const struct cfi_build_stats *stats = &table.stats;
	double rows = (double)stats->n_rows;
	printf("| %s | %zu | %zu | %zu | %zu | %.2f | %.2f | %.2f | %.1f (%.1f) | %.1f (%.1f) | %zu, %zu, %zu |\n",
	       strrchr(path, '/') ? strrchr(path, '/') + 1 : path, (size_t)stats->n_fdes, (size_t)stats->n_rows,
	       (size_t)stats->n_rules, table.n, 4.0 * (double)stats->n_index / rows,
	       (double)(stats->n_rules * sizeof(struct cfi_rule) + stats->n_code_bytes) / rows, (double)table.n / rows,
	       ms(build_ns[RUNS / 2]), ms(build_ns[0]), ms(check_ns[RUNS / 2]), ms(check_ns[0]),
	       (size_t)stats->n_malformed, (size_t)stats->n_unsupported, (size_t)stats->n_registers_lost);
	return 0;
}

int main(int argc, char **argv)
{
	static const char *const usual[] = {
		"/lib64/ld-linux-x86-64.so.2",
		"/lib/x86_64-linux-gnu/libc.so.6",
		"/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
		"/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
		"/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1",
		"/usr/lib/x86_64-linux-gnu/libclang-cpp.so.14",
		"/usr/bin/node",
	};
	size_t n = argc > 1 ? (size_t)argc - 1 : sizeof(usual) / sizeof(usual[0]);
	int failed = 0;
	struct scratch scratch = {};
	mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES); /* as in sprofd-elf */
	mallopt(M_TRIM_THRESHOLD, HEAP_KEPT_BYTES);
	puts("| file | FDEs | rows | rules | bytes of the table | a row: index, bytes | a row: rules and code, bytes | "
	     "a row, all told, bytes | made in, ms of CPU: median (least) | checked in, ms | malformed, not "
	     "expressible, "
	     "registers lost |\n|---|---|---|---|---|---|---|---|---|---|---|");
	for (size_t i = 0; i < n; i++) {
		const char *path = argc > 1 ? argv[i + 1] : usual[i];
		int r = measure(&scratch, path);
		if (r == -ENOENT && argc == 1)
			continue; /* not installed */
		if (r < 0) {
			fprintf(stderr, "%s: %s\n", path, strerror(-r));
			failed = 1;
		}
	}
	scratch_release(&scratch);
	return failed;
}
