/* Who may do what. Root, the daemon's own user and the socket's group may attach anything; everyone else only processes that are
 * wholly their own, by the rule of ptrace access. Pure policy. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

#include "serve/serve.h"

struct access_policy {
	uid_t daemon_uid;
	gid_t group; /* (gid_t)-1: there is none */
};

/* Who asks, as far as policy cares. */
struct requester {
	uid_t uid;
	gid_t gid;
	bool administrator;
};

struct requester access_requester(const struct access_policy *policy, const struct serve_peer *peer);
/* Kernel frames go to administrators, and to those whom the kernel itself would show them (perf_event_paranoid <= 1). */
bool access_sees_kernel(const struct requester *requester);
int access_perf_event_paranoid(void); /* the kernel's setting; 4 (the strictest known) when unreadable */
