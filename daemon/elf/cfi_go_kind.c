#include <string.h>

#include "elf/cfi_go_runtime.h"
#include "elf/go_pclntab.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum cfi_go_kind cfi_go_kind_of(struct dwarf_text name, uint8_t flags)
{
	static const struct {
		const char *name;
		enum cfi_go_kind kind;
	} special[] = {
		{"runtime.goexit", CFI_GO_TOP},
		{"runtime.mstart", CFI_GO_TOP},
		{"runtime.rt0_go", CFI_GO_TOP},
		{"_rt0_amd64", CFI_GO_TOP},
		{"_rt0_amd64_linux", CFI_GO_TOP},
		{"runtime.sigtramp",
		 CFI_GO_INJECTED}, /* Go says that it is on top, since what it interrupts is none of its business */
		{"runtime.sigprofNonGoWrapper", CFI_GO_PLAIN},
		{"runtime.asyncPreempt", CFI_GO_INJECTED},
		{"runtime.sigpanic", CFI_GO_INJECTED},
		{"runtime.sigpanic0", CFI_GO_INJECTED},
		{"runtime.sigreturn", CFI_GO_SIGRETURN},
		{"runtime.sigreturn__sigaction", CFI_GO_SIGRETURN},
		{"runtime.systemstack", CFI_GO_SYSTEMSTACK},
		{"runtime.mcall", CFI_GO_MCALL},
		{"runtime.morestack", CFI_GO_MORESTACK},
		{"runtime.gogo", CFI_GO_GOGO},
		{"gogo", CFI_GO_GOGO},
		{"runtime.cgocallback", CFI_GO_CGOCALLBACK},
		{"runtime.asmcgocall", CFI_GO_ASMCGOCALL},
		{"runtime.asmcgocall_no_g", CFI_GO_ASMCGOCALL},
		{"runtime.nanotime1", CFI_GO_SAVES_SP}, /* before Go 1.17 there are no flags */
		{"runtime.walltime", CFI_GO_SAVES_SP},
		{"runtime.walltime1", CFI_GO_SAVES_SP},
	};
	for (size_t i = 0; i < COUNT(special); i++) {
		if (strlen(special[i].name) == name.n && memcmp(special[i].name, name.at, name.n) == 0)
			return special[i].kind;
	}
	if (flags & GO_FUNCTION_TOP)
		return CFI_GO_TOP;
	return flags & GO_FUNCTION_WRITES_SP ? CFI_GO_SAVES_SP : CFI_GO_PLAIN;
}
