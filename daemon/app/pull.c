#include "app/pull.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "app/attach.h"
#include "app/report.h"
#include "base/clock.h"
#include "pprof/pprof.h"
#include "symbolize/symbolize.h"

enum {
	DEFAULT_SECONDS = 30,     /* as Go's net/http/pprof */
	PROFILE_BUDGET_MIB = 512, /* of one profile in memory */
	SYMBOLIZE_SECONDS = 10,   /* then the profile goes out with the names that are there */
	MAX_PULLS_OF_A_TARGET = 64,
	MAX_PULLS_OF_A_USER = 16, /* of those who are no administrators */
};

/* The accounts of a target at one moment. */
struct account {
	struct target_counters counters;
	uint64_t outcomes[OUTCOME_COUNT];
	uint64_t in_flight;
	uint64_t periods, periods_entries, late_periods;
	uint64_t unix_ns, monotonic_ns;
};

struct pull {
	struct pull *next; /* in the pipeline's list */
	struct pipeline *pipeline;
	struct serve_reply *reply; /* NULL once completed */
	struct target *target;     /* a reference, once there is one */
	struct serve_pull request;
	struct requester requester;
	bool include_kernel;
	bool counted;   /* in target->n_pulls */
	bool cut_short; /* the window ends before its time */
	bool client_gone;

	struct window *window; /* of a pull with seconds; in the target's list while it is open */
	struct event *timer;
	struct account begin, end;

	/* for the worker that builds, which does not look at the target */
	struct {
		pid_t pid;
		char comm[PROCESS_COMM_BYTES], cgroup[CGROUP_BYTES], note[ERROR_TEXT_BYTES];
		uint32_t frequency_hz;
		bool cycles, periods_known;
		struct process_place place; /* the target's: this pull holds it */
	} about;
	struct epoch **epochs;
	size_t n_epochs;
	struct python_codes *python; /* a reference, or NULL */
	struct maps **maps;
	uint32_t n_maps;
	uint8_t *bytes;
	size_t n_bytes;
	struct error err;
};

static void take_account(struct account *account, const struct target *target)
{
	*account = (struct account){
		.counters = target->counters,
		.in_flight = target_in_flight(target),
		.periods = target->periods,
		.periods_entries = target->periods_entries,
		.late_periods = target->late_periods,
		.unix_ns = clock_realtime_ns(),
		.monotonic_ns = clock_monotonic_ns(),
	};
	memcpy(account->outcomes, target->outcomes, sizeof(account->outcomes));
}

/* A window keeps its samples by itself: what left the retention meanwhile is in it, and what it had no room for is not. */
static void account_for_window(struct pull *pull, uint64_t samples)
{
	struct account *begin = &pull->begin, *end = &pull->end;
	uint64_t read = 0;
	for (enum outcome outcome = 0; outcome < OUTCOME_COUNT; outcome++)
		read += end->outcomes[outcome] - begin->outcomes[outcome];
	uint64_t malformed = end->outcomes[OUTCOME_MALFORMED_RECORD] - begin->outcomes[OUTCOME_MALFORMED_RECORD];
	memset(begin->outcomes, 0, sizeof(begin->outcomes));
	memset(end->outcomes, 0, sizeof(end->outcomes));
	end->outcomes[OUTCOME_SAMPLE] = samples;
	end->outcomes[OUTCOME_MALFORMED_RECORD] = malformed;
	end->outcomes[OUTCOME_STORE_FULL] = read - malformed - samples;
}

static size_t window_budget_bytes(const struct pull *pull)
{
	return (size_t)pull->pipeline->settings->target_mib << 20;
}

static void close_window(struct pull *pull)
{
	if (pull->window)
		windows_close(&pull->target->windows, pull->window);
	pull->window = NULL;
}

/* Its samples are those of the profile. */
static int end_window(struct pull *pull)
{
	int r = windows_end(&pull->target->windows, pull->window, window_budget_bytes(pull), &pull->epochs,
			    &pull->n_epochs);
	if (r < 0)
		return r;
	pull->window = NULL;
	uint64_t samples = 0;
	for (size_t i = 0; i < pull->n_epochs; i++) {
		struct epoch_totals totals;
		epoch_totals(pull->epochs[i], &totals);
		samples += totals.samples;
	}
	account_for_window(pull, samples);
	return 0;
}

static void free_pull(struct pull *pull)
{
	if (pull->target) {
		close_window(pull);
		if (pull->counted && --pull->target->n_pulls == 0)
			pipeline_end_ephemeral(pull->pipeline, pull->target);
		target_unref(pull->target);
	}
	for (size_t i = 0; i < pull->n_epochs; i++)
		epoch_unref(pull->epochs[i]);
	for (uint32_t i = 0; i < pull->n_maps; i++)
		maps_unref(pull->maps[i]);
	python_codes_unref(pull->python);
	free(pull->epochs);
	free(pull->maps);
	free(pull->bytes);
	if (pull->timer)
		event_free(pull->timer);
	struct pull **link = &pull->pipeline->pulls;
	while (*link != pull)
		link = &(*link)->next;
	*link = pull->next;
	pipeline_pull_ended(pull->pipeline);
	free(pull);
}

static void fail(struct pull *pull, const struct error *err)
{
	serve_reply_error(pull->reply, err);
	free_pull(pull);
}

static void fail_out_of_memory(struct pull *pull)
{
	struct error err;
	error_set(&err, ENOMEM, "out of memory");
	fail(pull, &err);
}

/* --- on a worker thread --- */

static struct maps *maps_of_version(void *context, uint32_t version)
{
	const struct pull *pull = context;
	return version < pull->n_maps ? pull->maps[version] : NULL;
}

static uint64_t loss_between(const struct account *begin, const struct account *end, enum outcome outcome)
{
	return end->counters.outcomes[outcome] + end->outcomes[outcome] - begin->counters.outcomes[outcome] -
	       begin->outcomes[outcome];
}

/* Entries, and what became of each: they add up. */
static void comment_accounts(const struct pull *pull, struct profile *profile)
{
	const struct account *begin = &pull->begin, *end = &pull->end;
	uint64_t lost = 0;
	uint64_t entries = end->counters.entries - begin->counters.entries;
	for (enum outcome outcome = 0; outcome < OUTCOME_COUNT; outcome++)
		if (report_is_loss(outcome))
			lost += loss_between(begin, end, outcome);
	uint64_t samples = end->outcomes[OUTCOME_SAMPLE] - begin->outcomes[OUTCOME_SAMPLE];
	profile_comment(profile, "entries %lu = samples %lu + lost %lu + in flight %ld", entries, samples, lost,
			(long)(end->in_flight - begin->in_flight));
	for (enum outcome outcome = 0; outcome < OUTCOME_COUNT; outcome++)
		if (report_is_loss(outcome) && loss_between(begin, end, outcome))
			profile_comment(profile, "lost %s %lu: %s", report_outcome_name(outcome),
					loss_between(begin, end, outcome), report_outcome_text(outcome));
	if (pull->about.periods_known && end->periods > begin->periods)
		profile_comment(profile,
				"not_delivered %ld (the kernel's count / period - entries), of which %lu while a timer "
				"was late",
				(long)(end->periods - begin->periods) -
					(long)(end->periods_entries - begin->periods_entries),
				end->late_periods - begin->late_periods);
}

static void describe(const struct pull *pull, struct profile *profile, uint64_t cut)
{
	struct utsname kernel = {0};
	uname(&kernel);
	profile->pid = (uint32_t)pull->about.pid;
	profile->cgroup = pull->about.cgroup;
	profile->time_unix_ns = pull->begin.unix_ns;
	profile->duration_ns = pull->end.monotonic_ns - pull->begin.monotonic_ns;
	profile->period_ns = NS_PER_S / pull->about.frequency_hz;
	profile_comment(profile, "sprofd %s, Linux %s", SPROF_VERSION, kernel.release);
	profile_comment(profile, "process %d (%s), %s at %u Hz", pull->about.pid, pull->about.comm,
			pull->about.cycles ? "cycles" : "cpu-clock", pull->about.frequency_hz);
	comment_accounts(pull, profile);
	report_stacks(pull->epochs, pull->n_epochs, pull->python, cut, profile);
	if (!pull->include_kernel)
		profile_comment(
			profile,
			"kernel frames are left out: they are shown to root, to the socket's group, and to all when "
			"kernel.perf_event_paranoid is at most 1");
	if (pull->request.no_symbols)
		profile_comment(profile,
				"without names, as was asked for: the build ids of the files are in the mappings");
	if (profile->missing_names)
		profile_comment(profile, "names missing for want of time or after an error: %lu addresses",
				profile->missing_names);
	if (pull->about.note[0])
		profile_comment(profile, "note: %s", pull->about.note);
}

static void work_build(void *context)
{
	struct pull *pull = context;
	uint64_t deadline_ns = clock_monotonic_ns() + SYMBOLIZE_SECONDS * NS_PER_S;
	struct file *jit_dump = symbolize_jit_dump(pull->maps, pull->n_maps);
	struct symbolize_code code = {
		.symbolize = pull->pipeline->symbolize, .dump = jit_dump, .deadline_ns = deadline_ns};
	struct store_build_options options = {
		.include_kernel = pull->include_kernel,
		.maps = maps_of_version,
		.maps_context = pull,
		.places = jit_dump && !pull->request.no_symbols ? symbolize_places : NULL,
		.places_context = &code,
		.budget_bytes = (size_t)PROFILE_BUDGET_MIB << 20,
	};
	struct profile *profile;
	uint64_t cut = 0;
	int r = store_build_profile(pull->epochs, pull->n_epochs, &options, &profile, &cut);
	if (r < 0) {
		error_set(&pull->err, ENOMEM, "the profile of process %d does not fit in memory: pull fewer --seconds",
			  pull->about.pid);
		return;
	}
	profile->target = (struct profile_target){
		.root_fd = pull->about.place.root_fd,
		.inner_pid = pull->about.place.inner_pid,
		.user = pull->about.place.user,
		.started_unix_ns = pull->about.place.started_unix_ns,
		.python = pull->python,
		.jit_dump = jit_dump,
	};
	profile->missing_names = code.missing;
	symbolize_profile(pull->pipeline->symbolize, profile,
			  pull->request.no_symbols ? SYMBOLIZE_BUILD_IDS : SYMBOLIZE_ALL, deadline_ns);
	describe(pull, profile, cut);
	pprof_encode(profile, &pull->bytes, &pull->n_bytes, &pull->err);
	profile_free(profile);
	malloc_trim(0); /* a large profile was here, and may not come again for long */
}

/* --- back on the event loop --- */

static void done_build(void *context, bool worked)
{
	struct pull *pull = context;
	if (!worked)
		error_set(&pull->err, ECANCELED, "sprofd is ending");
	if (pull->err.code) {
		fail(pull, &pull->err);
		return;
	}
	uint8_t *bytes = pull->bytes;
	pull->bytes = NULL;
	serve_reply_bytes(pull->reply, "application/octet-stream", "profile", bytes, pull->n_bytes);
	pipeline_trim_later(pull->pipeline);
	free_pull(pull);
}

static void take_about(struct pull *pull, const struct target *target)
{
	pull->about.pid = target->pid;
	pull->about.frequency_hz = target->frequency_hz;
	pull->about.cycles = target->event == SPROF__CONTROL__EVENT__EVENT_CYCLES;
	pull->about.periods_known = target->periods_known;
	pull->about.place = target->place;
	pull->python = target->python.codes ? python_codes_ref(target->python.codes) : NULL;
	memcpy(pull->about.comm, target->process.comm, sizeof(pull->about.comm));
	memcpy(pull->about.cgroup, target->cgroup, sizeof(pull->about.cgroup));
	memcpy(pull->about.note, target->note, sizeof(pull->about.note));
}

static void build(void *context, struct target *target, const struct error *err)
{
	(void)err;
	struct pull *pull = context;
	int r = 0;
	if (!pipeline_may_touch(target, &pull->requester)) { /* it has executed another program meanwhile */
		struct error denied;
		error_set(&denied, EPERM,
			  "process %d is not wholly yours any more: ask root, or to be added to the socket's group",
			  target->pid);
		fail(pull, &denied);
		return;
	}
	take_account(&pull->end, target);
	take_about(pull, target);
	if (pull->window) {
		r = end_window(pull);
	} else {
		r = retention_snapshot(target->retention, &pull->epochs, &pull->n_epochs);
		pull->begin.unix_ns = target->attached_unix_ns;
		pull->begin.monotonic_ns = target->attached_ns;
		if (target->ended_ns)
			pull->end.monotonic_ns = target->ended_ns;
	}
	if (r == 0)
		r = address_space_snapshot(&target->space, &pull->maps, &pull->n_maps);
	if (r == 0)
		r = jobs_submit(pull->pipeline->builders, NULL, JOB_LAST, work_build, done_build, pull);
	if (r < 0)
		fail_out_of_memory(pull);
}

static void settle_and_build(struct pull *pull)
{
	target_settle(pull->target, SETTLE_ALL, build, pull);
}

static void window_over(evutil_socket_t fd, short what, void *context)
{
	(void)fd, (void)what;
	struct pull *pull = context;
	pull->cut_short = true; /* it is over: nothing can end it again */
	settle_and_build(pull);
}

static void window_cut_short(void *context)
{
	struct pull *pull = context;
	if (!pull->window || pull->cut_short)
		return;
	pull->cut_short = true;
	event_del(pull->timer);
	event_active(pull->timer, EV_TIMEOUT, 0);
}

static void client_gone(void *context)
{
	struct pull *pull = context;
	pull->client_gone = true;
	window_cut_short(pull); /* nobody waits: end it now, the reply goes nowhere */
}

static void open_window(void *context, struct target *target, const struct error *err)
{
	(void)err;
	struct pull *pull = context;
	struct timeval seconds = {.tv_sec = pull->request.seconds};
	struct window *window = windows_open(&target->windows, window_budget_bytes(pull));
	pull->window = window;
	pull->timer = event_new(pull->pipeline->base, -1, 0, window_over, pull);
	if (!window || !pull->timer) {
		fail_out_of_memory(pull);
		return;
	}
	window->cut_short = window_cut_short;
	window->context = pull;
	take_account(&pull->begin, target);
	/* From now on, and not from when this turn of the loop began, which may have been milliseconds ago. */
	event_base_update_cache_time(event_get_base(pull->timer));
	event_add(pull->timer, &seconds);
	if (target->ending || pull->client_gone || pull->pipeline->ending)
		window_cut_short(pull);
}

static void begin(struct pull *pull, struct target *target)
{
	pull->target = target_ref(target);
	struct error err;
	if (target->n_pulls >= MAX_PULLS_OF_A_TARGET) {
		error_set(&err, EAGAIN, "%u pulls of process %d are under way: wait for one of them", target->n_pulls,
			  target->pid);
		fail(pull, &err);
		return;
	}
	target->n_pulls++;
	pull->counted = true;
	if (pull->request.has_seconds)
		target_settle(target, SETTLE_ALL, open_window, pull);
	else
		settle_and_build(pull);
}

static void attached(void *context, struct target *target, const struct error *err)
{
	struct pull *pull = context;
	if (err)
		fail(pull, err);
	else
		begin(pull, target);
}

static void attach_for_pull(struct pull *pull, const struct requester *requester)
{
	struct target_request request = {
		.pid = (pid_t)pull->request.pid,
		.frequency_hz = pull->pipeline->settings->frequency_hz,
		.requester = *requester,
		.ephemeral = true,
	};
	if (!pull->request.has_seconds) {
		pull->request.has_seconds = true;
		pull->request.seconds = DEFAULT_SECONDS;
	}
	attach_process(pull->pipeline, &request, attached, pull);
}

/* One user who is no administrator may not take the daemon's memory and threads from the others. */
static int check_share(const struct pipeline *pipeline, const struct requester *requester, struct error *err)
{
	unsigned of_user = 0;
	for (const struct pull *pull = pipeline->pulls; pull; pull = pull->next)
		of_user += pull->requester.uid == requester->uid;
	if (requester->administrator || of_user <= MAX_PULLS_OF_A_USER)
		return 0;
	return error_set(err, EAGAIN,
			 "%d pulls of yours are under way, as many as one user may have: wait for one of them",
			 MAX_PULLS_OF_A_USER);
}

void pull_start(struct pipeline *pipeline, struct serve_reply *reply, const struct serve_pull *request)
{
	struct error err = {0};
	struct requester requester = access_requester(&pipeline->policy, serve_reply_peer(reply));
	struct pull *pull = calloc(1, sizeof(*pull));
	if (!pull) {
		error_set(&err, ENOMEM, "out of memory");
		serve_reply_error(reply, &err);
		return;
	}
	*pull = (struct pull){
		.next = pipeline->pulls,
		.pipeline = pipeline,
		.reply = reply,
		.request = *request,
		.requester = requester,
		.include_kernel = access_sees_kernel(&requester),
	};
	pipeline->pulls = pull;
	pipeline->n_pulls++;
	serve_reply_on_gone(reply, client_gone, pull);
	if (check_share(pipeline, &requester, &err) < 0) {
		fail(pull, &err);
		return;
	}
	struct target *target = pipeline_target_for(pipeline, (pid_t)request->pid, &requester, &err);
	bool sampled = target && target->state == SPROF__CONTROL__TARGET_STATE__TARGET_LIVE && !target->ending;
	if (sampled || (target && !request->has_seconds))
		begin(pull, target);
	else if (!target && err.code != ESRCH)
		fail(pull, &err);
	else
		attach_for_pull(pull, &requester);
}
