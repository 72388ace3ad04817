/* /proc/PID/maps: names of mappings are chosen by the target. */
#undef NDEBUG /* a check that is left out checks nothing */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "collect/proc_maps.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void parse_line(const uint8_t *data, size_t bytes)
{
	char *line = malloc(bytes + 1); /* of its very size */
	struct proc_maps_line parsed;
	if (!line)
		return;
	memcpy(line, data, bytes);
	line[bytes] = '\0';
	size_t length = strlen(line);
	if (proc_maps_parse_line(line, &parsed) == 0) {
		assert(parsed.start < parsed.end);
		assert(strlen(parsed.protection) == 4);
		assert(parsed.name == line + length || *parsed.name == '\0' ||
		       (parsed.name > line && parsed.name < line + length));
		assert(parsed.name + strlen(parsed.name) <= line + length);
	}
	free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	while (bytes) {
		const uint8_t *end = memchr(data, '\n', bytes);
		size_t length = end ? (size_t)(end - data) : bytes;
		parse_line(data, length);
		data += length + (end != NULL);
		bytes -= length + (end != NULL);
	}
	return 0;
}
