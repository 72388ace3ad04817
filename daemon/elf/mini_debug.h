/* MiniDebugInfo: .gnu_debugdata, an ELF file with nothing but a .symtab, packed with xz, which distributions leave in stripped files. */
#pragma once
#include <libelf.h>

#include "elf/symbol_source.h"

/* Reads its symbols, and keeps the unpacked file for their names. Nothing changes when there is none, or it is malformed or too large. */
void mini_debug_read(Elf *elf, struct symbol_source *ret);
