/* list and status: what the daemon tells of itself and its targets, as a table, as text or as JSON. */
#include <stdio.h>

#include "sprofctl/api.h"
#include "sprofctl/cleanup.h"
#include "sprofctl/commands.h"
#include "sprofctl/report.h"

static int show_json(const struct command_line *command_line, const char *path, struct problem *problem)
{
	_cleanup_free_ char *text = NULL;
	int r = api_get_json(command_line->socket, path, &text, problem);
	if (r == 0)
		fputs(text, stdout);
	return r;
}

int command_list(const struct command_line *command_line, struct problem *problem)
{
	ProtobufCMessage *answer;
	if (command_line->json)
		return show_json(command_line, "/v1/targets", problem);
	int r = api_call(command_line->socket, "GET", "/v1/targets", NULL, &sprof__control__target_list__descriptor,
			 &answer, problem);
	if (r < 0)
		return r;
	report_list(stdout, (const Sprof__Control__TargetList *)answer);
	protobuf_c_message_free_unpacked(answer, NULL);
	return 0;
}

int command_status(const struct command_line *command_line, struct problem *problem)
{
	ProtobufCMessage *answer;
	if (command_line->json)
		return show_json(command_line, "/v1/status", problem);
	int r = api_call(command_line->socket, "GET", "/v1/status", NULL, &sprof__control__status__descriptor, &answer,
			 problem);
	if (r < 0)
		return r;
	report_status(stdout, (const Sprof__Control__Status *)answer, command_line->socket);
	protobuf_c_message_free_unpacked(answer, NULL);
	return 0;
}
