/* Names of kernel addresses: kallsyms, read when first needed, and again (not often) when an address is not in it, since modules and BPF
 * programs come and go. Thread: any; it has its own lock. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kernel_names;

enum { KERNEL_NAME_MAX_BYTES = 1200 }; /* "function [module]", with NUL */

struct kernel_names *kernel_names_new(const char *kallsyms_path); /* copies the path; NULL: out of memory */
void kernel_names_free(struct kernel_names *names);               /* NULL is fine */

/* Writes the name into ret. Where the kernel hides its addresses, or kallsyms cannot be read, that is what it says, for every address.
 * False: no function is known there. */
bool kernel_names_find(struct kernel_names *names, uint64_t address, char ret[KERNEL_NAME_MAX_BYTES]);
size_t kernel_names_bytes(struct kernel_names *names);
/* Lets go of what was not asked for since that moment: some megabytes, read again when they are needed. False: there is nothing left to let go of. Never
 * waits. */
bool kernel_names_trim(struct kernel_names *names, uint64_t before_ns);
