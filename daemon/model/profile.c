#include "model/profile.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COMMENT_BYTES = 1024 };

struct profile *profile_new(size_t budget_bytes)
{
	struct profile *profile = calloc(1, sizeof(*profile));
	if (!profile)
		return NULL;
	arena_init(&profile->arena, budget_bytes);
	profile->cgroup = "";
	profile->target.root_fd = -1;
	return profile;
}

void profile_free(struct profile *profile)
{
	if (!profile)
		return;
	for (size_t i = 0; i < profile->n_mappings; i++)
		file_unref(profile->mappings[i].file);
	arena_free(&profile->arena);
	free(profile);
}

int profile_comment(struct profile *profile, const char *format, ...)
{
	char text[COMMENT_BYTES];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	/* Comments are few: the array is copied for each, the arena keeps the old ones until the end. */
	const char **comments = arena_alloc(&profile->arena, (profile->n_comments + 1) * sizeof(comments[0]));
	char *copy = arena_strndup(&profile->arena, text, strlen(text));
	if (!comments || !copy)
		return -ENOMEM;
	if (profile->n_comments)
		memcpy(comments, profile->comments, profile->n_comments * sizeof(comments[0]));
	comments[profile->n_comments] = copy;
	profile->comments = comments;
	profile->n_comments++;
	return 0;
}
