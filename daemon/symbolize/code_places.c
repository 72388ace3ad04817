#include "symbolize/code_places.h"

#include <stdlib.h>

#include "base/cleanup.h"

/* Moments of one address follow one another. Its first that is not answered stands for them all: an answer serves as many as fall in its time. */
struct open_addresses {
	size_t *first; /* of each address that has moments without an answer */
	size_t n;
};

struct answers {
	uint64_t places[READER_BATCH_MAX], until_ns[READER_BATCH_MAX];
	size_t n;
};

static int ask(struct file_names *names, const struct named_file *dump, const struct code_moment *moments,
	       const size_t *first, size_t n, uint64_t deadline_ns, struct answers *ret)
{
	uint64_t addresses[READER_BATCH_MAX], times_ns[READER_BATCH_MAX];
	for (size_t i = 0; i < n; i++) {
		addresses[i] = moments[first[i]].address;
		times_ns[i] = moments[first[i]].time_ns;
	}
	return file_names_code_at(names, dump, addresses, times_ns, n, deadline_ns, ret->places, ret->until_ns,
				  &ret->n);
}

/* Gives the answer to the moments that it serves, from at on. The next of the same address, or n. */
static size_t take(struct code_moment *moments, size_t n, size_t at, uint64_t place, uint64_t until_ns)
{
	uint64_t address = moments[at].address;
	do
		moments[at++].place = place;
	while (at < n && moments[at].address == address && moments[at].time_ns < until_ns);
	return at < n && moments[at].address == address ? at : n;
}

/* One question for each open address; those that are still open remain. */
static int ask_all(struct file_names *names, const struct named_file *dump, struct code_moment *moments, size_t n,
		   uint64_t deadline_ns, struct open_addresses *open)
{
	struct answers answers;
	size_t kept = 0, done = 0;
	int r = 0;
	while (r == 0 && done < open->n) {
		size_t n_batch = open->n - done < READER_BATCH_MAX ? open->n - done : READER_BATCH_MAX;
		r = ask(names, dump, moments, open->first + done, n_batch, deadline_ns, &answers);
		for (size_t i = 0; r == 0 && i < answers.n; i++, done++) {
			size_t next = take(moments, n, open->first[done], answers.places[i], answers.until_ns[i]);
			if (next < n)
				open->first[kept++] = next;
		}
	}
	open->n = kept;
	return r;
}

size_t code_places_find(struct file_names *names, const struct named_file *dump, struct code_moment *moments, size_t n,
			uint64_t deadline_ns)
{
	_cleanup_free_ size_t *first = reallocarray(NULL, n ? n : 1, sizeof(*first));
	struct open_addresses open = {.first = first};
	for (size_t i = 0; i < n; i++) {
		moments[i].place = CODE_PLACE_UNASKED;
		if (first && (i == 0 || moments[i].address != moments[i - 1].address))
			first[open.n++] = i;
	}
	int r = first ? 0 : -1;
	while (r == 0 && open.n > 0)
		r = ask_all(names, dump, moments, n, deadline_ns, &open);
	size_t missing = 0;
	for (size_t i = 0; i < n; i++)
		if (moments[i].place == CODE_PLACE_UNASKED) {
			moments[i].place = 0;
			missing++;
		}
	return missing;
}
