#include "collect/table_findings.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ONCE = false, TWICE = true };

const struct finding_info *finding_info(enum finding_code code)
{
	static const struct finding_info infos[FINDING_COUNT] = {
#define FINDING_INFO(code, severity, proof, rule, todo) {#code, FINDING_##severity, proof, rule, todo},
		FINDING_TABLE(FINDING_INFO)
#undef FINDING_INFO
	};
	return &infos[code];
}

static void add(struct findings *findings, const struct finding *finding)
{
	if (findings->counts[finding->code]++ >= FINDINGS_OF_A_CODE)
		return;
	if ((findings->n & (findings->n - 1)) == 0) {
		struct finding *grown = reallocarray(findings->list, findings->n ? 2 * findings->n : 1, sizeof(*grown));
		if (!grown) {
			findings->out_of_memory = true;
			return;
		}
		findings->list = grown;
	}
	findings->list[findings->n++] = *finding;
}

void findings_add(struct findings *findings, enum finding_code code, uint64_t identity, const char *where,
		  const char *format, ...)
{
	struct finding finding = {.code = code, .identity = identity};
	va_list args;
	snprintf(finding.where, sizeof(finding.where), "%s", where);
	va_start(args, format);
	vsnprintf(finding.what, sizeof(finding.what), format, args);
	va_end(args);
	add(findings, &finding);
}

void findings_free(struct findings *findings)
{
	free(findings->list);
	*findings = (struct findings){0};
}

static const struct finding *find(const struct findings *findings, const struct finding *same)
{
	for (size_t i = 0; i < findings->n; i++)
		if (findings->list[i].code == same->code && findings->list[i].identity == same->identity &&
		    !strcmp(findings->list[i].where, same->where))
			return &findings->list[i];
	return NULL;
}

/* More than are listed, in both looks: the rest cannot be matched one by one. */
static void count_rest(const struct findings *first, const struct findings *second, struct findings *joined)
{
	for (int code = 0; code < FINDING_COUNT; code++) {
		bool twice = finding_info((enum finding_code)code)->twice;
		uint32_t a = first->counts[code], b = second->counts[code];
		uint32_t all = twice == (a < b) ? a : b; /* the less, if two looks are needed; else the more */
		if (joined->counts[code] == FINDINGS_OF_A_CODE && all > FINDINGS_OF_A_CODE)
			joined->counts[code] = all;
	}
}

int findings_join(const struct findings *first, const struct findings *second, struct findings *ret)
{
	struct findings joined = {0};
	for (size_t i = 0; i < second->n; i++)
		if (!finding_info(second->list[i].code)->twice || find(first, &second->list[i]))
			add(&joined, &second->list[i]);
	for (size_t i = 0; i < first->n; i++)
		if (!finding_info(first->list[i].code)->twice && !find(second, &first->list[i]))
			add(&joined, &first->list[i]);
	count_rest(first, second, &joined);
	if (joined.out_of_memory || first->out_of_memory || second->out_of_memory) {
		findings_free(&joined);
		return -ENOMEM;
	}
	*ret = joined;
	return 0;
}
