/* Functions, files, lines and inlined calls at addresses of one program or library, from its DWARF: versions 2 to 5.
 *
 * Our own reader instead of libdw: libdw walks a unit's entries one pointer at a time and opens split files by path, which the sandbox
 * forbids; this one skims them (docs/ARCHITECTURE.md has the figures). Units are read when an address in them is first asked for, and
 * let go of within a budget of memory. Whatever the file says, one look-up takes at most some seconds and hundreds of MiB. */
#pragma once
#include "elf/dwarf_sections.h"
#include "proto/reader_limits.h"

struct dwarf;

/* Takes over sections, and releases them in every case. fd must outlive it. -ENOENT: there is no DWARF; -EBADMSG, -EFBIG, -ENOMEM. */
int dwarf_new(struct dwarf_sections *sections, struct dwarf **ret);
void dwarf_free(struct dwarf *dwarf);          /* NULL is fine */
size_t dwarf_bytes(const struct dwarf *dwarf); /* of memory that is our own: not the mapped sections */

struct dwarf_frame {
	const char *name;        /* demangled; NULL: it has none here */
	const char *system_name; /* as the compiler called it; NULL with name */
	const char *filename;    /* "": unknown */
	uint32_t line, start_line;
	bool is_mangled; /* system_name is one of C++, Rust or D that name was made of */
};

/* The functions at address, innermost first, into ret; how many. 0: nothing is known of it. One without a name may be the only one, in
 * code without functions (assembly) that has lines. Everything lives until the next call. */
size_t dwarf_find(struct dwarf *dwarf, uint64_t address, struct dwarf_frame ret[READER_FRAMES_MAX]);

/* Which files of split DWARF hold the functions at address (see dwarf_split.h): into ret, at most max of them, each told once; how many. What
 * dwarf_find says before they are attached is what the skeletons say. The first time, *ret_package is set: there may be a package. */
struct dwarf_wanted {
	char path[READER_LINK_MAX_BYTES + 1];
};
size_t dwarf_want(struct dwarf *dwarf, uint64_t address, struct dwarf_wanted *ret, size_t max, bool *ret_package);
/* Takes over sections, as dwarf_new does: those of a .dwo file that was wanted, held (dwarf_sections_hold), or of a package. -ENOENT: it is
 * another's, or no package, or there is one; -EBADMSG, -EFBIG, -ENOMEM. */
int dwarf_add_split(struct dwarf *dwarf, struct dwarf_sections *sections);
int dwarf_add_package(struct dwarf *dwarf, struct dwarf_sections *sections);

/* Gives it dwz's supplementary file, whose sections it takes over as dwarf_new does. Once. -ENOENT, -EBADMSG, -EFBIG, -ENOMEM. */
int dwarf_set_alt(struct dwarf *dwarf, struct dwarf_sections *sections);
