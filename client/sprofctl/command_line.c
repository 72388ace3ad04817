#include "sprofctl/command_line.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sprofctl/cleanup.h"
#include "sprofctl/commands.h"

#define DEFAULT_SOCKET "/run/sprofd/sprofd.sock"

enum {
	OPTION_SOCKET = 1,
	OPTION_JSON,
	OPTION_FREQUENCY = 'F',
	OPTION_EVENT = 'e',
	OPTION_SECONDS = 's',
	OPTION_OUTPUT = 'o',
	OPTION_NO_SYMBOLS = 'N'
};
enum { EXIT_USAGE = 2, MAX_SECONDS = 86400 };

static const struct argp_option global_options[] = {
	{"socket", OPTION_SOCKET, "PATH", 0,
	 "The daemon's Unix socket (default " DEFAULT_SOCKET "; SPROFD_SOCKET in the environment sets it too)", -1},
	{0},
};
static const struct argp_option attach_options[] = {
	{"frequency", OPTION_FREQUENCY, "HZ", 0,
	 "Samples per second of CPU time and thread (default: the daemon's, 99)", 0},
	{"event", OPTION_EVENT, "EVENT", 0,
	 "auto (default), cpu-clock, or cycles, which needs a hardware counter; auto is cpu-clock", 0},
	{0},
};
static const struct argp_option json_options[] = {
	{"json", OPTION_JSON, NULL, 0, "Print the daemon's answer as JSON", 0},
	{0},
};
#define SECONDS_OPTION                                                                           \
	{                                                                                        \
		"seconds", OPTION_SECONDS, "N", 0,                                               \
			"The next N seconds; without it, all that is retained of the process", 0 \
	}
static const struct argp_option pull_options[] = {
	SECONDS_OPTION,
	{"no-symbols", OPTION_NO_SYMBOLS, NULL, 0,
	 "Without names: mappings with build ids, for symbolizing elsewhere (pprof does, where it finds the files)", 0},
	{"output", OPTION_OUTPUT, "FILE", 0,
	 "Where to write; - is stdout (default sprofd.PID.TIME.pb.gz in this directory, and the name is printed)", 0},
	{0},
};
static const struct argp_option pprof_options[] = {SECONDS_OPTION, {0}};

enum positional { POSITIONAL_NONE, POSITIONAL_PID, POSITIONAL_PID_HZ };

struct command {
	const char *name;
	command_function *run;
	enum positional positional;
	const char *arguments; /* as help shows them */
	const struct argp_option *options;
	const char *help;
};

static const struct command commands[] = {
	{"attach", command_attach, POSITIONAL_PID, "PID", attach_options,
	 "Starts to sample every thread of a process, later ones too.\vReturns once every thread is armed."},
	{"detach", command_detach, POSITIONAL_PID, "PID", NULL,
	 "Stops sampling a process.\vIts profile stays pullable for a while (retention in sprofd.conf)."},
	{"rate", command_rate, POSITIONAL_PID_HZ, "PID HZ", NULL,
	 "Changes how often a process is sampled.\vNo sample is lost or counted twice across the change."},
	{"list", command_list, POSITIONAL_NONE, "", json_options,
	 "Lists the processes that are sampled or whose profile is retained."},
	{"status", command_status, POSITIONAL_NONE, "", json_options,
	 "Shows how the daemon is, and what became of each process's samples."},
	{"pull", command_pull, POSITIONAL_PID, "PID", pull_options,
	 "Writes the profile of a process to a file for `go tool pprof`.\v"
	 "With --seconds, a process that is not attached is attached for that time."},
	{"pprof", command_pprof, POSITIONAL_PID, "PID [ARGUMENTS OF PPROF...]", pprof_options,
	 "Pulls the profile of a process and opens it with `go tool pprof`.\v"
	 "What follows PID goes to pprof, except --seconds and --socket: sprofctl pprof 1234 --seconds=10 -top"},
	{"table", command_table, POSITIONAL_PID, "PID", json_options,
	 "Shows the barrier-lock table that a process publishes, and what is wrong with it.\v"
	 "For authors of runtimes: see docs/BARRIER-TABLE.md. The process need not be attached. Exit status 1 when "
	 "there "
	 "is no table, or one that breaks unwinding; warnings and notes are no failure."},
};
enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static const char general_help[] =
	"Profiles running programs through sprofd.\v"
	"Commands:\n"
	"  attach PID [--frequency=HZ] [--event=auto|cpu-clock|cycles]\n"
	"  detach PID\n"
	"  rate PID HZ\n"
	"  list [--json]\n"
	"  status [--json]\n"
	"  pull PID [--seconds=N] [--no-symbols] [--output=FILE]\n"
	"  pprof PID [--seconds=N] [ARGUMENTS OF PPROF...]\n"
	"  table PID [--json]\n"
	"\n"
	"Examples:\n"
	"  sprofctl attach 1234 --frequency=999\n"
	"  sprofctl pull 1234 --output=now.pb.gz && go tool pprof -top now.pb.gz\n"
	"  sprofctl pprof 1234 --seconds=10 -http=localhost:8080\n"
	"  sprofctl detach 1234\n"
	"\n"
	"`sprofctl COMMAND --help` tells more. Exit status: 0 done, 1 failed, 2 wrong usage.";

static uint32_t parse_number(const struct argp_state *state, const char *what, const char *text, uint32_t max)
{
	uint64_t value = 0;
	const char *c = text;
	for (; *c >= '0' && *c <= '9' && value <= UINT32_MAX; c++)
		value = value * 10 + (uint64_t)(*c - '0');
	if (*c || c == text || value == 0 || value > max)
		argp_error(state, "%s must be a whole number from 1 to %u, not \"%s\"", what, max, text);
	return (uint32_t)value;
}

static Sprof__Control__Event parse_event(const struct argp_state *state, const char *text)
{
	if (!strcmp(text, "cpu-clock"))
		return SPROF__CONTROL__EVENT__EVENT_CPU_CLOCK;
	if (!strcmp(text, "cycles"))
		return SPROF__CONTROL__EVENT__EVENT_CYCLES;
	if (strcmp(text, "auto") != 0)
		argp_error(state, "--event is auto, cpu-clock or cycles, not \"%s\"", text);
	return SPROF__CONTROL__EVENT__EVENT_AUTO;
}

static error_t on_global_option(int option, char *argument, struct argp_state *state)
{
	struct command_line *command_line = state->input;
	if (option != OPTION_SOCKET)
		return ARGP_ERR_UNKNOWN;
	if (!argument[0])
		argp_error(state, "--socket needs a path");
	command_line->socket = argument;
	return 0;
}

/* What the parser of one command fills. */
struct parsing {
	const struct command *command;
	struct command_line *command_line;
};

static void take_positional(struct parsing *parsing, char *argument, struct argp_state *state)
{
	enum positional positional = parsing->command->positional;
	if (state->arg_num == 0 && positional != POSITIONAL_NONE)
		parsing->command_line->pid = parse_number(state, "PID", argument, UINT32_MAX);
	else if (state->arg_num == 1 && positional == POSITIONAL_PID_HZ)
		parsing->command_line->frequency_hz = parse_number(state, "HZ", argument, UINT32_MAX);
	else
		argp_error(state, "unexpected argument \"%s\"", argument);
}

static error_t on_command_option(int option, char *argument, struct argp_state *state)
{
	struct parsing *parsing = state->input;
	struct command_line *command_line = parsing->command_line;
	switch (option) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = command_line;
		return 0;
	case OPTION_FREQUENCY:
		command_line->frequency_hz = parse_number(state, "--frequency", argument, UINT32_MAX);
		return 0;
	case OPTION_EVENT:
		command_line->event = parse_event(state, argument);
		return 0;
	case OPTION_JSON:
		command_line->json = true;
		return 0;
	case OPTION_SECONDS:
		command_line->has_seconds = true;
		command_line->seconds = parse_number(state, "--seconds", argument, MAX_SECONDS);
		return 0;
	case OPTION_NO_SYMBOLS:
		command_line->no_symbols = true;
		return 0;
	case OPTION_OUTPUT:
		if (!argument[0])
			argp_error(state, "--output needs a file name, or - for stdout");
		command_line->output = argument;
		return 0;
	case ARGP_KEY_ARG:
		take_positional(parsing, argument, state);
		return 0;
	case ARGP_KEY_END:
		if (state->arg_num < (unsigned)parsing->command->positional)
			argp_error(state, "%s", state->arg_num == 0 ? "PID is missing" : "HZ is missing");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static void parse_command(const struct command *command, int argc, char **argv, struct command_line *command_line)
{
	static const struct argp global = {.options = global_options, .parser = on_global_option};
	static const struct argp_child children[] = {{&global, 0, NULL, 0}, {0}};
	struct parsing parsing = {command, command_line};
	struct argp argp = {
		.options = command->options,
		.parser = on_command_option,
		.args_doc = command->arguments,
		.doc = command->help,
		.children = children,
	};
	char name[64];
	snprintf(name, sizeof(name), "sprofctl %s", command->name);
	char *saved = argv[0];
	argv[0] = name;
	command_line->run = command->run;
	argp_parse(&argp, argc, argv, 0, NULL, &parsing);
	argv[0] = saved;
}

/* Is argv[0] the option of that name, and does its value follow in argv[1]? Returns how many words it takes; 0: it is not. */
static int option_words(char **argv, const char *name)
{
	size_t length = strlen(name);
	if (strncmp(argv[0], name, length) != 0)
		return 0;
	if (argv[0][length] == '=')
		return 1;
	return argv[0][length] == '\0' ? 1 + (argv[1] != NULL) : 0;
}

/* pprof's options look like ours (-top, -http=:0): what follows PID goes to pprof, except --seconds and --socket. Splits argv (whose
 * first is the command's name) into two lists with room for argc + 1 each; both end in NULL. Returns the length of ours. */
static int split_pprof_arguments(int argc, char **argv, char **ours, char **pprofs)
{
	int n_ours = 1, n_pprofs = 0, i = 1;
	ours[0] = argv[0];
	for (bool have_pid = false; i < argc;) {
		int words = option_words(argv + i, "--seconds");
		if (!words)
			words = option_words(argv + i, "-s");
		if (!words)
			words = option_words(argv + i, "--socket");
		if (!words && have_pid) {
			if (!strcmp(argv[i], "--"))
				break;
			pprofs[n_pprofs++] = argv[i++];
			continue;
		}
		have_pid |= !words && argv[i][0] != '-';
		for (words = words ? words : 1; words > 0; words--)
			ours[n_ours++] = argv[i++];
	}
	for (i++; i < argc; i++) /* after "--" */
		pprofs[n_pprofs++] = argv[i];
	ours[n_ours] = pprofs[n_pprofs] = NULL;
	return n_ours;
}

static void parse_pprof(const struct command *command, int argc, char **argv, struct command_line *command_line)
{
	_cleanup_free_ char **ours = calloc((size_t)argc + 1, sizeof(*ours));
	char **pprofs = calloc((size_t)argc + 1, sizeof(*pprofs));
	if (!ours || !pprofs) {
		fputs("sprofctl: out of memory\n", stderr);
		exit(EXIT_FAILURE);
	}
	command_line->pprof_arguments = pprofs;
	int n_ours = split_pprof_arguments(argc, argv, ours, pprofs);
	parse_command(command, n_ours, ours, command_line);
}

static void run_command_parser(const char *name, struct argp_state *state)
{
	int argc = state->argc - state->next + 1;
	char **argv = state->argv + state->next - 1;
	for (size_t i = 0; i < N_COMMANDS; i++) {
		if (strcmp(name, commands[i].name) != 0)
			continue;
		if (commands[i].run == command_pprof)
			parse_pprof(&commands[i], argc, argv, state->input);
		else
			parse_command(&commands[i], argc, argv, state->input);
		state->next = state->argc;
		return;
	}
	argp_error(state,
		   "there is no command \"%s\": there are attach, detach, rate, list, status, pull, pprof and table",
		   name);
}

static error_t on_general_option(int option, char *argument, struct argp_state *state)
{
	switch (option) {
	case ARGP_KEY_ARG:
		run_command_parser(argument, state);
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "which command? attach, detach, rate, list, status, pull, pprof or table");
		return EINVAL;
	default:
		return on_global_option(option, argument, state);
	}
}

static void print_version(FILE *stream, struct argp_state *state)
{
	(void)state;
	fprintf(stream, "sprofctl %s\n", SPROF_VERSION);
}

void command_line_parse(int argc, char **argv, struct command_line *ret)
{
	static const struct argp argp = {
		.options = global_options,
		.parser = on_general_option,
		.args_doc = "COMMAND [ARGUMENTS...]",
		.doc = general_help,
	};
	const char *from_environment = getenv("SPROFD_SOCKET");
	*ret = (struct command_line){
		.socket = from_environment && from_environment[0] ? from_environment : DEFAULT_SOCKET,
	};
	argp_program_version_hook = print_version;
	argp_err_exit_status = EXIT_USAGE;
	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, ret);
}
