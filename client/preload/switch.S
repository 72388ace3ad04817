/* What changes the stack pointer, System V ABI of x86-64. Bookkeeping comes first (preload_switch leaves the thread's version odd), and is
 * completed between preload_sets_sp and preload_sets_sp_end, a range that the table knows: there stack pointer and table may disagree.
 *
 * swapcontext and setcontext are done here rather than by libc's, since those change the signal mask first, a system call of which each
 * sample would find the table a step ahead of the stack pointer. The layout of ucontext_t is public (sys/ucontext.h). Boost's functions are jumped to. */
#define UC_R8      40
#define UC_R9      48
#define UC_R12     72
#define UC_R13     80
#define UC_R14     88
#define UC_R15     96
#define UC_RDI     104
#define UC_RSI     112
#define UC_RBP     120
#define UC_RBX     128
#define UC_RDX     136
#define UC_RCX     152
#define UC_RSP     160
#define UC_RIP     168
#define UC_FPREGS  224
#define UC_SIGMASK 296
#define UC_FPMEM   424
#define UC_MXCSR   448

#define JB_RBX 0
#define JB_RBP 8
#define JB_R12 16
#define JB_R13 24
#define JB_R14 32
#define JB_R15 40
#define JB_RSP 48
#define JB_PC  56

/* places in preload_real */
#define REAL_SWAPCONTEXT 0
#define REAL_SETCONTEXT  1
#define REAL_MAKECONTEXT 2
#define REAL_LONGJMP     3
#define REAL_LONGJMP_CHK 4
#define REAL_JUMP        6
#define REAL_ONTOP       7

#define SYS_rt_sigprocmask 14
#define SIG_SETMASK        2
#define SIGSET_BYTES       8
#define MAX_ERRNO          4095

	.text
	.macro function name
	.globl \name
	.type \name, @function
	.align 16
\name:
	.cfi_startproc
	endbr64
	.endm

	.macro finish name
	.cfi_endproc
	.size \name, . - \name
	.endm

	.macro save register
	push %\register
	.cfi_adjust_cfa_offset 8
	.endm

	.macro restore register
	pop %\register
	.cfi_adjust_cfa_offset -8
	.endm

	/* To libc's own function, where the process has a shadow stack: that is its to switch. */
	.macro to_libc_with_shadow_stack which
	testl $2, %fs:72
	jz 1f
	jmp *(preload_real + 8 * \which)(%rip)
1:
	.endm

	/* rsi: the new mask; rdx: where the old one goes */
	.macro set_signal_mask
	mov $SIG_SETMASK, %edi
	mov $SIGSET_BYTES, %r10d
	mov $SYS_rt_sigprocmask, %eax
	syscall
	cmp $-MAX_ERRNO, %rax
	.endm

	/* Of the context in rdi. */
	.macro load_float_environment
	mov UC_FPREGS(%rdi), %rcx
	fldenv (%rcx)
	ldmxcsr UC_MXCSR(%rdi)
	.endm

function swapcontext /* (from, to) */
	to_libc_with_shadow_stack REAL_SWAPCONTEXT
	mov (%rsp), %rax
	mov %rax, UC_RIP(%rdi)
	lea 8(%rsp), %rax
	mov %rax, UC_RSP(%rdi)
	mov %rbx, UC_RBX(%rdi)
	mov %rbp, UC_RBP(%rdi)
	mov %r12, UC_R12(%rdi)
	mov %r13, UC_R13(%rdi)
	mov %r14, UC_R14(%rdi)
	mov %r15, UC_R15(%rdi)
	mov %rdi, UC_RDI(%rdi)
	mov %rsi, UC_RSI(%rdi)
	mov %rdx, UC_RDX(%rdi)
	mov %rcx, UC_RCX(%rdi)
	mov %r8, UC_R8(%rdi)
	mov %r9, UC_R9(%rdi)
	lea UC_FPMEM(%rdi), %rax
	mov %rax, UC_FPREGS(%rdi)
	fnstenv (%rax)
	stmxcsr UC_MXCSR(%rdi)
	save rsi
	lea UC_SIGMASK(%rdi), %rdx
	lea UC_SIGMASK(%rsi), %rsi
	set_signal_mask
	restore rdi
	jae preload_failed
	jmp preload_to_context
finish swapcontext

function setcontext /* (to) */
	to_libc_with_shadow_stack REAL_SETCONTEXT
	save rdi
	lea UC_SIGMASK(%rdi), %rsi
	xor %edx, %edx
	set_signal_mask
	restore rdi
	jae preload_failed
	jmp preload_to_context
finish setcontext

	.type preload_failed, @function
preload_failed: /* rax: -errno */
	.cfi_startproc
	save rax
	call __errno_location@PLT
	restore rdx
	neg %edx
	mov %edx, (%rax)
	or $-1, %eax
	ret
finish preload_failed

	.type preload_to_context, @function
preload_to_context: /* rdi: context */
	.cfi_startproc
	save rdi
	mov UC_RSP(%rdi), %rdi
	mov 8(%rsp), %rsi
	lea 16(%rsp), %rdx
	mov %rbp, %rcx
	call preload_switch
	restore rdi
	load_float_environment
	jmp preload_enter_context
finish preload_to_context

function makecontext /* (context, function, argc, ...) */
	to_libc_with_shadow_stack REAL_MAKECONTEXT
	jmp preload_makecontext
finish makecontext

	/* What a context begins in, as it seems from its function, which returns to preload_context_end. rbx: where uc_link stands. */
	.type preload_start_context, @function
preload_start_context:
	.cfi_startproc
	.cfi_undefined %rip
	nop /* a return address is looked up one below */
	.globl preload_context_end
	.hidden preload_context_end
preload_context_end:
	mov (%rbx), %r12
	and $-16, %rsp
	test %r12, %r12
	jz 1f
	lea UC_SIGMASK(%r12), %rsi
	xor %edx, %edx
	set_signal_mask
	jae 1f
	mov UC_RSP(%r12), %rdi
	xor %esi, %esi /* nobody comes back here */
	mov %rsp, %rdx
	xor %ecx, %ecx
	call preload_switch
	mov %r12, %rdi
	load_float_environment
	jmp preload_enter_context
1:	xor %edi, %edi
	call exit@PLT
	ud2
finish preload_start_context

	.macro boost name which
function \name /* (to, data, function) */
	save rdi
	save rsi
	save rdx
	cmpq $0, (preload_real + 8 * \which)(%rip)
	jne 1f
	mov $\which, %edi
	mov 24(%rsp), %rsi
	call preload_find_real
	mov 16(%rsp), %rdi
1:	mov 24(%rsp), %rsi
	lea 32(%rsp), %rdx
	mov %rbp, %rcx
	call preload_switch
	mov %rdx, %r10
	restore rdx
	restore rsi
	restore rdi
	mov (preload_real + 8 * \which)(%rip), %r11
	jmp preload_enter_boost
finish \name
	.endm

	boost jump_fcontext REAL_JUMP
	boost ontop_fcontext REAL_ONTOP

	.macro jump name hook which
function \name /* (buf, value) */
	save rdi
	save rsi
	sub $8, %rsp
	.cfi_adjust_cfa_offset 8
	mov 24(%rsp), %rsi
	lea 32(%rsp), %rdx
	mov %rbp, %rcx
	call \hook
	mov %rdx, %r10
	add $8, %rsp
	.cfi_adjust_cfa_offset -8
	restore rsi
	restore rdi
	test %rax, %rax
	jnz preload_enter_jump
	jmp *(preload_real + 8 * \which)(%rip)
finish \name
	.endm

	jump longjmp preload_longjmp REAL_LONGJMP
	jump __longjmp_chk preload_longjmp_chk REAL_LONGJMP_CHK
	.globl _longjmp
	.globl siglongjmp
	.set _longjmp, longjmp
	.set siglongjmp, longjmp

	.globl preload_sets_sp
	.hidden preload_sets_sp
	.globl preload_sets_sp_end
	.hidden preload_sets_sp_end
	.align 16
preload_sets_sp:

	.type preload_enter_boost, @function
preload_enter_boost: /* rax, r10: the change to complete; r11: the real function */
	.cfi_startproc
	test %rax, %rax
	jz 1f
	addl %r10d, (%rax)
1:	jmp *%r11
finish preload_enter_boost

	.type preload_enter_context, @function
preload_enter_context: /* rax, rdx: the change to complete; rdi: context */
	.cfi_startproc
	test %rax, %rax
	jz 1f
	addl %edx, (%rax)
1:	mov UC_RIP(%rdi), %r11
	mov UC_RSP(%rdi), %rsp
	.cfi_def_cfa %rsp, 0
	.cfi_register %rip, %r11
	mov UC_RBX(%rdi), %rbx
	mov UC_RBP(%rdi), %rbp
	mov UC_R12(%rdi), %r12
	mov UC_R13(%rdi), %r13
	mov UC_R14(%rdi), %r14
	mov UC_R15(%rdi), %r15
	mov UC_RSI(%rdi), %rsi
	mov UC_RDX(%rdi), %rdx
	mov UC_RCX(%rdi), %rcx
	mov UC_R8(%rdi), %r8
	mov UC_R9(%rdi), %r9
	mov UC_RDI(%rdi), %rdi
	xor %eax, %eax
	jmp *%r11
finish preload_enter_context

	.macro unguard from, to
	mov \from(%rdi), \to
	ror $17, \to
	xor %fs:48, \to
	.endm

	.type preload_enter_jump, @function
preload_enter_jump: /* rax, r10: the change to complete; rdi: jmp_buf; esi: value */
	.cfi_startproc
	addl %r10d, (%rax)
	mov $1, %eax
	test %esi, %esi
	cmovnz %esi, %eax
	unguard JB_PC, %r11
	unguard JB_RSP, %rsp
	.cfi_def_cfa %rsp, 0
	.cfi_register %rip, %r11
	unguard JB_RBP, %rbp
	mov JB_RBX(%rdi), %rbx
	mov JB_R12(%rdi), %r12
	mov JB_R13(%rdi), %r13
	mov JB_R14(%rdi), %r14
	mov JB_R15(%rdi), %r15
	jmp *%r11
finish preload_enter_jump
preload_sets_sp_end:
	.section .note.GNU-stack, "", @progbits
