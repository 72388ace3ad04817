#include "symbolize/debug_search.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

#define DEBUG_ROOT "/usr/lib/debug"

/* Ours is the target's root too, for a process in no container. */
static bool is_our_root(int root_fd)
{
	struct stat theirs, ours;
	return root_fd < 0 || (fstat(root_fd, &theirs) == 0 && stat("/", &ours) == 0 && theirs.st_dev == ours.st_dev &&
			       theirs.st_ino == ours.st_ino);
}

/* opened is brought up to date, if it is not NULL. 1: taken; 0: not there, or another's; -errno: the reader failed. */
static int try(const struct debug_search *search, enum protocol_attachment kind, int root_fd, const char *path,
	       struct protocol_reply *opened)
{
	_cleanup_close_ int fd = -1;
	if (opener_open_elf(search->opener, root_fd, path, search->deadline_ns, &fd) < 0)
		return 0;
	struct protocol_reply reply;
	int r = reader_attach(search->reader, search->file_id, kind, fd, search->deadline_ns, &reply);
	if (r < 0)
		return r;
	bool taken = reply.kind == REPLY_OPENED;
	protocol_reply_free(&reply);
	if (!taken)
		return 0;
	if (!opened)
		return 1;
	opened->has_symbols = reply.has_symbols;
	opened->wants_debug = reply.wants_debug;
	memcpy(opened->alt_link, reply.alt_link, sizeof(opened->alt_link));
	memcpy(opened->alt_build_id, reply.alt_build_id, sizeof(opened->alt_build_id));
	return 1;
}

/* The target's root first: what is in it is of the same version as what runs. */
static int try_in_roots(const struct debug_search *search, enum protocol_attachment kind, const char *path,
			struct protocol_reply *opened)
{
	int r = 0;
	if (search->root_fd >= 0)
		r = try(search, kind, search->root_fd, path, opened);
	if (r == 0 && !(search->root_fd >= 0 && is_our_root(search->root_fd)))
		r = try(search, kind, -1, path, opened);
	return r;
}

static int try_build_id(const struct debug_search *search, enum protocol_attachment kind, const char *build_id,
			struct protocol_reply *opened)
{
	char path[PATH_MAX];
	if (strlen(build_id) < 4)
		return 0;
	snprintf(path, sizeof(path), DEBUG_ROOT "/.build-id/%.2s/%s.debug", build_id, build_id + 2);
	return try_in_roots(search, kind, path, opened);
}

/* The directory of path with its slash; "" for a path without one. */
static void directory_of(const char *path, char *out, size_t bytes)
{
	const char *slash = strrchr(path, '/');
	snprintf(out, bytes, "%.*s", slash ? (int)(slash - path + 1) : 0, path);
}

/* Where gdb looks for the name in .gnu_debuglink. Beside the file, only in the target's root: that is where the file is. */
static int try_link(const struct debug_search *search, struct protocol_reply *opened)
{
	static const struct {
		const char *before, *between;
		bool beside;
	} places[] = {{"", "", true}, {"", ".debug/", true}, {DEBUG_ROOT, "", false}};
	char directory[PATH_MAX], path[PATH_MAX];
	directory_of(search->path, directory, sizeof(directory));
	int r = 0;
	for (size_t i = 0; directory[0] == '/' && i < sizeof(places) / sizeof(places[0]) && r == 0; i++) {
		int n = snprintf(path, sizeof(path), "%s%s%s%s", places[i].before, directory, places[i].between,
				 opened->debug_link);
		if (n < 0 || n >= PATH_MAX)
			continue;
		r = places[i].beside ? try(search, PROTOCOL_DEBUG_FILE, search->root_fd, path, opened)
				     : try_in_roots(search, PROTOCOL_DEBUG_FILE, path, opened);
	}
	return r;
}

/* A relative path is from where the debug file is. That is below DEBUG_ROOT, where each distribution has one place for them. */
static int try_alt_link(const struct debug_search *search, struct protocol_reply *opened)
{
	char path[PATH_MAX];
	const char *link = opened->alt_link, *place = strstr(link, ".dwz/");
	int n = 0;
	if (link[0] == '/')
		n = snprintf(path, sizeof(path), "%s", link);
	else if (place)
		n = snprintf(path, sizeof(path), DEBUG_ROOT "/%s", place);
	else {
		char directory[PATH_MAX];
		directory_of(search->path, directory, sizeof(directory));
		n = snprintf(path, sizeof(path), "%s%s", directory, link);
	}
	return n > 0 && n < PATH_MAX ? try_in_roots(search, PROTOCOL_SUPPLEMENTARY, path, opened) : 0;
}

/* The last place to look. As try; -EAGAIN: it may be there later. */
static int try_fetch(const struct debug_search *search, enum protocol_attachment kind, const char *build_id,
		     struct protocol_reply *opened)
{
	char path[PATH_MAX];
	int r = build_id[0] ? fetch_client_ask(search->fetch, build_id, search->deadline_ns, path) : -ENOENT;
	if (r == 0)
		return try(search, kind, -1, path, opened);
	return r == -EAGAIN ? r : 0;
}

static int find_debug(const struct debug_search *search, struct protocol_reply *opened)
{
	int r = try_build_id(search, PROTOCOL_DEBUG_FILE, opened->build_id, opened);
	if (r == 0 && opened->debug_link[0])
		r = try_link(search, opened);
	return r == 0 ? try_fetch(search, PROTOCOL_DEBUG_FILE, opened->build_id, opened) : r;
}

static int find_alt(const struct debug_search *search, struct protocol_reply *opened)
{
	int r = try_build_id(search, PROTOCOL_SUPPLEMENTARY, opened->alt_build_id, opened);
	if (r == 0 && opened->alt_link[0])
		r = try_alt_link(search, opened);
	return r == 0 ? try_fetch(search, PROTOCOL_SUPPLEMENTARY, opened->alt_build_id, opened) : r;
}

int debug_search_run(const struct debug_search *search, struct protocol_reply *opened)
{
	int r = opened->wants_debug ? find_debug(search, opened) : 0;
	if (r >= 0 && opened->alt_build_id[0])
		r = find_alt(search, opened);
	return r < 0 ? r : 0;
}

/* Beside the file, as linkers' tools leave it, and where the debug files are. */
static int try_package(const struct debug_search *search)
{
	static const char *const places[] = {"", DEBUG_ROOT};
	char path[PATH_MAX];
	int r = 0;
	for (size_t i = 0; search->path[0] == '/' && i < sizeof(places) / sizeof(places[0]) && r == 0; i++) {
		int n = snprintf(path, sizeof(path), "%s%s.dwp", places[i], search->path);
		if (n > 0 && n < PATH_MAX)
			r = try_in_roots(search, PROTOCOL_PACKAGE, path, NULL);
	}
	return r;
}

/* Where the compiler left it; and beside the file, where it may have been copied together with that. */
static int try_split(const struct debug_search *search, const char *name)
{
	char directory[PATH_MAX], path[PATH_MAX];
	const char *slash = strrchr(name, '/'), *last = slash ? slash + 1 : name;
	int r = name[0] == '/' ? try_in_roots(search, PROTOCOL_SPLIT, name, NULL) : 0;
	directory_of(search->path, directory, sizeof(directory));
	const char *const beside[] = {name[0] == '/' ? last : name, name[0] == '/' ? "" : last};
	for (size_t i = 0; r == 0 && directory[0] == '/' && i < sizeof(beside) / sizeof(beside[0]); i++) {
		int n = beside[i][0] ? snprintf(path, sizeof(path), "%s%s", directory, beside[i]) : 0;
		if (n > 0 && n < PATH_MAX)
			r = try(search, PROTOCOL_SPLIT, search->root_fd, path, NULL);
	}
	return r;
}

int debug_search_split(const struct debug_search *search, const struct protocol_reply *wanted)
{
	int r = wanted->wants_package ? try_package(search) : 0;
	for (size_t i = 0; r >= 0 && i < wanted->n_split_paths; i++)
		r = try_split(search, wanted->split_paths[i]);
	return r < 0 ? r : 0;
}
