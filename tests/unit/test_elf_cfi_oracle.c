/* Unwind tables of this machine's libraries, against libdw: all of ld.so, a sample of the others (tests/bench/cfi_against_libdw has all). */
#include <fcntl.h>
#include <linux/types.h>
#include <stdio.h>
#include <unistd.h>

#include "bpf/cfi_table.h"
#include "cfi_oracle.h"
#include "check_main.h"

static struct cfi_oracle_result result;

static void expect_same(const char *path, unsigned step)
{
	ck_assert_int_eq(cfi_oracle_compare(path, step, &result), 0);
	ck_assert_msg(result.n_different == 0, "%s: %llu of %llu rows differ", path,
		      (unsigned long long)result.n_different, (unsigned long long)result.n_compared);
	ck_assert_uint_eq(result.n_refused, 0);
	ck_assert_uint_eq(result.n_only_ours, 0);
}

static void spoil_cfa(struct cfi_rule *rule)
{
	rule->cfa_offset += 8;
}

static void spoil_ra(struct cfi_rule *rule)
{
	rule->ra_value += 8;
}

static void spoil_rbp(struct cfi_rule *rule)
{
	rule->where[1] = CFI_SAME;
}

static void spoil_sp(struct cfi_rule *rule)
{
	rule->sp_where = CFI_VALUE_CFA;
	rule->sp_value = 8;
}

static void spoil_flag(struct cfi_rule *rule)
{
	rule->flags |= CFI_SIGNAL_FRAME;
}

START_TEST(loader)
{
	expect_same("/lib64/ld-linux-x86-64.so.2", 1);
	ck_assert_uint_gt(result.n_compared, 1000);
	ck_assert_uint_gt(result.n_signal_frames, 0); /* __restore_rt */
}
END_TEST

START_TEST(libc)
{
	expect_same("/lib/x86_64-linux-gnu/libc.so.6", 1);
	ck_assert_uint_gt(result.n_compared, 20000);
	ck_assert_uint_gt(result.n_signal_frames, 0); /* __restore_rt */
	ck_assert_uint_gt(result.n_expressions, 0);   /* its, and the PLT's */
	ck_assert_uint_gt(result.n_ends, 0);          /* clone3 */
}
END_TEST

START_TEST(libstdcxx)
{
	expect_same("/usr/lib/x86_64-linux-gnu/libstdc++.so.6", 7);
	ck_assert_uint_gt(result.n_compared, 3000);
}
END_TEST

/* That a table with one wrong rule is found out: each field in turn, of a rule that rows use. */
START_TEST(oracle_sees_errors)
{
	const char *path = "/lib64/ld-linux-x86-64.so.2";
	struct cfi_table table;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(cfi_build(fd, &table), 0);
	const struct cfi_table_header *header = (const void *)table.bytes;
	struct cfi_rule *rules = (struct cfi_rule *)(table.bytes + header->off_rules);
	unsigned tried = 0;
	for (uint32_t i = CFI_RULE_END + 1; i < header->n_rules; i++) {
		struct cfi_rule kept = rules[i];
		if (kept.cfa != CFI_CFA_REGISTER || kept.where[1] != CFI_AT_CFA || ++tried > 3)
			continue;
		void (*const spoil[])(struct cfi_rule *) = {spoil_cfa, spoil_ra, spoil_rbp, spoil_sp, spoil_flag};
		for (size_t k = 0; k < sizeof(spoil) / sizeof(spoil[0]); k++) {
			spoil[k](&rules[i]);
			ck_assert_int_eq(cfi_oracle_compare_table(path, &table, 1, true, &result), 0);
			ck_assert_msg(result.n_different > 0, "error %zu of rule %u is not seen", k, i);
			rules[i] = kept;
		}
	}
	ck_assert_uint_gt(tried, 0);
	cfi_table_free(&table);
	close(fd);
}
END_TEST

CHECK_MAIN("elf_cfi_oracle", 120, loader, libc, libstdcxx, oracle_sees_errors)
