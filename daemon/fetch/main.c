/* sprofd-fetch: fetches debug files from debuginfod servers for sprofd, which has no network itself. See sprofd-fetch(8).
 *   sprofd-fetch [--socket=PATH] [--cache=DIRECTORY]     by default what the service manager gives */
#include <argp.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "fetch/debug_cache.h"
#include "fetch/server.h"

enum { LISTEN_FDS_START = 3, BACKLOG = 4, SOCKET_UMASK = 0177, OPTION_SOCKET = 1, OPTION_CACHE };

static volatile int stop;

static void on_signal(int number)
{
	(void)number;
	stop = 1;
}

struct command_line {
	const char *socket, *cache;
};

static error_t on_option(int option, char *argument, struct argp_state *state)
{
	struct command_line *command_line = state->input;
	switch (option) {
	case OPTION_SOCKET:
		command_line->socket = argument;
		return 0;
	case OPTION_CACHE:
		command_line->cache = argument;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_option options[] = {
	{"socket", OPTION_SOCKET, "PATH", 0, "The Unix socket to serve (default: the one that systemd passes)", 0},
	{"cache", OPTION_CACHE, "DIRECTORY", 0, "Where files are kept (default: $CACHE_DIRECTORY)", 0},
	{0},
};

/* The path's, or the one that the service manager passes (sd_listen_fds(3)). */
static int listen_at(const char *path, int *ret_fd, struct error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *passed = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
	if (!path) {
		if (!passed || strcmp(passed, "1") != 0 || !pid || atoi(pid) != getpid())
			return error_set(err, EINVAL, "no socket: give --socket, or start sprofd-fetch.socket");
		*ret_fd = LISTEN_FDS_START;
		return 0;
	}
	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(err, EINVAL, "%s: the path is too long", path);
	strcpy(address.sun_path, path);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	(void)unlink(path);
	mode_t before = umask(SOCKET_UMASK);
	int r = fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, BACKLOG) < 0 ? -errno
														: 0;
	umask(before);
	if (r < 0)
		return error_set(err, -r, "cannot listen at %s: %s", path, strerror(-r));
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static void print_version(FILE *stream, struct argp_state *state)
{
	(void)state;
	fprintf(stream, "sprofd-fetch %s\n", SPROF_VERSION);
}

static int run(const struct command_line *command_line, struct error *err)
{
	_cleanup_close_ int listen_fd = -1, cache_fd = -1;
	const char *cache = command_line->cache ? command_line->cache : getenv("CACHE_DIRECTORY");
	if (!cache)
		return error_set(err, EINVAL, "no cache directory: give --cache");
	int r = debug_cache_open(cache, &cache_fd);
	if (r < 0)
		return error_set(err, -r, "cannot open the cache directory %s: %s", cache, strerror(-r));
	r = listen_at(command_line->socket, &listen_fd, err);
	if (r == 0 && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		r = error_set(err, ENOMEM, "cannot start curl");
	if (r == 0)
		r = server_run(listen_fd, cache_fd, &stop, err);
	curl_global_cleanup();
	return r;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		options, on_option, NULL, "Fetches debug files from debuginfod servers, for sprofd.", NULL, NULL, NULL};
	struct command_line command_line = {0};
	struct error err = {0};
	struct sigaction action = {.sa_handler = on_signal};
	argp_program_version_hook = print_version;
	argp_err_exit_status = 2;
	argp_parse(&argp, argc, argv, 0, NULL, &command_line);
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	(void)sigaction(SIGTERM, &action, NULL);
	(void)sigaction(SIGINT, &action, NULL);
	if (run(&command_line, &err) == 0)
		return 0;
	log_error("sprofd-fetch: %s", err.text);
	return 1;
}
