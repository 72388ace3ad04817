#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check_main.h"
#include "sprofctl/output_file.h"

static char directory[] = "/tmp/sprof-unit.XXXXXX";
static struct problem problem;

static void enter_directory(void)
{
	strcpy(strrchr(directory, '.'), ".XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	ck_assert_int_eq(chdir(directory), 0);
	umask(0022);
	problem.text[0] = '\0';
}

static void remove_directory(void)
{
	char command[100];
	snprintf(command, sizeof(command), "rm -rf %s", directory);
	ck_assert_int_eq(system(command), 0);
}

static int count_files(void)
{
	int n = 0;
	DIR *dir = opendir(".");
	for (struct dirent *entry; (entry = readdir(dir));)
		n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	closedir(dir);
	return n;
}

static void assert_holds(const char *path, const char *text)
{
	char found[100] = "";
	FILE *file = fopen(path, "r");
	ck_assert_ptr_nonnull(file);
	found[fread(found, 1, sizeof(found) - 1, file)] = '\0';
	fclose(file);
	ck_assert_str_eq(found, text);
}

static void put(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	fputs(text, file);
	fclose(file);
}

static void open_and_write(struct output_file *file, const char *path, const char *text)
{
	ck_assert_int_eq(output_file_open(file, path, &problem), 0);
	ck_assert_int_eq(output_file_write(file, (const uint8_t *)text, strlen(text), &problem), 0);
}

START_TEST(appears_whole)
{
	struct output_file file;
	struct stat st;
	open_and_write(&file, "profile", "all of it");
	ck_assert_int_eq(access("profile", F_OK), -1);
	ck_assert_int_eq(output_file_commit(&file, true, &problem), 0);
	output_file_close(&file);
	assert_holds("profile", "all of it");
	ck_assert_int_eq(count_files(), 1);
	ck_assert_int_eq(stat("profile", &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0644);
}
END_TEST

START_TEST(or_not_at_all)
{
	struct output_file file;
	put("profile", "what was there");
	open_and_write(&file, "profile", "half of");
	output_file_close(&file);
	assert_holds("profile", "what was there");
	ck_assert_int_eq(count_files(), 1);
	ck_assert_str_eq(problem.text, "");
}
END_TEST

START_TEST(overwrites_only_when_told)
{
	struct output_file file;
	put("profile", "what was there");
	open_and_write(&file, "profile", "new");
	ck_assert_int_eq(output_file_commit(&file, false, &problem), -EEXIST);
	ck_assert_ptr_nonnull(strstr(problem.text, "profile"));
	assert_holds("profile", "what was there");
	strcpy(file.final, "profile.1");
	ck_assert_int_eq(output_file_commit(&file, false, &problem), 0);
	output_file_close(&file);
	assert_holds("profile.1", "new");
	open_and_write(&file, "profile", "newer");
	ck_assert_int_eq(output_file_commit(&file, true, &problem), 0);
	output_file_close(&file);
	assert_holds("profile", "newer");
	ck_assert_int_eq(count_files(), 2);
}
END_TEST

START_TEST(a_link_stays_a_link)
{
	struct output_file file;
	struct stat st;
	put("profile", "what was there");
	ck_assert_int_eq(symlink("profile", "link"), 0);
	open_and_write(&file, "link", "new");
	ck_assert_int_eq(output_file_commit(&file, true, &problem), 0);
	output_file_close(&file);
	assert_holds("profile", "new");
	ck_assert_int_eq(lstat("link", &st), 0);
	ck_assert(S_ISLNK(st.st_mode));
}
END_TEST

START_TEST(a_device_stays_a_device)
{
	struct output_file file;
	struct stat st;
	open_and_write(&file, "/dev/null", "gone");
	ck_assert_int_eq(output_file_commit(&file, true, &problem), 0);
	output_file_close(&file);
	ck_assert_int_eq(stat("/dev/null", &st), 0);
	ck_assert(S_ISCHR(st.st_mode));
}
END_TEST

START_TEST(a_pipe_is_written_in_place)
{
	struct output_file file;
	char found[10] = "";
	ck_assert_int_eq(mkfifo("pipe", 0600), 0);
	int reader = open("pipe", O_RDONLY | O_NONBLOCK);
	open_and_write(&file, "pipe", "bytes");
	ck_assert_int_eq(output_file_commit(&file, true, &problem), 0);
	output_file_close(&file);
	ck_assert_int_eq(read(reader, found, sizeof(found) - 1), 5);
	ck_assert_str_eq(found, "bytes");
	close(reader);
}
END_TEST

START_TEST(tells_where_it_cannot_write)
{
	struct output_file file;
	char long_name[5000];
	ck_assert_int_eq(output_file_open(&file, "no/such/place", &problem), -ENOENT);
	ck_assert_ptr_nonnull(strstr(problem.text, "no/such/place"));
	output_file_close(&file);
	ck_assert_int_eq(output_file_open(&file, directory, &problem), -EISDIR);
	ck_assert_ptr_nonnull(strstr(problem.text, "is a directory"));
	output_file_close(&file);
	memset(long_name, 'x', sizeof(long_name));
	long_name[sizeof(long_name) - 1] = '\0';
	ck_assert_int_eq(output_file_open(&file, long_name, &problem), -ENAMETOOLONG);
	output_file_close(&file);
	ck_assert_int_eq(output_file_open(&file, "/dev/full", &problem), 0);
	ck_assert_int_eq(output_file_write(&file, (const uint8_t *)"x", 1, &problem), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(problem.text, "/dev/full"));
	output_file_close(&file);
	ck_assert_int_eq(count_files(), 0);
}
END_TEST

CHECK_MAIN_WITH(enter_directory, remove_directory, "sprofctl_output_file", 60, appears_whole, or_not_at_all,
		overwrites_only_when_told, a_link_stays_a_link, a_device_stays_a_device, a_pipe_is_written_in_place,
		tells_where_it_cannot_write)
