/* The functions of sprof_inline.h once more, for callers that cannot inline them. */
#define SPROF_INLINE
#include "internal.h"
