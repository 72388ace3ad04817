#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "app/access.h"
#include "check_main.h"

static const struct access_policy policy = {.daemon_uid = 123, .group = 77};

START_TEST(administrators)
{
	struct serve_peer peer = {.uid = 0, .gid = 0};
	ck_assert(access_requester(&policy, &peer).administrator);
	peer = (struct serve_peer){.uid = 123, .gid = 5};
	ck_assert(access_requester(&policy, &peer).administrator);
	peer = (struct serve_peer){.uid = 1000, .gid = 77};
	ck_assert(access_requester(&policy, &peer).administrator);
	peer = (struct serve_peer){.uid = 1000, .gid = 1000, .groups = {4, 20, 77}, .n_groups = 3};
	ck_assert(access_requester(&policy, &peer).administrator);
}
END_TEST

START_TEST(everybody_else)
{
	struct serve_peer peer = {.uid = 1000, .gid = 1001};
	ck_assert_uint_eq(access_requester(&policy, &peer).uid, 1000);
	ck_assert_uint_eq(access_requester(&policy, &peer).gid, 1001);
	ck_assert(!access_requester(&policy, &peer).administrator);
	peer = (struct serve_peer){.uid = 77, .gid = 123}; /* the right numbers at the wrong places */
	ck_assert(!access_requester(&policy, &peer).administrator);
	peer = (struct serve_peer){.uid = 1000, .gid = 1000, .groups = {4, 20, 77}, .n_groups = 2}; /* past the end */
	ck_assert(!access_requester(&policy, &peer).administrator);
	peer = (struct serve_peer){.uid = 1000, .gid = 0, .groups = {0}, .n_groups = 1};
	ck_assert(!access_requester(&policy, &peer).administrator);
}
END_TEST

START_TEST(no_group_is_nobodys_group)
{
	const struct access_policy without = {.daemon_uid = 123, .group = (gid_t)-1};
	struct serve_peer peer = {.uid = 1000, .gid = (gid_t)-1, .groups = {(gid_t)-1}, .n_groups = 1};
	ck_assert(!access_requester(&without, &peer).administrator);
}
END_TEST

START_TEST(kernel_frames)
{
	const struct requester root = {.uid = 1000, .gid = 1000, .administrator = true},
			       user = {.uid = 1000, .gid = 1000};
	int level = access_perf_event_paranoid();
	ck_assert_int_ge(level, -1);
	ck_assert_int_le(level, 4);
	ck_assert(access_sees_kernel(&root));
	ck_assert_int_eq(access_sees_kernel(&user), level <= 1);
}
END_TEST

CHECK_MAIN("access", 10, administrators, everybody_else, no_group_is_nobodys_group, kernel_frames)
