/* Where the named symbols of an ELF file are, told as offsets in the file, so that whoever knows where the file's code is mapped knows their addresses. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define FIND_SYMBOLS_NONE UINT64_MAX

/* For each of n names, of what is defined in .dynsym or else .symtab: its address less that of the first executable segment, plus that segment's
 * offset in the file: as if code and data lay in the file as they do in memory. FIND_SYMBOLS_NONE: there is none. fd stays the caller's.
 * -ENOEXEC: no ELF executable or shared library, or malformed; errors of fstat. */
int find_symbols(int fd, char *const *names, size_t n, uint64_t *ret);
