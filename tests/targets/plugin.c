/* The library that loader opens while it runs. */
#include "plugin.h"
#include "target.h"

TARGET_NOINLINE static void plugin_inner(uint64_t iterations)
{
	target_burn(iterations);
	TARGET_OWN_FRAME(plugin_inner);
}

__attribute__((visibility("default"))) void plugin_burn(uint64_t iterations)
{
	plugin_inner(iterations);
	__asm__ volatile("");
}
