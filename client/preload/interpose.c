/* The C part of what stands before the program's own functions: how fibers are made, where jumps lead, which functions are the real ones.
 * What changes the stack pointer is in switch.S. */
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "preload.h"

#define EXPORT __attribute__((visibility("default")))

/* What switch.S goes by. */
_Static_assert(offsetof(ucontext_t, uc_mcontext.gregs[REG_R8]) == 40, "R8");
_Static_assert(offsetof(ucontext_t, uc_mcontext.gregs[REG_R12]) == 72, "R12");
_Static_assert(offsetof(ucontext_t, uc_mcontext.gregs[REG_RDI]) == 104, "RDI");
_Static_assert(offsetof(ucontext_t, uc_mcontext.gregs[REG_RBP]) == 120, "RBP");
_Static_assert(offsetof(ucontext_t, uc_mcontext.gregs[REG_RSP]) == 160, "RSP");
_Static_assert(offsetof(ucontext_t, uc_mcontext.gregs[REG_RIP]) == 168, "RIP");
_Static_assert(offsetof(ucontext_t, uc_mcontext.fpregs) == 224, "FPREGS");
_Static_assert(offsetof(ucontext_t, uc_sigmask) == 296, "SIGMASK");
_Static_assert(offsetof(ucontext_t, __fpregs_mem) == 424, "FPMEM");
_Static_assert(offsetof(ucontext_t, __fpregs_mem.mxcsr) == 448, "MXCSR");
_Static_assert(offsetof(struct __jmp_buf_tag, __mask_was_saved) == 64, "jmp_buf");

/* --- the real functions --- */

/* In the order in which switch.S has them. */
enum real {
	REAL_SWAPCONTEXT,
	REAL_SETCONTEXT,
	REAL_MAKECONTEXT,
	REAL_LONGJMP,
	REAL_LONGJMP_CHK,
	REAL_MAKE,
	REAL_JUMP,
	REAL_ONTOP,
	REAL_COUNT
};
static const char *const real_names[REAL_COUNT] = {"swapcontext",   "setcontext",    "makecontext",   "longjmp",
						   "__longjmp_chk", "make_fcontext", "jump_fcontext", "ontop_fcontext"};
void *preload_real[REAL_COUNT];

/* In a library that was loaded with RTLD_LOCAL, or that has its own: the caller's, and what that was linked with. */
static void *find_for(const void *caller, const char *name)
{
	Dl_info info;
	if (!dladdr(caller, &info) || !info.dli_fname)
		return NULL;
	void *library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
	void *found = library ? dlsym(library, name) : NULL;
	/* What is remembered must not be unloaded. */
	if (found && dladdr(found, &info) && info.dli_fname)
		(void)dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
	if (library)
		(void)dlclose(library);
	return found;
}

__attribute__((constructor)) static void find_all(void)
{
	for (unsigned i = 0; i < REAL_COUNT; i++)
		preload_real[i] = dlsym(RTLD_NEXT, real_names[i]);
}

/* --- ranges --- */

extern const char preload_sets_sp[], preload_sets_sp_end[];

enum { CONTEXT_WORDS = 8 }; /* that Boost's context has at least */

static void add_range(struct sprof_table *table, uint32_t kind, uint64_t lo, uint64_t hi)
{
	struct sprof_range range = {.lo = lo, .hi = hi, .kind = kind};
	(void)sprof_range_add(table, &range);
}

/* Where a library's function ends, as its symbol says; 0: that is not known. */
static uint64_t end_of(const void *function)
{
	Dl_info info;
	ElfW(Sym) *symbol = NULL;
	if (!function || !dladdr1(function, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol || symbol->st_size == 0)
		return 0;
	return (uintptr_t)function + symbol->st_size;
}

static void add_switch(struct sprof_table *table, const void *function)
{
	uint64_t end = end_of(function);
	if (end)
		add_range(table, SPROF_RANGE_SETS_SP, (uintptr_t)function, end);
}

void preload_add_ranges(struct sprof_table *table)
{
	add_range(table, SPROF_RANGE_SETS_SP, (uintptr_t)preload_sets_sp, (uintptr_t)preload_sets_sp_end);
	add_switch(table, preload_real[REAL_JUMP]);
	add_switch(table, preload_real[REAL_ONTOP]);
}

/* Boost's assembly has no unwind information. A fiber begins in, and returns to, the end of make_fcontext, which is known by the addresses that it has put into the
 * new context: they are the lowest words of its stack. */
static void add_fiber_start(const void *function, const uint64_t *context)
{
	static uint32_t added;
	uint64_t end = end_of(function), start = end;
	for (unsigned i = 0; i < CONTEXT_WORDS; i++)
		if (context[i] > (uintptr_t)function && context[i] < start)
			start = context[i];
	if (start < end && !__atomic_exchange_n(&added, 1, __ATOMIC_RELAXED))
		add_range(preload_table(), SPROF_RANGE_STACK_TOP, start, end);
}

void *preload_find_real(uint64_t which, const void *caller);
void *preload_find_real(uint64_t which, const void *caller)
{
	void *found = dlsym(RTLD_NEXT, real_names[which]);
	if (!found)
		found = find_for(caller, real_names[which]);
	if (!found) { /* its caller cannot go on */
		(void)fprintf(
			stderr,
			"libsprof-preload: %s is called, and no library has it: run the program without LD_PRELOAD\n",
			real_names[which]);
		abort();
	}
	if (preload_table() && (which == REAL_JUMP || which == REAL_ONTOP))
		add_switch(preload_table(), found);
	__atomic_store_n(&preload_real[which], found, __ATOMIC_RELEASE);
	return found;
}

/* --- making fibers --- */

/* False: it is not known. */
static bool fiber_made(uint64_t lo, uint64_t hi)
{
	struct preload_self *self = &preload_self;
	if (!preload_open() || self->inside)
		return false;
	self->inside = true;
	bool known = preload_registry_add(lo, hi);
	self->inside = false;
	return known;
}

EXPORT void *make_fcontext(void *sp, size_t size, void (*function)(void));
EXPORT void *make_fcontext(void *sp, size_t size, void (*function)(void))
{
	void *real = __atomic_load_n(&preload_real[REAL_MAKE], __ATOMIC_ACQUIRE);
	if (!real)
		real = preload_find_real(REAL_MAKE, __builtin_return_address(0));
	void *(*make)(void *, size_t, void (*)(void));
	memcpy(&make, &real, sizeof(make));
	void *context = make(sp, size, function);
	if (fiber_made((uintptr_t)sp - size, (uintptr_t)sp))
		add_fiber_start(real, context);
	return context;
}

void preload_context_end(void);
void preload_makecontext(ucontext_t *context, void (*function)(void), int argc, ...);

/* makecontext(3), as the psABI passes arguments: the first six in registers, the others on the stack above the return address, and above
 * those what preload_context_end finds by rbx: uc_link. */
void preload_makecontext(ucontext_t *context, void (*function)(void), int argc, ...)
{
	static const int registers[] = {REG_RDI, REG_RSI, REG_RDX, REG_RCX, REG_R8, REG_R9};
	uint64_t lo = (uintptr_t)context->uc_stack.ss_sp, hi = lo + context->uc_stack.ss_size;
	size_t on_stack = argc > 6 ? (size_t)argc - 6 : 0;
	uint64_t *sp =
		(uint64_t *)(uintptr_t)((hi - (on_stack + 1) * 8) & ~15ull) - 1; // NOLINT(performance-no-int-to-ptr)
	greg_t *regs = context->uc_mcontext.gregs;
	va_list arguments;
	va_start(arguments, argc);
	for (int i = 0; i < argc && i < 6; i++)
		regs[registers[i]] = va_arg(arguments, long);
	for (size_t i = 0; i < on_stack; i++)
		sp[1 + i] = (uint64_t)va_arg(arguments, long);
	va_end(arguments);
	sp[0] = (uintptr_t)preload_context_end;
	sp[1 + on_stack] = (uintptr_t)context->uc_link;
	regs[REG_RBX] = (greg_t)(uintptr_t)&sp[1 + on_stack];
	regs[REG_RSP] = (greg_t)(uintptr_t)sp;
	regs[REG_RIP] = (greg_t)(uintptr_t)function;
	(void)fiber_made(lo, hi);
}

/* --- jumps --- */

enum { JB_RSP = 6, JB_PC = 7, GUARD_ROTATION = 17 };

/* glibc keeps sp and pc in a jmp_buf rotated, and xored with a word of the thread control block. */
static uint64_t unguarded(uint64_t word)
{
	uint64_t guard;
	__asm__("movq %%fs:48, %0" : "=r"(guard));
	return (word >> GUARD_ROTATION | word << (64 - GUARD_ROTATION)) ^ guard;
}

static bool jumps_are_understood;

__attribute__((constructor, noinline)) static void understand_jumps(void)
{
	jmp_buf buf;
	if (_setjmp(buf) != 0)
		return;
	uint64_t sp = unguarded((uint64_t)buf->__jmpbuf[JB_RSP]), here = (uintptr_t)__builtin_frame_address(0);
	uint64_t pc = unguarded((uint64_t)buf->__jmpbuf[JB_PC]), code = (uintptr_t)understand_jumps;
	jumps_are_understood = sp <= here && here - sp < 1024 && pc > code && pc - code < 1024;
}

struct preload_change preload_longjmp(struct __jmp_buf_tag *buf, uint64_t pc, uint64_t sp, uint64_t fp);

/* seq NULL: the real longjmp is to do it. Else the jump leads to another stack, and switch.S makes it, with the signal mask already set: so that
 * the change is complete at the very instruction. */
struct preload_change preload_longjmp(struct __jmp_buf_tag *buf, uint64_t pc, uint64_t sp, uint64_t fp)
{
	struct preload_change none = {NULL, 0};
	struct preload_self *self = &preload_self;
	if (!jumps_are_understood || !__atomic_load_n(preload_alive, __ATOMIC_RELAXED))
		return none;
	if (self->inside) { /* a signal handler leaves for good what it interrupted */
		if (self->thread && SPROF_LOAD(self->thread->seq) & 1)
			sprof_end(self->thread, 1);
		self->inside = false;
	}
	uint64_t to_sp = unguarded((uint64_t)buf->__jmpbuf[JB_RSP]);
	if (self->top && preload_contains(self->top, sp) && preload_contains(self->top, to_sp))
		return none;
	if (buf->__mask_was_saved)
		(void)sigprocmask(SIG_SETMASK, &buf->__saved_mask, NULL);
	return preload_switch(to_sp, pc, sp, fp);
}

struct preload_change preload_longjmp_chk(struct __jmp_buf_tag *buf, uint64_t pc, uint64_t sp, uint64_t fp);

/* What longjmp is with _FORTIFY_SOURCE. libc refuses most jumps to lower stack pointers: those are its own to judge, and are found out about
 * at the next switch. */
struct preload_change preload_longjmp_chk(struct __jmp_buf_tag *buf, uint64_t pc, uint64_t sp, uint64_t fp)
{
	if (!jumps_are_understood || unguarded((uint64_t)buf->__jmpbuf[JB_RSP]) < sp)
		return (struct preload_change){NULL, 0};
	return preload_longjmp(buf, pc, sp, fp);
}
