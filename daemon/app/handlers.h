/* What each HTTP request does. The context of the handlers is the struct pipeline. */
#pragma once
#include "serve/serve.h"

const struct serve_handlers *handlers_table(void);
