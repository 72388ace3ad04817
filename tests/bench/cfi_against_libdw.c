/* Holds the unwind tables of whole files against libdw, every row: cfi_against_libdw FILE... ; exit status 1 when any differs. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "unit/cfi_oracle.h"

int main(int argc, char **argv)
{
	int failed = argc < 2;
	puts("| file | rows compared | different | ends | signal frames | PLT, DRAP and other expressions | refused by "
	     "libdw | "
	     "libdw has nothing |\n|---|---|---|---|---|---|---|---|");
	for (int i = 1; i < argc; i++) {
		struct cfi_oracle_result result;
		int r = cfi_oracle_compare(argv[i], 1, &result);
		if (r < 0) {
			fprintf(stderr, "%s: %s\n", argv[i], strerror(-r));
			failed = 1;
			continue;
		}
		printf("| %s | %" PRIu64 " | %" PRIu64 " | %" PRIu64 " | %" PRIu64 " | %" PRIu64 " | %" PRIu64
		       " | %" PRIu64 " |\n",
		       argv[i], result.n_compared, result.n_different, result.n_ends, result.n_signal_frames,
		       result.n_expressions, result.n_refused, result.n_only_ours);
		fflush(stdout);
		failed |= result.n_different > 0;
	}
	return failed;
}
