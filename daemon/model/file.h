/* A file that a target maps, held open read-only from first sight, so that it can still be read when it was deleted, replaced,
 * or its process and container are gone. sprofd never reads a byte of it: the fd is handed to sprofd-elf.
 *
 * Identity is what fstat says of the open file: device, inode, size, mtime and ctime. A file_registry keeps one struct file
 * for each identity, shared among all targets, as long as somebody holds a reference.
 *
 * Thread: any (reference counts are atomic, the registry has a lock). fd and identity never change; build_id is set once
 * by symbolize, under file_set_build_id. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BUILD_ID_HEX_BYTES = 2 * 64 + 1 };

struct file_identity {
	uint64_t device, inode, size_bytes;
	int64_t mtime_ns, ctime_ns;
};

struct file_registry;
struct file {
	struct file_identity identity;
	int fd;      /* read-only; -1: over the registry's budget of fds (the file then has no names) */
	uint64_t id; /* unique in this daemon's life, never reused */
	/* private to file.c */
	_Atomic unsigned references;
	_Atomic(const char *) build_id;
	struct file_registry *registry;
	struct file *next;
};

/* max_fds: how many files may be held open at once. NULL when out of memory. */
struct file_registry *file_registry_new(unsigned max_fds);
void file_registry_free(struct file_registry *registry); /* all files must have been released */
unsigned file_registry_count(struct file_registry *registry);

/* Takes ownership of fd in every case. 0 and a new reference in *ret (a known identity closes fd and shares the file);
 * -ENOMEM; -errno of fstat; -EINVAL when fd is no regular file. */
int file_registry_intern(struct file_registry *registry, int fd, struct file **ret);

struct file *file_ref(struct file *file);
void file_unref(struct file *file); /* NULL is fine */

/* Lower-case hex, or NULL while unknown, or "" when the file has none. The text lives as long as the file. */
const char *file_build_id(const struct file *file);
/* The first call wins, later ones are ignored. Copies. */
void file_set_build_id(struct file *file, const char *hex);
