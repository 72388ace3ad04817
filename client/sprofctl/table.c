/* table: what a process publishes in its barrier-lock table, and what is wrong with it. Fails when something is. */
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>

#include "sprofctl/api.h"
#include "sprofctl/cleanup.h"
#include "sprofctl/commands.h"
#include "sprofctl/table_text.h"

static int judge(uint32_t pid, uint64_t errors, struct problem *problem)
{
	if (errors == 0)
		return 0;
	return problem_set(problem, EPROTO,
			   "process %" PRIu32 " has no barrier-lock table that can be relied on: see the errors above",
			   pid);
}

static int show_json(const struct command_line *command_line, const char *path, struct problem *problem)
{
	_cleanup_free_ char *text = NULL;
	json_object *errors;
	int r = api_get_json(command_line->socket, path, &text, problem);
	if (r < 0)
		return r;
	json_object *table = json_tokener_parse(text);
	if (json_object_object_get_ex(table, "errors", &errors)) {
		fputs(text, stdout);
		r = judge(command_line->pid, json_object_get_uint64(errors), problem);
	} else {
		r = problem_set(problem, EPROTO,
				"the answer makes no sense: is it an sprofd of version " SPROF_VERSION "?");
	}
	json_object_put(table);
	return r;
}

int command_table(const struct command_line *command_line, struct problem *problem)
{
	char path[64];
	ProtobufCMessage *answer;
	snprintf(path, sizeof(path), "/v1/targets/%" PRIu32 "/table", command_line->pid);
	if (command_line->json)
		return show_json(command_line, path, problem);
	int r = api_call(command_line->socket, "GET", path, NULL, &sprof__control__table__descriptor, &answer, problem);
	if (r < 0)
		return r;
	const Sprof__Control__Table *table = (const Sprof__Control__Table *)answer;
	table_text(stdout, table);
	r = judge(command_line->pid, table->errors, problem);
	protobuf_c_message_free_unpacked(answer, NULL);
	return r;
}
