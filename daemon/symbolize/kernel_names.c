#include "symbolize/kernel_names.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "symbolize/kallsyms.h"

#define RELOAD_MIN_NS (5 * NS_PER_S)  /* for an address that is unknown */
#define RETRY_MIN_NS  (60 * NS_PER_S) /* when it was restricted or unreadable */
#define MODULES_MAX_AGE_NS \
	(60 * NS_PER_S) /* where modules and BPF programs come and go, a name may be of one that went */

struct kernel_names {
	pthread_mutex_t lock;
	char *path;
	struct kallsyms *kallsyms; /* NULL: not read, or it could not be */
	uint64_t read_ns;          /* when it was tried last; 0: never */
	uint64_t used_ns;          /* when it was asked last */
};

struct kernel_names *kernel_names_new(const char *kallsyms_path)
{
	struct kernel_names *names = calloc(1, sizeof(*names));
	if (!names)
		return NULL;
	names->path = strdup(kallsyms_path);
	if (!names->path) {
		free(names);
		return NULL;
	}
	pthread_mutex_init(&names->lock, NULL);
	return names;
}

void kernel_names_free(struct kernel_names *names)
{
	if (!names)
		return;
	pthread_mutex_destroy(&names->lock);
	kallsyms_free(names->kallsyms);
	free(names->path);
	free(names);
}

/* On failure what was known stays. */
static void read_again(struct kernel_names *names, uint64_t now_ns)
{
	names->read_ns = now_ns;
	_cleanup_fclose_ FILE *in = fopen(names->path, "re");
	struct kallsyms *kallsyms = NULL;
	if (!in || kallsyms_read(in, &kallsyms) < 0)
		return;
	kallsyms_free(names->kallsyms);
	names->kallsyms = kallsyms;
}

static bool is_usable(const struct kernel_names *names)
{
	return names->kallsyms && !kallsyms_restricted(names->kallsyms);
}

static bool find(struct kernel_names *names, uint64_t address, struct kallsyms_symbol *ret)
{
	uint64_t now_ns = clock_monotonic_ns();
	names->used_ns = now_ns;
	if (names->read_ns == 0 || (!is_usable(names) && now_ns - names->read_ns >= RETRY_MIN_NS))
		read_again(names, now_ns);
	if (!is_usable(names))
		return false;
	bool found = kallsyms_find(names->kallsyms, address, ret);
	uint64_t age_ns = now_ns - names->read_ns;
	if ((!found && age_ns >= RELOAD_MIN_NS) || (found && ret->module[0] && age_ns >= MODULES_MAX_AGE_NS)) {
		read_again(names, now_ns);
		found = kallsyms_find(names->kallsyms, address, ret);
	}
	return found;
}

static void write_name(const struct kallsyms_symbol *symbol, char *out)
{
	if (symbol->module[0])
		snprintf(out, KERNEL_NAME_MAX_BYTES, "%s [%s]", symbol->name, symbol->module);
	else
		snprintf(out, KERNEL_NAME_MAX_BYTES, "%s", symbol->name);
}

bool kernel_names_find(struct kernel_names *names, uint64_t address, char ret[KERNEL_NAME_MAX_BYTES])
{
	struct kallsyms_symbol symbol;
	pthread_mutex_lock(&names->lock);
	bool found = find(names, address, &symbol);
	if (found) {
		write_name(&symbol, ret);
	} else if (!is_usable(names)) {
		const char *why = names->kallsyms ? "[kernel: addresses are restricted; see kernel.kptr_restrict]"
						  : "[kernel: kallsyms cannot be read]";
		snprintf(ret, KERNEL_NAME_MAX_BYTES, "%s", why);
		found = true;
	}
	pthread_mutex_unlock(&names->lock);
	return found;
}

bool kernel_names_trim(struct kernel_names *names, uint64_t before_ns)
{
	if (pthread_mutex_trylock(&names->lock) != 0)
		return true;                                  /* in use */
	if (is_usable(names) && names->used_ns < before_ns) { /* of one that is restricted only that is kept */
		kallsyms_free(names->kallsyms);
		names->kallsyms = NULL;
		names->read_ns = 0;
	}
	bool left = is_usable(names);
	pthread_mutex_unlock(&names->lock);
	return left;
}

size_t kernel_names_bytes(struct kernel_names *names)
{
	pthread_mutex_lock(&names->lock);
	size_t bytes = names->kallsyms ? kallsyms_bytes(names->kallsyms) : 0;
	pthread_mutex_unlock(&names->lock);
	return bytes;
}
