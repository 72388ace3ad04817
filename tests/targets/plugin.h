#pragma once
#include <stdint.h>

void plugin_burn(uint64_t iterations);
