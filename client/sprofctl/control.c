/* attach, detach, rate: requests that change a target and are answered with it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "sprofctl/api.h"
#include "sprofctl/commands.h"
#include "sprofctl/printable.h"

enum { COMM_BYTES = 80 };

static void free_target(Sprof__Control__Target **target)
{
	if (*target)
		sprof__control__target__free_unpacked(*target, NULL);
}
#define _cleanup_target_ __attribute__((cleanup(free_target)))

/* The target as the request left it; NULL with *problem. */
static Sprof__Control__Target *call(const struct command_line *command_line, const char *method, const char *path,
				    const ProtobufCMessage *body, struct problem *problem)
{
	ProtobufCMessage *answer;
	int r = api_call(command_line->socket, method, path, body, &sprof__control__target__descriptor, &answer,
			 problem);
	return r < 0 ? NULL : (Sprof__Control__Target *)answer;
}

static void target_path(const struct command_line *command_line, char ret[64])
{
	snprintf(ret, 64, "/v1/targets/%" PRIu32, command_line->pid);
}

static void print_note(const Sprof__Control__Target *target)
{
	char note[500];
	if (target->note[0])
		printf("note: %s\n", printable(target->note, note, sizeof(note)));
}

int command_attach(const struct command_line *command_line, struct problem *problem)
{
	Sprof__Control__AttachRequest request = SPROF__CONTROL__ATTACH_REQUEST__INIT;
	char comm[COMM_BYTES];
	request.pid = command_line->pid;
	request.frequency_hz = command_line->frequency_hz;
	request.event = command_line->event;
	_cleanup_target_ Sprof__Control__Target *target =
		call(command_line, "POST", "/v1/targets", &request.base, problem);
	if (!target)
		return -EREMOTEIO;
	printf("attached %" PRIu32 " (%s): %" PRIu32 " thread%s at %" PRIu32 " Hz\n", target->pid,
	       printable(target->comm, comm, sizeof(comm)), target->threads, target->threads == 1 ? "" : "s",
	       target->frequency_hz);
	print_note(target);
	return 0;
}

int command_detach(const struct command_line *command_line, struct problem *problem)
{
	char path[64], comm[COMM_BYTES];
	target_path(command_line, path);
	_cleanup_target_ Sprof__Control__Target *target = call(command_line, "DELETE", path, NULL, problem);
	if (!target)
		return -EREMOTEIO;
	printf("detached %" PRIu32 " (%s): its profile of %" PRIu64
	       " samples stays pullable for a while: sprofctl pull %" PRIu32 "\n",
	       target->pid, printable(target->comm, comm, sizeof(comm)), target->samples, target->pid);
	print_note(target);
	return 0;
}

int command_rate(const struct command_line *command_line, struct problem *problem)
{
	Sprof__Control__RateRequest request = SPROF__CONTROL__RATE_REQUEST__INIT;
	char path[64], comm[COMM_BYTES];
	target_path(command_line, path);
	request.frequency_hz = command_line->frequency_hz;
	_cleanup_target_ Sprof__Control__Target *target = call(command_line, "PATCH", path, &request.base, problem);
	if (!target)
		return -EREMOTEIO;
	printf("%" PRIu32 " (%s): %" PRIu32 " thread%s at %" PRIu32 " Hz now\n", target->pid,
	       printable(target->comm, comm, sizeof(comm)), target->threads, target->threads == 1 ? "" : "s",
	       target->frequency_hz);
	print_note(target);
	return 0;
}
