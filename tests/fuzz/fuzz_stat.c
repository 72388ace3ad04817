/* /proc/PID/stat: the name in parentheses is chosen by the target. */
#undef NDEBUG /* a check that is left out checks nothing */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "collect/process.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	char *text = malloc(bytes + 1);
	struct process process;
	if (!text)
		return 0;
	memcpy(text, data, bytes);
	text[bytes] = '\0';
	if (process_parse_stat(text, &process) == 0) {
		size_t length = strnlen(process.comm, sizeof(process.comm));
		assert(length < sizeof(process.comm));
		assert(strncmp(strchr(text, '(') + 1, process.comm, length) == 0);
		assert(process.tgid == 0);
	}
	free(text);
	return 0;
}
