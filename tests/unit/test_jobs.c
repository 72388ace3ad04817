#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "app/jobs.h"
#include "base/clock.h"
#include "check_main.h"

enum { MAX_STEPS = 64 };

struct scene {
	struct event_base *base;
	struct jobs *jobs;
	struct lane lane;
	unsigned n_done;
	int order[MAX_STEPS]; /* of done */
	_Atomic int running, most_running, in_lane, overlaps;
};

struct step {
	struct scene *scene;
	struct step *then; /* submitted first in the lane, from done */
	pthread_t worker;
	int number, then_result;
	unsigned work_us;
	bool on_lane, worked;
};

static struct scene *scene_new(unsigned max_threads)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	scene->base = event_base_new();
	scene->jobs = jobs_new(scene->base, max_threads);
	ck_assert_ptr_nonnull(scene->jobs);
	return scene;
}

static void scene_free(struct scene *scene)
{
	jobs_free(scene->jobs);
	event_base_free(scene->base);
	free(scene);
}

static void work(void *context)
{
	struct step *step = context;
	struct scene *scene = step->scene;
	int running = ++scene->running, most = scene->most_running;
	while (running > most && !atomic_compare_exchange_weak(&scene->most_running, &most, running))
		;
	if (step->on_lane && ++scene->in_lane > 1)
		scene->overlaps++;
	step->worker = pthread_self();
	step->worked = true;
	if (step->work_us)
		usleep(step->work_us);
	if (step->on_lane)
		scene->in_lane--;
	scene->running--;
}

static void done(void *context, bool worked)
{
	struct step *step = context;
	struct scene *scene = step->scene;
	if (worked != step->worked)
		ck_abort_msg("done is told %d", worked);
	scene->order[scene->n_done++ % MAX_STEPS] = step->number;
	if (step->then)
		step->then_result = jobs_submit(scene->jobs, &scene->lane, JOB_FIRST, work, done, step->then);
}

static void run_until(struct scene *scene, unsigned n_done)
{
	uint64_t deadline_ns = clock_monotonic_ns() + 20 * NS_PER_S;
	while (scene->n_done < n_done && clock_monotonic_ns() < deadline_ns) {
		struct timeval tick = {.tv_usec = 20000};
		event_base_loopexit(scene->base, &tick);
		event_base_dispatch(scene->base);
	}
	ck_assert_uint_eq(scene->n_done, n_done);
}

START_TEST(work_leaves_the_loop_and_done_comes_back)
{
	struct scene *scene = scene_new(2);
	struct step step = {.scene = scene, .number = 5};
	ck_assert_int_eq(jobs_submit(scene->jobs, NULL, JOB_LAST, work, done, &step), 0);
	ck_assert_uint_eq(scene->n_done, 0);
	run_until(scene, 1);
	ck_assert(!pthread_equal(step.worker, pthread_self()));
	ck_assert_int_eq(scene->order[0], 5);
	scene_free(scene);
}
END_TEST

START_TEST(a_lane_keeps_its_order)
{
	enum { STEPS = 40 };
	struct scene *scene = scene_new(4);
	struct step steps[STEPS];
	for (int i = 0; i < STEPS; i++) {
		steps[i] = (struct step){.scene = scene, .number = i, .on_lane = true, .work_us = i % 3 ? 0 : 2000};
		ck_assert_int_eq(jobs_submit(scene->jobs, &scene->lane, JOB_LAST, work, done, &steps[i]), 0);
	}
	run_until(scene, STEPS);
	for (int i = 0; i < STEPS; i++)
		ck_assert_int_eq(scene->order[i], i);
	ck_assert_int_eq(scene->overlaps, 0);
	ck_assert(!scene->lane.busy);
	ck_assert_ptr_null(scene->lane.first);
	scene_free(scene);
}
END_TEST

START_TEST(a_second_half_comes_before_those_that_wait)
{
	struct scene *scene = scene_new(4);
	struct step third = {.scene = scene, .number = 12, .on_lane = true};
	struct step second = {.scene = scene, .number = 11, .on_lane = true, .then = &third};
	struct step first = {.scene = scene, .number = 10, .on_lane = true, .then = &second, .work_us = 5000};
	struct step other = {.scene = scene, .number = 20, .on_lane = true},
		    last = {.scene = scene, .number = 30, .on_lane = true};
	jobs_submit(scene->jobs, &scene->lane, JOB_LAST, work, done, &first);
	jobs_submit(scene->jobs, &scene->lane, JOB_LAST, work, done, &other);
	jobs_submit(scene->jobs, &scene->lane, JOB_LAST, work, done, &last);
	run_until(scene, 5);
	static const int expected[] = {10, 11, 12, 20, 30};
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(scene->order[i], expected[i]);
	ck_assert_int_eq(scene->overlaps, 0);
	/* And when nobody waits. */
	scene->n_done = 0;
	first.then = &second;
	second.then = NULL;
	jobs_submit(scene->jobs, &scene->lane, JOB_LAST, work, done, &first);
	run_until(scene, 2);
	ck_assert_int_eq(scene->order[1], 11);
	ck_assert(!scene->lane.busy);
	scene_free(scene);
}
END_TEST

START_TEST(jobs_without_a_lane_run_side_by_side)
{
	enum { STEPS = 12, THREADS = 3 };
	struct scene *scene = scene_new(THREADS);
	struct step steps[STEPS];
	for (int i = 0; i < STEPS; i++) {
		steps[i] = (struct step){.scene = scene, .number = i, .work_us = 30000};
		jobs_submit(scene->jobs, NULL, JOB_LAST, work, done, &steps[i]);
	}
	run_until(scene, STEPS);
	ck_assert_int_eq(scene->most_running, THREADS);
	scene_free(scene);
}
END_TEST

/* --- one job that ends only when another one has run --- */

struct pair {
	struct scene *scene;
	_Atomic bool released;
	bool timed_out;
};

static void work_wait(void *context)
{
	struct pair *pair = context;
	uint64_t deadline_ns = clock_monotonic_ns() + 3 * NS_PER_S;
	while (!pair->released && clock_monotonic_ns() < deadline_ns)
		usleep(1000);
	pair->timed_out = !pair->released;
}
static void work_release(void *context)
{
	((struct pair *)context)->released = true;
}
static void done_pair(void *context, bool worked)
{
	ck_assert(worked);
	((struct pair *)context)->scene->n_done++;
}

START_TEST(a_blocked_job_does_not_hold_up_the_next)
{
	struct scene *scene = scene_new(4);
	struct step warm_up = {.scene = scene};
	jobs_submit(scene->jobs, NULL, JOB_LAST, work, done, &warm_up);
	run_until(scene, 1);
	usleep(20000); /* one thread is idle now: two jobs at once need another one */
	struct pair pair = {.scene = scene};
	jobs_submit(scene->jobs, NULL, JOB_LAST, work_wait, done_pair, &pair);
	jobs_submit(scene->jobs, NULL, JOB_LAST, work_release, done_pair, &pair);
	run_until(scene, 3);
	ck_assert(!pair.timed_out);
	scene_free(scene);
}
END_TEST

/* --- done may free what the lane is part of --- */

struct owner {
	struct scene *scene;
	struct lane lane;
	unsigned left;
};

static void work_owner(void *context)
{
	((struct owner *)context)->left--;
}
static void done_owner(void *context, bool worked)
{
	if (!worked)
		ck_abort_msg("not run");
	struct owner *owner = context;
	owner->scene->n_done++;
	if (owner->left == 0)
		free(owner);
}

START_TEST(the_last_done_may_free_the_lane)
{
	enum { OWNERS = 50, EACH = 3 };
	struct scene *scene = scene_new(4);
	for (int i = 0; i < OWNERS; i++) {
		struct owner *owner = calloc(1, sizeof(*owner));
		*owner = (struct owner){.scene = scene, .left = EACH};
		for (int k = 0; k < EACH; k++)
			ck_assert_int_eq(
				jobs_submit(scene->jobs, &owner->lane, JOB_LAST, work_owner, done_owner, owner), 0);
	}
	run_until(scene, OWNERS * EACH);
	scene_free(scene);
}
END_TEST

/* --- the end --- */

static void work_nothing(void *context)
{
	(void)context;
	usleep(1000);
}
/* Frees the owner with its last job, whether that ran or not. */
static void done_let_go(void *context, bool worked)
{
	struct owner *owner = context;
	(void)worked;
	owner->scene->n_done++;
	if (--owner->left == 0)
		free(owner);
}

START_TEST(the_end_waits_for_those_that_run_and_drops_the_rest)
{
	enum { STEPS = 10 };
	struct scene *scene = scene_new(2);
	struct step steps[STEPS], lane_steps[STEPS], late = {.scene = scene};
	for (int i = 0; i < STEPS; i++) {
		steps[i] = (struct step){.scene = scene, .work_us = 50000};
		lane_steps[i] = (struct step){.scene = scene, .on_lane = true};
		jobs_submit(scene->jobs, NULL, JOB_LAST, work, done, &steps[i]);
		jobs_submit(scene->jobs, &scene->lane, JOB_LAST, work, done, &lane_steps[i]);
	}
	steps[0].then = &late; /* what is submitted now comes too late */
	while (!scene->running)
		usleep(1000);
	jobs_free(scene->jobs);
	ck_assert_int_eq(scene->running, 0);
	ck_assert_uint_eq(scene->n_done, 2 * STEPS); /* each was told, whether it ran or not */
	int worked = 0;
	for (int i = 0; i < STEPS; i++)
		worked += steps[i].worked + lane_steps[i].worked;
	ck_assert_int_ge(worked, 1);
	ck_assert_int_lt(worked, 2 * STEPS);
	ck_assert_int_eq(steps[0].then_result, -ECANCELED);
	ck_assert(!late.worked);
	scene->jobs = NULL;
	scene_free(scene);
}
END_TEST

START_TEST(the_end_lets_owners_go)
{
	enum { OWNERS = 8, EACH = 3 };
	struct scene *scene = scene_new(2);
	for (int i = 0; i < OWNERS; i++) {
		struct owner *owner = calloc(1, sizeof(*owner));
		*owner = (struct owner){.scene = scene, .left = EACH};
		for (int k = 0; k < EACH; k++)
			jobs_submit(scene->jobs, &owner->lane, JOB_LAST, work_nothing, done_let_go, owner);
	}
	jobs_free(scene->jobs);
	ck_assert_uint_eq(scene->n_done, OWNERS * EACH);
	scene->jobs = NULL;
	scene_free(scene);
}
END_TEST

static struct jobs *stopped;
static int submitted_late;
static void done_submits_to_stopped(void *context, bool worked)
{
	(void)worked;
	submitted_late = jobs_submit(stopped, NULL, JOB_LAST, work_nothing, done_submits_to_stopped, context);
}

START_TEST(what_is_stopped_refuses_until_it_is_freed)
{
	struct scene *scene = scene_new(2);
	stopped = jobs_new(scene->base, 2);
	jobs_submit(scene->jobs, NULL, JOB_LAST, work_nothing, done_submits_to_stopped, scene);
	jobs_stop(stopped);
	jobs_stop(scene->jobs); /* its done comes only now, and submits to the other */
	ck_assert_int_eq(submitted_late, -ECANCELED);
	jobs_free(stopped);
	jobs_stop(NULL);
	scene_free(scene);
}
END_TEST

START_TEST(an_end_without_jobs)
{
	jobs_free(NULL);
	scene_free(scene_new(3));
	struct scene *scene = scene_new(3);
	struct step step = {.scene = scene};
	jobs_submit(scene->jobs, NULL, JOB_LAST, work, done, &step);
	run_until(scene, 1);
	uint64_t before_ns = clock_monotonic_ns();
	scene_free(scene); /* its thread is idle: it is not waited out */
	ck_assert_uint_lt(clock_monotonic_ns() - before_ns, 2 * NS_PER_S);
}
END_TEST

START_TEST(many_jobs_on_many_lanes)
{
	enum { LANES = 20, EACH = 200 };
	struct scene *scene = scene_new(4);
	struct owner *owners[LANES];
	for (int i = 0; i < LANES; i++) {
		owners[i] = calloc(1, sizeof(*owners[i]));
		*owners[i] = (struct owner){.scene = scene, .left = EACH};
	}
	for (int k = 0; k < EACH; k++)
		for (int i = 0; i < LANES; i++)
			jobs_submit(scene->jobs, &owners[i]->lane, JOB_LAST, work_owner, done_owner, owners[i]);
	run_until(scene, LANES * EACH);
	scene_free(scene);
}
END_TEST

static atomic_bool is_stuck, let_go;
static void work_stuck(void *context)
{
	(void)context;
	is_stuck = true;
	while (!let_go)
		usleep(1000);
}

static void done_counts(void *context, bool worked)
{
	((unsigned *)context)[worked]++;
}

/* What waits behind the one that is stuck is told so. */
START_TEST(what_is_stuck_is_left_behind)
{
	struct event_base *base = event_base_new();
	static struct jobs *jobs; /* a leak checker must find what is left */
	unsigned stuck[2] = {0}, waiting[2] = {0};
	jobs = jobs_new(base, 1);
	jobs_leave(NULL, 0);
	jobs_submit(jobs, NULL, JOB_LAST, work_stuck, done_counts, stuck);
	jobs_submit(jobs, NULL, JOB_LAST, work_nothing, done_counts, waiting);
	while (!is_stuck)
		usleep(1000);
	uint64_t before_ns = clock_monotonic_ns();
	jobs_leave(jobs, 100);
	ck_assert_uint_lt(clock_monotonic_ns() - before_ns, 5 * NS_PER_S);
	ck_assert_uint_eq(stuck[0] + stuck[1], 0);
	ck_assert_uint_eq(waiting[0], 1);
	event_base_free(base);
	let_go = true;
	usleep(20000); /* it comes back, to nobody */
	ck_assert_uint_eq(stuck[0] + stuck[1], 0);
}
END_TEST

CHECK_MAIN("jobs", 60, what_is_stuck_is_left_behind, work_leaves_the_loop_and_done_comes_back, a_lane_keeps_its_order,
	   a_second_half_comes_before_those_that_wait, jobs_without_a_lane_run_side_by_side,
	   a_blocked_job_does_not_hold_up_the_next, the_last_done_may_free_the_lane,
	   the_end_waits_for_those_that_run_and_drops_the_rest, the_end_lets_owners_go,
	   what_is_stopped_refuses_until_it_is_freed, an_end_without_jobs, many_jobs_on_many_lanes)
