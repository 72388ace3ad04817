/* Files by path in a root that somebody hostile has arranged. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "check_main.h"
#include "symbolize/opener.h"

static char root[64];
static int root_fd = -1;
static struct opener *opener;

static void setup(void)
{
	strcpy(root, "/tmp/sprof-opener.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	opener = opener_new();
	ck_assert_ptr_nonnull(opener);
}

static void teardown(void)
{
	char command[128];
	opener_free(opener);
	close(root_fd);
	snprintf(command, sizeof(command), "rm -r %s", root);
	ck_assert_int_eq(system(command), 0);
}

static const char *in_root(const char *name)
{
	static char path[128];
	snprintf(path, sizeof(path), "%s/%s", root, name);
	return path;
}

static void write_file(const char *name, const char *text)
{
	FILE *file = fopen(in_root(name), "w");
	ck_assert_ptr_nonnull(file);
	fputs(text, file);
	fclose(file);
}

/* The first byte of what is opened, or -errno. */
static int try_as(const char *path, uint32_t uid)
{
	int fd = -1;
	char byte = 0;
	int r = opener_open(opener, root_fd, path, uid, clock_monotonic_ns() + 20 * NS_PER_S, &fd);
	if (r < 0) {
		ck_assert_int_eq(fd, -1);
		return r;
	}
	ck_assert_int_eq(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	ck_assert_int_eq(read(fd, &byte, 1), 1);
	close(fd);
	return byte;
}

static int try(const char *path)
{
	return try_as(path, OPENER_ANY_USER);
}

START_TEST(a_file)
{
	write_file("file", "x");
	ck_assert_int_eq(mkdir(in_root("directory"), 0700), 0);
	write_file("directory/inner", "y");
	ck_assert_int_eq(try("/file"), 'x');
	ck_assert_int_eq(try("file"), 'x');
	ck_assert_int_eq(try("/directory/inner"), 'y');
	ck_assert_int_eq(try("/directory/../../../file"), 'x');
	ck_assert_int_eq(try("/missing"), -ENOENT);
	ck_assert_int_eq(try("/file/inner"), -ENOTDIR);
}
END_TEST

/* They lead to where the target would get by them, not to our own files. */
START_TEST(links)
{
	write_file("passwd", "x");
	ck_assert_int_eq(symlink("/passwd", in_root("absolute")), 0);
	ck_assert_int_eq(symlink("../../../../passwd", in_root("up")), 0);
	ck_assert_int_eq(symlink("/etc/passwd", in_root("out")), 0);
	ck_assert_int_eq(symlink("/loop", in_root("loop")), 0);
	ck_assert_int_eq(try("/absolute"), 'x');
	ck_assert_int_eq(try("/up"), 'x');
	ck_assert_int_eq(try("/out"), -ENOENT);
	ck_assert_int_eq(try("/loop"), -ELOOP);
}
END_TEST

START_TEST(what_is_no_file)
{
	ck_assert_int_eq(mkfifo(in_root("fifo"), 0600), 0);
	uint64_t begin_ns = clock_monotonic_ns();
	ck_assert_int_eq(try("/fifo"), -EINVAL);
	ck_assert_uint_lt(clock_monotonic_ns() - begin_ns, NS_PER_S);
	ck_assert_int_eq(try("/"), -EINVAL);
	if (geteuid() == 0) {
		ck_assert_int_eq(mknod(in_root("device"), S_IFCHR | 0600, 0), 0);
		ck_assert_int_eq(try("/device"), -EINVAL);
	}
}
END_TEST

START_TEST(somebody_elses)
{
	write_file("mine", "x");
	ck_assert_int_eq(try_as("/mine", geteuid()), 'x');
	if (geteuid() != 0)
		return;
	ck_assert_int_eq(try_as("/mine", 12345), 'x'); /* root's is believed */
	ck_assert_int_eq(chown(in_root("mine"), 54321, 54321), 0);
	ck_assert_int_eq(try_as("/mine", 12345), -EPERM);
	ck_assert_int_eq(try_as("/mine", 54321), 'x');
	ck_assert_int_eq(try("/mine"), 'x');
}
END_TEST

/* A file system that its owner does not serve: every look at it waits. */
START_TEST(an_open_that_does_not_come_back)
{
	if (geteuid() != 0)
		return;
	char options[64], other[] = "/tmp/sprof-opener.XXXXXX";
	int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC), fd = -1;
	ck_assert_int_ge(fuse, 0);
	ck_assert_int_eq(mkdir(in_root("fuse"), 0700), 0);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
	ck_assert_int_eq(mount("fuse", in_root("fuse"), "fuse", 0, options), 0);
	uint64_t begin_ns = clock_monotonic_ns();
	ck_assert_int_eq(try("/fuse/file"), -ETIME);
	uint64_t took_ns = clock_monotonic_ns() - begin_ns;
	ck_assert_uint_gt(took_ns, NS_PER_S / 2);
	ck_assert_uint_lt(took_ns, 5 * NS_PER_S);
	/* In this root nobody looks again soon; elsewhere all goes on. */
	write_file("file", "x");
	ck_assert_int_eq(try("/file"), -EAGAIN);
	ck_assert_ptr_nonnull(mkdtemp(other));
	int other_fd = open(other, O_PATH | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(
		opener_open(opener, other_fd, "/file", OPENER_ANY_USER, clock_monotonic_ns() + 20 * NS_PER_S, &fd),
		-ENOENT);
	ck_assert_int_eq(
		opener_open(opener, -1, "/etc/passwd", OPENER_ANY_USER, clock_monotonic_ns() + 20 * NS_PER_S, &fd), 0);
	close(fd);
	close(other_fd);
	ck_assert_int_eq(rmdir(other), 0);
	close(fuse); /* wakes who waits */
	ck_assert_int_eq(umount2(in_root("fuse"), MNT_DETACH), 0);
}
END_TEST

START_TEST(our_own_root)
{
	int fd = -1;
	write_file("file", "x");
	ck_assert_int_eq(
		opener_open(opener, -1, in_root("file"), OPENER_ANY_USER, clock_monotonic_ns() + NS_PER_S, &fd), 0);
	close(fd);
	/* Past the deadline it may have been opened or not, but nobody waits. */
	uint64_t begin_ns = clock_monotonic_ns();
	fd = -1;
	int r = opener_open(opener, root_fd, "file", OPENER_ANY_USER, 0, &fd);
	ck_assert(r == 0 || r == -ETIME);
	ck_assert_uint_lt(clock_monotonic_ns() - begin_ns, NS_PER_S);
	if (fd >= 0)
		close(fd);
}
END_TEST

static int try_elf(const char *path)
{
	int fd = -1;
	int r = opener_open_elf(opener, root_fd, path, clock_monotonic_ns() + 20 * NS_PER_S, &fd);
	ck_assert((r == 0) == (fd >= 0));
	if (fd >= 0)
		close(fd);
	return r;
}

/* A path that the target's file names does not make us hand on what is no ELF file. */
START_TEST(only_elf)
{
	write_file("secret", "root:x:0:0:root:/root:/bin/sh\n");
	write_file("short", "\177EL");
	write_file("empty", "");
	write_file("elf", "\177ELF and more");
	ck_assert_int_eq(try_elf("secret"), -ENOEXEC);
	ck_assert_int_eq(try_elf("short"), -ENOEXEC);
	ck_assert_int_eq(try_elf("empty"), -ENOEXEC);
	ck_assert_int_eq(try_elf("elf"), 0);
	ck_assert_int_eq(try_elf("nothing"), -ENOENT);
}
END_TEST

CHECK_MAIN_WITH(setup, teardown, "opener", 60, a_file, links, what_is_no_file, somebody_elses,
		an_open_that_does_not_come_back, our_own_root, only_elf)
