#include "app/access.h"

#include <stdio.h>

#include "base/cleanup.h"

enum { STRICTEST_PARANOID = 4, KERNEL_PROFILING_FOR_USERS = 1 };

static bool is_administrator(const struct access_policy *policy, const struct serve_peer *peer)
{
	if (peer->uid == 0 || peer->uid == policy->daemon_uid)
		return true;
	if (policy->group == (gid_t)-1)
		return false;
	bool member = peer->gid == policy->group;
	for (size_t i = 0; i < peer->n_groups && !member; i++)
		member = peer->groups[i] == policy->group;
	return member;
}

int access_perf_event_paranoid(void)
{
	int level;
	_cleanup_fclose_ FILE *file = fopen("/proc/sys/kernel/perf_event_paranoid", "re");
	return file && fscanf(file, "%d", &level) == 1 ? level : STRICTEST_PARANOID;
}

struct requester access_requester(const struct access_policy *policy, const struct serve_peer *peer)
{
	return (struct requester){.uid = peer->uid, .gid = peer->gid, .administrator = is_administrator(policy, peer)};
}

bool access_sees_kernel(const struct requester *requester)
{
	return requester->administrator || access_perf_event_paranoid() <= KERNEL_PROFILING_FOR_USERS;
}
