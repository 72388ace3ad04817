#include "collect/sampler.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "base/cleanup.h"
#include "sampler.skel.h"

enum {
	COUNTER_TRIES = 64,
	RING_RECORD_HEADER_BYTES = 8, /* BPF_RINGBUF_HDR_SZ */
	OLDEST_KERNEL_MAJOR = 6,
	OLDEST_KERNEL_MINOR = 1,
};

struct sampler {
	struct sampler_bpf *skeleton;
	struct ring_buffer *ring;
	sampler_record_fn record; /* during sampler_drain */
	void *record_context;
	size_t ring_bytes, drained_bytes, most_drained_bytes;
	size_t drained_records;
	uint32_t last_serial;
	int n_cpus;
	bool slot_taken[MAX_TARGET_SLOTS], has_table[MAX_TARGET_SLOTS];
};

static int silent(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level, (void)format, (void)args;
	return 0; /* what libbpf has to say is said in our own words by explain_load_failure */
}

static bool kernel_too_old(struct utsname *ret)
{
	int major = 0, minor = 0;
	return uname(ret) == 0 && sscanf(ret->release, "%d.%d", &major, &minor) == 2 &&
	       (major < OLDEST_KERNEL_MAJOR || (major == OLDEST_KERNEL_MAJOR && minor < OLDEST_KERNEL_MINOR));
}

static int explain_load_failure(int r, struct error *err)
{
	struct utsname kernel;
	if (r == -EPERM || r == -EACCES)
		return error_set(err, EPERM,
				 "the kernel refused the BPF program: sprofd needs CAP_BPF and CAP_PERFMON (start it "
				 "as root or by "
				 "systemctl), and a kernel that is not in lockdown=confidentiality");
	if (kernel_too_old(&kernel))
		return error_set(err, ENOSYS, "Linux %s is too old: sprofd needs 6.1 or later", kernel.release);
	if (access("/sys/kernel/btf/vmlinux", R_OK) < 0)
		return error_set(err, ENOSYS,
				 "the kernel publishes no BTF (/sys/kernel/btf/vmlinux): it must be built with "
				 "CONFIG_DEBUG_INFO_BTF=y");
	if (r == -ENOSYS)
		return error_set(err, ENOSYS, "this kernel has no BPF: it must be built with CONFIG_BPF_SYSCALL=y");
	return error_set(err, -r, "the kernel did not take the BPF program: %s", strerror(-r));
}

static unsigned own_pid_namespace(void)
{
	struct stat st;
	return stat("/proc/self/ns/pid", &st) == 0 ? (unsigned)st.st_ino : 0;
}

static int on_record(void *context, void *data, size_t bytes)
{
	struct sampler *sampler = context;
	sampler->drained_bytes += bytes + RING_RECORD_HEADER_BYTES;
	sampler->drained_records++;
	if (bytes >= sizeof(struct record))
		sampler->record(sampler->record_context, data, bytes);
	/* libbpf goes on while anything comes, which may be for ever. What has been read by now is all that can have been there. */
	return sampler->drained_bytes >= sampler->ring_bytes ? -E2BIG : 0;
}

/* All pages of the ring but the last, which would fill it. That it cannot be done harms nobody: the first samples cost a little more. */
static void touch_ring(struct sampler *sampler)
{
	LIBBPF_OPTS(bpf_test_run_opts, options);
	if (bpf_prog_test_run_opts(bpf_program__fd(sampler->skeleton->progs.touch_ring), &options) == 0)
		ring_buffer__consume(sampler->ring); /* there is nothing in it that would be handed on */
}

static int load(struct sampler *sampler, const struct sampler_options *options)
{
	sampler->skeleton = sampler_bpf__open();
	if (!sampler->skeleton)
		return -errno;
	sampler->skeleton->rodata->daemon_pid_namespace = own_pid_namespace();
	sampler->skeleton->rodata->ring_wakeup_bytes = options->ring_bytes / 4;
	int r = bpf_map__set_max_entries(sampler->skeleton->maps.ring, (uint32_t)options->ring_bytes);
	if (r == 0)
		r = bpf_map__set_max_entries(sampler->skeleton->maps.walks, (uint32_t)sampler->n_cpus);
	if (r == 0)
		r = sampler_bpf__load(sampler->skeleton);
	if (r < 0)
		return r;
	sampler->ring = ring_buffer__new(bpf_map__fd(sampler->skeleton->maps.ring), on_record, sampler, NULL);
	if (!sampler->ring)
		return -errno;
	touch_ring(sampler);
	return 0;
}

int sampler_new(const struct sampler_options *options, struct sampler **ret, struct error *err)
{
	libbpf_set_print(silent);
	struct sampler *sampler = calloc(1, sizeof(*sampler));
	if (!sampler)
		return error_set(err, ENOMEM, "out of memory");
	sampler->n_cpus = libbpf_num_possible_cpus();
	sampler->ring_bytes = options->ring_bytes;
	int r = sampler->n_cpus < 0 ? sampler->n_cpus : load(sampler, options);
	if (r < 0) {
		sampler_free(sampler);
		return explain_load_failure(r, err);
	}
	*ret = sampler;
	return 0;
}

void sampler_free(struct sampler *sampler)
{
	if (!sampler)
		return;
	ring_buffer__free(sampler->ring);
	sampler_bpf__destroy(sampler->skeleton);
	free(sampler);
}

int sampler_program_fd(const struct sampler *sampler)
{
	return bpf_program__fd(sampler->skeleton->progs.sample);
}

int sampler_ring_fd(const struct sampler *sampler)
{
	return bpf_map__fd(sampler->skeleton->maps.ring);
}

int sampler_lists_fd(const struct sampler *sampler)
{
	return bpf_map__fd(sampler->skeleton->maps.mapping_lists);
}

int sampler_tables_fd(const struct sampler *sampler)
{
	return bpf_map__fd(sampler->skeleton->maps.unwind_tables);
}

static uint64_t config_word(struct target_config config)
{
	uint64_t word;
	memcpy(&word, &config, sizeof(word));
	return word;
}

static void write_config(struct sampler *sampler, uint16_t slot, uint64_t word)
{
	__atomic_store_n((uint64_t *)&sampler->skeleton->bss->targets[slot], word, __ATOMIC_SEQ_CST);
}

/* Changes a slot's word whatever the other thread does to another part of it. */
static void update_config(struct sampler *sampler, uint16_t slot, void (*change)(struct target_config *, uint16_t),
			  uint16_t value)
{
	uint64_t *word = (uint64_t *)&sampler->skeleton->bss->targets[slot];
	uint64_t before = __atomic_load_n(word, __ATOMIC_SEQ_CST), after;
	do {
		struct target_config config;
		memcpy(&config, &before, sizeof(config));
		change(&config, value);
		after = config_word(config);
	} while (!__atomic_compare_exchange_n(word, &before, after, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

static void set_flag(struct target_config *config, uint16_t flag)
{
	config->flags |= flag;
}

static void clear_flag(struct target_config *config, uint16_t flag)
{
	config->flags &= (uint16_t)~flag;
}

static int reset_counters(struct sampler *sampler, uint32_t slot)
{
	struct target_counters *zeros = calloc((size_t)sampler->n_cpus, sizeof(*zeros));
	int r = zeros ? bpf_map_update_elem(bpf_map__fd(sampler->skeleton->maps.counters), &slot, zeros, BPF_ANY)
		      : -ENOMEM;
	free(zeros);
	return r;
}

int sampler_slot_acquire(struct sampler *sampler, uint16_t *ret_slot, uint32_t *ret_serial, struct error *err)
{
	uint16_t slot = 0;
	while (slot < MAX_TARGET_SLOTS && sampler->slot_taken[slot])
		slot++;
	if (slot == MAX_TARGET_SLOTS)
		return error_set(err, ENOSPC, "all %d places for targets are taken: detach some", MAX_TARGET_SLOTS);
	int r = reset_counters(sampler, slot);
	if (r < 0)
		return error_set(err, -r, "cannot reset a target's counters: %s", strerror(-r));
	if (++sampler->last_serial == 0) /* 0 means free */
		sampler->last_serial = 1;
	sampler->slot_taken[slot] = true;
	sampler->skeleton->bss->news[slot] = (struct news){0};
	write_config(sampler, slot, config_word((struct target_config){.serial = sampler->last_serial}));
	*ret_slot = slot;
	*ret_serial = sampler->last_serial;
	return 0;
}

/* A map of its own for each table, put into the map of tables: the kernel swaps them, and frees the old one when no walk uses it any more. */
static int insert_table(struct sampler *sampler, uint32_t slot, const struct table_config *config)
{
	uint32_t zero = 0;
	_cleanup_close_ int fd =
		bpf_map_create(BPF_MAP_TYPE_ARRAY, "sprof_table", sizeof(zero), sizeof(*config), 1, NULL);
	if (fd < 0)
		return -errno;
	if (bpf_map_update_elem(fd, &zero, config, BPF_ANY) < 0 ||
	    bpf_map_update_elem(bpf_map__fd(sampler->skeleton->maps.tables), &slot, &fd, BPF_ANY) < 0)
		return -errno;
	return 0;
}

int sampler_set_table(struct sampler *sampler, uint16_t slot, const struct table_config *config)
{
	uint32_t key = slot;
	int r = config ? insert_table(sampler, slot, config) : 0;
	update_config(sampler, slot, config && r == 0 ? set_flag : clear_flag, TARGET_HAS_TABLE);
	if (sampler->has_table[slot] && (!config || r < 0))
		bpf_map_delete_elem(bpf_map__fd(sampler->skeleton->maps.tables), &key);
	sampler->has_table[slot] = config && r == 0;
	return r;
}

int sampler_set_python(struct sampler *sampler, uint16_t slot, const struct python_config *config)
{
	uint32_t key = slot;
	update_config(sampler, slot, clear_flag, TARGET_HAS_PYTHON);
	if (!config)
		return 0;
	if (bpf_map_update_elem(bpf_map__fd(sampler->skeleton->maps.pythons), &key, config, BPF_ANY) < 0)
		return -errno;
	update_config(sampler, slot, set_flag, TARGET_HAS_PYTHON);
	return 0;
}

static void free_claim(struct claim *claim)
{
	__atomic_store_n((uint64_t *)&claim->event, 0, __ATOMIC_SEQ_CST); /* before it can be claimed anew */
	__atomic_store_n((uint64_t *)&claim->thread, 0, __ATOMIC_SEQ_CST);
}

/* A later target's events are numbered anew: the same threads' old claims would shut them out. */
static void free_claims_of_slot(struct sampler *sampler, uint16_t slot)
{
	struct claim *claims = sampler->skeleton->bss->claims;
	for (size_t i = 0; i < CLAIMS; i++) {
		uint64_t event = __atomic_load_n((uint64_t *)&claims[i].event, __ATOMIC_RELAXED);
		if (event && COOKIE_SLOT(event) == slot)
			free_claim(&claims[i]);
	}
}

/* Most targets never need claims, and half a mebibyte is then not looked through for nothing. */
static bool uses_claims(const struct sampler *sampler, uint16_t slot)
{
	struct target_config config;
	uint64_t word = __atomic_load_n((uint64_t *)&sampler->skeleton->bss->targets[slot], __ATOMIC_SEQ_CST);
	memcpy(&config, &word, sizeof(config));
	return config.flags & TARGET_CHECK_CLAIMS;
}

void sampler_slot_release(struct sampler *sampler, uint16_t slot)
{
	bool claimed = uses_claims(sampler, slot);
	(void)sampler_set_table(sampler, slot, NULL);
	write_config(sampler, slot, 0);
	if (claimed)
		free_claims_of_slot(sampler, slot);
	sampler->slot_taken[slot] = false;
}

static void change_generation(struct target_config *config, uint16_t generation)
{
	config->generation = generation;
}

void sampler_accept_generation(struct sampler *sampler, uint16_t slot, uint16_t generation)
{
	update_config(sampler, slot, change_generation, generation);
}

void sampler_check_claims(struct sampler *sampler, uint16_t slot)
{
	update_config(sampler, slot, set_flag, TARGET_CHECK_CLAIMS);
}

void sampler_hush(struct sampler *sampler, uint16_t slot, uint64_t until_ns)
{
	__atomic_store_n((uint64_t *)&sampler->skeleton->bss->news[slot].quiet_until_ns, until_ns, __ATOMIC_RELAXED);
}

void sampler_hush_python(struct sampler *sampler, uint16_t slot, uint64_t until_ns)
{
	__atomic_store_n((uint64_t *)&sampler->skeleton->bss->news[slot].python_quiet_until_ns, until_ns,
			 __ATOMIC_RELAXED);
}

size_t sampler_drain(struct sampler *sampler, sampler_record_fn record, void *context)
{
	sampler->record = record;
	sampler->record_context = context;
	sampler->drained_bytes = 0;
	sampler->drained_records = 0;
	ring_buffer__consume(sampler->ring);
	if (sampler->drained_bytes > sampler->most_drained_bytes)
		sampler->most_drained_bytes = sampler->drained_bytes;
	return sampler->drained_records;
}

void sampler_ring(const struct sampler *sampler, struct sampler_ring *ret)
{
	*ret = (struct sampler_ring){
		.bytes = sampler->ring_bytes,
		.drained_bytes = sampler->drained_bytes,
		.most_drained_bytes = sampler->most_drained_bytes,
	};
}

static bool is_consistent(const struct target_counters *counters)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < OUTCOME_COUNT; i++)
		sum += counters->outcomes[i];
	return sum == counters->entries;
}

/* One look at all CPUs. Whether each is consistent by itself: sums could agree by chance. */
static bool look(const struct target_counters *per_cpu, int n_cpus, struct target_counters *ret)
{
	bool consistent = true;
	*ret = (struct target_counters){0};
	for (int cpu = 0; cpu < n_cpus; cpu++) {
		consistent = consistent && is_consistent(&per_cpu[cpu]);
		ret->entries += per_cpu[cpu].entries;
		ret->late_periods += per_cpu[cpu].late_periods;
		for (size_t i = 0; i < OUTCOME_COUNT; i++)
			ret->outcomes[i] += per_cpu[cpu].outcomes[i];
	}
	return consistent;
}

int sampler_counters(struct sampler *sampler, uint16_t slot, struct target_counters *ret)
{
	uint32_t key = slot;
	_cleanup_free_ struct target_counters *per_cpu = calloc((size_t)sampler->n_cpus, sizeof(*per_cpu));
	if (!per_cpu)
		return -ENOMEM;
	for (int try = 0; try < COUNTER_TRIES; try++) {
		if (bpf_map_lookup_elem(bpf_map__fd(sampler->skeleton->maps.counters), &key, per_cpu) < 0)
			return -errno;
		if (look(per_cpu, sampler->n_cpus, ret))
			return 0;
	}
	return -EAGAIN;
}

void sampler_sweep_claims(struct sampler *sampler)
{
	struct claim *claims = sampler->skeleton->bss->claims;
	size_t taken = 0;
	uint16_t slot = 0;
	while (slot < MAX_TARGET_SLOTS && !uses_claims(sampler, slot))
		slot++;
	if (slot == MAX_TARGET_SLOTS)
		return;
	for (size_t i = 0; i < CLAIMS; i++)
		taken += __atomic_load_n((uint64_t *)&claims[i].thread, __ATOMIC_RELAXED) != 0;
	if (taken <= CLAIMS / 2)
		return;
	for (size_t i = 0; i < CLAIMS; i++) {
		char path[32];
		uint64_t thread = __atomic_load_n((uint64_t *)&claims[i].thread, __ATOMIC_RELAXED);
		snprintf(path, sizeof(path), "/proc/%u", CLAIM_TID(thread));
		if (!thread || access(path, F_OK) == 0)
			continue;
		free_claim(&claims[i]);
	}
}
