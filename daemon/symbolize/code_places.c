#include "symbolize/code_places.h"

#include <stdlib.h>

#include "base/cleanup.h"

/* Moments of one address follow one another; an answer serves as many as fall in its time. */
struct open_addresses {
	size_t *first; /* the first moment without an answer of each address that has some */
	size_t n;
};

struct questions {
	size_t at[READER_BATCH_MAX]; /* of the moments */
	size_t n;
};

struct answers {
	uint64_t places[READER_BATCH_MAX], until_ns[READER_BATCH_MAX];
	size_t n;
};

static int ask(struct file_names *names, const struct named_file *dump, const struct code_moment *moments,
	       const struct questions *questions, uint64_t deadline_ns, struct answers *ret)
{
	uint64_t addresses[READER_BATCH_MAX], times_ns[READER_BATCH_MAX];
	for (size_t i = 0; i < questions->n; i++) {
		addresses[i] = moments[questions->at[i]].address;
		times_ns[i] = moments[questions->at[i]].time_ns;
	}
	return file_names_code_at(names, dump, addresses, times_ns, questions->n, deadline_ns, ret->places,
				  ret->until_ns, &ret->n);
}

/* Asks for a moment and those that follow, at most n of one address. */
static void put(struct questions *questions, const struct code_moment *moments, size_t n_moments, size_t at, size_t n)
{
	uint64_t address = moments[at].address;
	for (; n > 0 && at < n_moments && moments[at].address == address; n--)
		questions->at[questions->n++] = at++;
}

/* Gives an answer to the moments that it serves, from at on. */
static void take(struct code_moment *moments, size_t n, size_t at, uint64_t place, uint64_t until_ns)
{
	uint64_t address = moments[at].address;
	do
		moments[at++].place = place;
	while (at < n && moments[at].address == address && moments[at].time_ns < until_ns);
}

/* The next without an answer, of the same address; n: there is none. */
static size_t next_unasked(const struct code_moment *moments, size_t n, size_t at)
{
	uint64_t address = moments[at].address;
	while (at < n && moments[at].address == address && moments[at].place != CODE_PLACE_UNASKED)
		at++;
	return at < n && moments[at].address == address ? at : n;
}

/* A question for each open address, or several when there are few; those that are still open remain. */
static int ask_all(struct file_names *names, const struct named_file *dump, struct code_moment *moments, size_t n,
		   uint64_t deadline_ns, struct open_addresses *open)
{
	size_t each = open->n < READER_BATCH_MAX ? READER_BATCH_MAX / open->n : 1;
	size_t kept = 0, asked = 0, done = 0;
	int r = 0;
	while (r == 0 && done < open->n) {
		struct questions questions = {.n = 0};
		struct answers answers = {.n = 0};
		for (; asked < open->n && questions.n + each <= READER_BATCH_MAX; asked++)
			put(&questions, moments, n, open->first[asked], each);
		r = ask(names, dump, moments, &questions, deadline_ns, &answers);
		for (size_t i = 0; r == 0 && i < answers.n; i++)
			if (moments[questions.at[i]].place == CODE_PLACE_UNASKED)
				take(moments, n, questions.at[i], answers.places[i], answers.until_ns[i]);
		for (; done < asked; done++) {
			size_t next = next_unasked(moments, n, open->first[done]);
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
