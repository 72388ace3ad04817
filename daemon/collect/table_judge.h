/* Judges one look at a barrier-lock table by the specification's rules for writers (W1 to W8, layout, discovery), as far as they can be seen from outside.
 * Pure. */
#pragma once
#include "collect/table_findings.h"
#include "collect/table_look.h"

/* Adds to *findings. What needs two looks is added as well: findings_join decides. */
void table_judge(const struct table_look *look, struct findings *findings);
