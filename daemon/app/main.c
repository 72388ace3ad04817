/* sprofd: sets up the process, then runs the event loop. */
#include <errno.h>
#include <event2/event.h>
#include <grp.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "app/listener.h"
#include "app/notify.h"
#include "app/pipeline.h"
#include "app/privileges.h"
#include "app/settings.h"
#include "base/log.h"

enum { MALLOC_ARENAS = 2, TRIM_THRESHOLD_BYTES = 256 * 1024, MMAP_THRESHOLD_BYTES = 256 * 1024 };

static void on_signal(evutil_socket_t signal_number, short what, void *context)
{
	(void)what;
	log_info("ending on signal %d (%s)", (int)signal_number, strsignal((int)signal_number));
	pipeline_end(*(struct pipeline **)context);
}

static void on_watchdog(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what, (void)context;
	notify_send("WATCHDOG=1");
}

/* What libevent has to say goes where our own words go. */
static void on_libevent_log(int severity, const char *message)
{
	static const enum log_level levels[] = {LOG_DEBUG, LOG_INFO, LOG_WARNING,
						LOG_ERROR}; /* by EVENT_LOG_DEBUG .. EVENT_LOG_ERR */
	log_write(levels[severity & 3], "libevent: %s", message);
}

/* Few arenas, and memory given back: a daemon that is idle most of the time should be small most of the time. */
static void tune_process(void)
{
	struct rlimit files;
	mallopt(M_ARENA_MAX, MALLOC_ARENAS);
	mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES);
	mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
	/* glibc's malloc is set up here, by one thread. Under a sanitizer nothing else would do so before two pulls trim it at once, each of which then
	 * takes its thread for the main arena's first; glibc aborts when both have ended. */
	malloc_trim(0);
	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) { /* one perf event for each thread of each target */
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

static int run(struct event_base *base)
{
	struct event *watchdog = event_new(base, -1, EV_PERSIST, on_watchdog, NULL);
	if (!watchdog)
		return -ENOMEM;
	uint64_t interval_us = notify_watchdog_interval_us();
	struct timeval interval = {.tv_sec = (time_t)(interval_us / 1000000),
				   .tv_usec = (suseconds_t)(interval_us % 1000000)};
	if (interval_us)
		event_add(watchdog, &interval);
	notify_send("READY=1");
	event_base_dispatch(base);
	notify_send("STOPPING=1");
	event_free(watchdog);
	return 0;
}

static gid_t group_of(const char *name)
{
	const struct group *group = name[0] ? getgrnam(name) : NULL;
	return group ? group->gr_gid : (gid_t)-1;
}

static int serve_on(struct event_base *base, const struct settings *settings, struct pipeline **pipeline,
		    struct error *err)
{
	struct listener listener;
	bool group_missing;
	struct listener_options options = {
		.path = settings->socket, .mode = settings->socket_mode, .group = settings->socket_group};
	int r = listener_open(&listener, &options, &group_missing, err);
	if (r == 0) {
		if (group_missing)
			log_info("the socket's group %s does not exist or is not ours to give: only root and user %d "
				 "may connect",
				 settings->socket_group, (int)geteuid());
		privileges_drop(settings->socket);
		r = pipeline_new(base, settings, listener.fd, group_of(settings->socket_group), pipeline, err);
	}
	if (r == 0) {
		log_notice("serving %s", listener.ours ? settings->socket : "the socket of the service manager");
		r = run(base);
	}
	listener_close(&listener); /* at once: whoever comes now should see that nobody is here */
	pipeline_free(*pipeline);
	return r;
}

/* By the precise clock: by the coarse one, which is libevent's default, a profile of two seconds may end a clock tick before it is two seconds long. */
static struct event_base *new_base(void)
{
	struct event_config *config = event_config_new();
	struct event_base *base = NULL;
	if (config && event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER) == 0)
		base = event_base_new_with_config(config);
	if (config)
		event_config_free(config);
	return base;
}

static int serve(const struct settings *settings, struct error *err)
{
	struct pipeline *pipeline = NULL;
	struct event_base *base = new_base();
	/* From before the socket is made until after it is removed: a signal at any moment leaves none behind. */
	struct event *terminate = base ? evsignal_new(base, SIGTERM, on_signal, &pipeline) : NULL;
	struct event *interrupt = base ? evsignal_new(base, SIGINT, on_signal, &pipeline) : NULL;
	int r;
	if (terminate && interrupt && event_add(terminate, NULL) == 0 && event_add(interrupt, NULL) == 0)
		r = serve_on(base, settings, &pipeline, err);
	else
		r = error_set(err, ENOMEM, "out of memory");
	if (terminate)
		event_free(terminate);
	if (interrupt)
		event_free(interrupt);
	if (base)
		event_base_free(base);
	return r;
}

int main(int argc, char **argv)
{
	struct settings settings;
	struct error err = {0};
	tune_process();
	event_set_log_callback(on_libevent_log);
	settings_defaults(&settings);
	int r = settings_parse(&settings, argc, argv, &err);
	if (r == 0) {
		log_set_level(settings.log_level);
		r = serve(&settings, &err);
	}
	if (r < 0) {
		log_error("%s", err.code ? err.text : strerror(-r));
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
