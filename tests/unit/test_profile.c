#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "check_main.h"
#include "model/profile.h"

START_TEST(comments_keep_their_order)
{
	struct profile *profile = profile_new(1 << 20);
	ck_assert_str_eq(profile->cgroup, "");
	for (int i = 0; i < 100; i++)
		ck_assert_int_eq(profile_comment(profile, "line %d", i), 0);
	ck_assert_uint_eq(profile->n_comments, 100);
	ck_assert_str_eq(profile->comments[0], "line 0");
	ck_assert_str_eq(profile->comments[57], "line 57");
	ck_assert_str_eq(profile->comments[99], "line 99");
	profile_free(profile);
	profile_free(NULL);
}
END_TEST

START_TEST(the_budget_holds_for_comments)
{
	struct profile *profile = profile_new(4200);
	int r = 0;
	size_t n = 0;
	while (n < 10000 && (r = profile_comment(profile, "%060zu", n)) == 0)
		n++;
	ck_assert_int_eq(r, -ENOMEM);
	ck_assert_uint_eq(profile->n_comments, n);
	ck_assert_uint_gt(n, 5);
	for (size_t i = 0; i < n; i++)
		ck_assert_uint_eq(strlen(profile->comments[i]), 60);
	profile_free(profile);
}
END_TEST

START_TEST(free_lets_go_of_the_files)
{
	struct file_registry *registry = file_registry_new(4);
	struct file *file;
	ck_assert_int_eq(file_registry_intern(registry, open("/proc/self/exe", O_RDONLY), &file), 0);
	struct profile *profile = profile_new(1 << 20);
	profile->mappings = arena_alloc(&profile->arena, sizeof(profile->mappings[0]));
	profile->mappings[0] = (struct profile_mapping){.file = file};
	profile->n_mappings = 1;
	ck_assert_uint_eq(file_registry_count(registry), 1);
	profile_free(profile);
	ck_assert_uint_eq(file_registry_count(registry), 0);
	file_registry_free(registry);
}
END_TEST

CHECK_MAIN("profile", 10, comments_keep_their_order, the_budget_holds_for_comments, free_lets_go_of_the_files)
