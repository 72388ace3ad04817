/* A Status with whatever strings and numbers, as JSON and as OpenMetrics: valid JSON must come out, and text that ends as it must. */
#include <json-c/json.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "serve/json.h"
#include "serve/openmetrics.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(int condition)
{
	if (!condition)
		abort();
}

static void check_json(const Sprof__Control__Status *status)
{
	char *text;
	size_t bytes;
	require(json_format(&status->base, &text, &bytes) == 0 && strlen(text) == bytes);
	struct json_tokener *tokener = json_tokener_new();
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	struct json_object *object = json_tokener_parse_ex(tokener, text, (int)bytes);
	require(object != NULL);
	json_object_put(object);
	json_tokener_free(tokener);
	free(text);
}

static void check_openmetrics(const Sprof__Control__Status *status)
{
	char *text;
	size_t bytes;
	require(openmetrics_format(status, &text, &bytes) == 0 && strlen(text) == bytes);
	require(bytes > 6 && strcmp(text + bytes - 6, "# EOF\n") == 0);
	/* One end, and every line begins as a line may: nothing that a label holds has broken out of it. */
	for (const char *line = text; *line; line = strchr(line, '\n') + 1)
		require(strncmp(line, "sprofd_", 7) == 0 || strncmp(line, "# HELP sprofd_", 14) == 0 ||
			strncmp(line, "# TYPE sprofd_", 14) == 0 || strncmp(line, "# UNIT sprofd_", 14) == 0 ||
			line == text + bytes - 6);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	Sprof__Control__Status *status = sprof__control__status__unpack(NULL, bytes, data);
	if (!status)
		return 0;
	check_json(status);
	check_openmetrics(status);
	sprof__control__status__free_unpacked(status, NULL);
	return 0;
}
