#include "sprofctl/pull.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "sprofctl/api.h"
#include "sprofctl/cleanup.h"
#include "sprofctl/commands.h"
#include "sprofctl/output_file.h"

enum { BUILD_TIMEOUT_S = 120, MAX_SAME_NAMES = 1000, NAME_BYTES = 100 };

struct progress {
	const struct command_line *command_line;
	const struct pull_sink *sink;
	bool shown, is_terminal;
	time_t begin;
	size_t bytes;
};

static time_t monotonic_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static int on_data(void *context, const uint8_t *data, size_t bytes, struct problem *problem)
{
	struct progress *progress = context;
	progress->bytes += bytes;
	return progress->sink->write(progress->sink->context, data, bytes, problem);
}

static void on_tick(void *context)
{
	struct progress *progress = context;
	long passed = (long)(monotonic_s() - progress->begin);
	if (!progress->is_terminal || !progress->command_line->has_seconds)
		return;
	progress->shown = true;
	if (passed < progress->command_line->seconds)
		fprintf(stderr, "\r\033[Ksampling %" PRIu32 ": %ld of %" PRIu32 " s", progress->command_line->pid,
			passed, progress->command_line->seconds);
	else
		fprintf(stderr, "\r\033[Kwaiting for the profile");
}

/* Without --seconds there must be something to pull: the daemon would else attach for its default of 30 s, which suits curl, but
 * is not what was asked for here. */
static int check_attached(const struct command_line *command_line, struct problem *problem)
{
	char path[64];
	ProtobufCMessage *target;
	snprintf(path, sizeof(path), "/v1/targets/%" PRIu32, command_line->pid);
	int r = api_call(command_line->socket, "GET", path, NULL, &sprof__control__target__descriptor, &target,
			 problem);
	if (r == 0)
		protobuf_c_message_free_unpacked(target, NULL);
	return r;
}

int pull_profile(const struct command_line *command_line, const struct pull_sink *sink, struct problem *problem)
{
	char path[100];
	struct progress progress = {.command_line = command_line,
				    .sink = sink,
				    .is_terminal = isatty(STDERR_FILENO),
				    .begin = monotonic_s()};
	int r = command_line->has_seconds ? 0 : check_attached(command_line, problem);
	if (r < 0)
		return r;
	int length = snprintf(path, sizeof(path), "/debug/pprof/profile?pid=%" PRIu32, command_line->pid);
	if (command_line->has_seconds)
		length += snprintf(path + length, sizeof(path) - (size_t)length, "&seconds=%" PRIu32,
				   command_line->seconds);
	if (command_line->no_symbols)
		snprintf(path + length, sizeof(path) - (size_t)length, "&symbols=0");
	struct http_request request = {
		.socket = command_line->socket,
		.method = "GET",
		.path = path,
		.accept = API_PROTOBUF, /* of a refusal */
		.timeout_s = command_line->seconds + BUILD_TIMEOUT_S,
		.sink = on_data,
		.tick = on_tick,
		.context = &progress,
		.interrupt_fd = sink->interrupt_fd,
	};
	struct http_answer answer = {0};
	r = http_exchange(&request, &answer, problem);
	if (r == 0)
		r = api_check(&answer, problem);
	free(answer.body);
	if (progress.shown)
		fputs("\r\033[K", stderr);
	if (r == 0 && progress.bytes == 0)
		r = problem_set(problem, EPROTO, "the profile on %s is empty: is it sprofd's socket?",
				command_line->socket);
	return r;
}

static int write_stdout(void *context, const uint8_t *data, size_t bytes, struct problem *problem)
{
	(void)context;
	int r = write_all(STDOUT_FILENO, data, bytes);
	return r < 0 ? problem_set(problem, -r, "cannot write to standard output: %s", strerror(-r)) : 0;
}

static int pull_to_stdout(const struct command_line *command_line, struct problem *problem)
{
	struct pull_sink sink = {.write = write_stdout, .interrupt_fd = -1};
	if (isatty(STDOUT_FILENO))
		return problem_set(
			problem, EINVAL,
			"a profile is binary, and standard output is a terminal: redirect it, or use --output=FILE");
	return pull_profile(command_line, &sink, problem);
}

static int write_file(void *context, const uint8_t *data, size_t bytes, struct problem *problem)
{
	return output_file_write(context, data, bytes, problem);
}

/* The n-th choice of a name for what is pulled now. */
static void default_name(uint32_t pid, time_t now, int n, char ret[NAME_BYTES])
{
	char stamp[32], more[16] = "";
	struct tm utc;
	strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", gmtime_r(&now, &utc));
	if (n > 0)
		snprintf(more, sizeof(more), ".%d", n);
	snprintf(ret, NAME_BYTES, "sprofd.%" PRIu32 ".%s%s.pb.gz", pid, stamp, more);
}

/* Under the first of our names that is free: two pulls in one second do not overwrite each other. */
static int commit_default(struct output_file *file, uint32_t pid, struct problem *problem)
{
	time_t now = time(NULL);
	int r = -EEXIST;
	for (int n = 0; r == -EEXIST && n < MAX_SAME_NAMES; n++) {
		default_name(pid, now, n, file->final);
		r = output_file_commit(file, false, problem);
	}
	if (r == 0)
		printf("%s\n", file->final);
	return r;
}

static int pull_to_file(const struct command_line *command_line, int interrupt_fd, struct problem *problem)
{
	_cleanup_(output_file_close) struct output_file file = {.fd = -1};
	struct pull_sink sink = {.write = write_file, .context = &file, .interrupt_fd = interrupt_fd};
	char name[NAME_BYTES];
	default_name(command_line->pid, time(NULL), 0, name);
	/* Opened first, so that nobody waits for a profile that has no place to go. */
	int r = output_file_open(&file, command_line->output ? command_line->output : name, problem);
	if (r == 0)
		r = pull_profile(command_line, &sink, problem);
	if (r < 0)
		return r;
	return command_line->output ? output_file_commit(&file, true, problem)
				    : commit_default(&file, command_line->pid, problem);
}

/* The signals that would end us, but for those that whoever started us has us ignore (nohup). */
static void ending_signals(sigset_t *ret)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	sigemptyset(ret);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		struct sigaction action;
		if (sigaction(numbers[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
			sigaddset(ret, numbers[i]);
	}
}

int command_pull(const struct command_line *command_line, struct problem *problem)
{
	sigset_t signals, before;
	if (command_line->output && !strcmp(command_line->output, "-"))
		return pull_to_stdout(command_line, problem);
	/* These end us only after the temporary file is gone. */
	ending_signals(&signals);
	sigprocmask(SIG_BLOCK, &signals, &before);
	_cleanup_close_ int interrupt_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	int r = interrupt_fd < 0 ? problem_set(problem, errno, "cannot wait for signals: %s", strerror(errno))
				 : pull_to_file(command_line, interrupt_fd, problem);
	sigprocmask(SIG_SETMASK, &before, NULL); /* a signal that came is delivered here */
	return r;
}
