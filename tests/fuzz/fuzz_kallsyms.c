/* kallsyms: any text; look-ups at, around and far from what it names. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "symbolize/kallsyms.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void find(const struct kallsyms *kallsyms, uint64_t address)
{
	struct kallsyms_symbol symbol;
	if (!kallsyms_find(kallsyms, address, &symbol))
		return;
	if (symbol.start > address || strlen(symbol.name) == 0 || strlen(symbol.name) + strlen(symbol.module) > 1100)
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	_cleanup_fclose_ FILE *in = fmemopen((void *)data, size, "r");
	struct kallsyms *kallsyms = NULL;
	if (!in || kallsyms_read(in, &kallsyms) < 0)
		return 0;
	static const uint64_t addresses[] = {0,         1, 0xffffffff81000000, 0xffffffff81000123, 0xffffffffc0000000,
					     UINT64_MAX};
	for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
		find(kallsyms, addresses[i]);
	uint64_t address = 0;
	memcpy(&address, data, size < sizeof(address) ? size : sizeof(address));
	find(kallsyms, address);
	kallsyms_free(kallsyms);
	return 0;
}
