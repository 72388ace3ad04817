/* What is written into a file's data when it is loaded. */
#pragma once
#include <libelf.h>
#include <stdbool.h>
#include <stdint.h>

/* What a relocation that adds nothing but where the file is loaded puts at address: as linked. 0: there is none. */
uint64_t relocation_of(Elf *elf, uint64_t address);
/* Where such a relocation puts target, which is not 0: the first of those that wanted() agrees to. 0: nowhere. */
uint64_t relocation_to(Elf *elf, uint64_t target, bool (*wanted)(Elf *elf, uint64_t address, void *context),
		       void *context);
