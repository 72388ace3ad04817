/* Split DWARF (DWARF 5, 7.3.2; GNU's extension of DWARF 4): the program has a skeleton of each unit, with its addresses and lines, and a
 * split unit in another file has its functions. That file is the compiler's .dwo, one for each unit, or a package (.dwp) of many, with
 * an index. Both units carry the same 64-bit id, by which a file of other code, or of an earlier compilation, is told. */
#pragma once
#include "elf/dwarf_unit.h"
#include "proto/reader_limits.h"

struct dwarf_splits {
	struct dwarf_source package; /* without sections: there is none */
	bool package_sought;
	struct dwarf_unit **packaged; /* the units read from it */
	size_t n_packaged, packaged_allocated;
	struct dwarf_source **files; /* .dwo files */
	size_t n_files, files_allocated;
	struct dwarf_unit **sought; /* skeletons whose file's name was told, and that lack their split unit */
	size_t n_sought, sought_allocated;
};

void dwarf_splits_free(struct dwarf_splits *splits);
size_t dwarf_splits_bytes(const struct dwarf_splits *splits); /* of memory that is our own */

/* A skeleton whose split unit is not there yet, and was not given up. */
bool dwarf_split_is_missing(const struct dwarf_unit *unit);
/* Looks for the split unit in the package; unit->split is set if it is there. */
void dwarf_split_find_packaged(struct dwarf_splits *splits, struct dwarf_unit *skeleton);
/* Remembers that the skeleton's file is being looked for, and writes its path as the compiler gave it, "" when that is unfit. */
int dwarf_split_seek(struct dwarf_splits *splits, struct dwarf_unit *skeleton,
		     char ret_path[READER_LINK_MAX_BYTES + 1]); /* -ENOMEM */

/* Take over sections, which they release when they fail. -ENOENT: it holds no unit that was sought, or is no package; -EFBIG, -ENOMEM, -EBADMSG. */
int dwarf_splits_add_file(struct dwarf_splits *splits, struct dwarf_sections *sections);
int dwarf_splits_add_package(struct dwarf_splits *splits, struct dwarf_sections *sections);

/* Where the unit of that id is in a package, by its index (dwarf_package.c). False: it is not, or the index is malformed. */
bool dwarf_package_find(struct dwarf_source *package, uint64_t dwo_id, struct dwarf_bases *ret);
