/* Stack switches and the trampoline, System V ABI of x86-64. A green thread that does not run has, at its sp: r15 r14 r13 r12 rbx rbp and
 * the return address, so that rbp and the return address are a frame record like any other. */
#define G_SP        0
#define G_SYSTEM_SP 8
#define G_STACK     16
#define G_BARRIERS  24
#define G_THREAD    32
#define G_HITS      40
#define STACK_N     36
#define STACK_POS   64
#define THREAD_SEQ  4

	.text
	.macro function name
	.globl \name
	.type \name, @function
\name:
	.cfi_startproc
	.endm

	.macro finish name
	.cfi_endproc
	.size \name, . - \name
	.endm

	/* What is said of the frame while registers are saved, here or on any other stack that has been switched to: there it is the frame
	 * of whoever saved them. */
	.macro save_registers
	.irp register, rbp, rbx, r12, r13, r14, r15
	push %\register
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset %\register, 0
	.endr
	.endm

	.macro restore_registers
	.irp register, r15, r14, r13, r12, rbx, rbp
	pop %\register
	.cfi_adjust_cfa_offset -8
	.cfi_restore %\register
	.endr
	.endm

	.macro reserve
	sub $8, %rsp
	.cfi_adjust_cfa_offset 8
	.endm

	.macro unreserve
	add $8, %rsp
	.cfi_adjust_cfa_offset -8
	.endm

	/* The change that C announced is complete. */
	.macro complete green
	mov G_THREAD(\green), %rcx
	test %rcx, %rcx
	jz 1f
	addl $1, THREAD_SEQ(%rcx)
1:
	.endm

	.globl green_switch_begin
green_switch_begin:

function green_run /* (green), on the system stack */
	save_registers
	mov %rsp, G_SYSTEM_SP(%rdi)
	mov G_SP(%rdi), %rsp
	complete %rdi
	restore_registers
	ret
finish green_run

function green_to_scheduler /* (green), on the user stack */
	save_registers
	mov %rsp, G_SP(%rdi)
	mov G_SYSTEM_SP(%rdi), %rsp
	complete %rdi
	restore_registers
	ret
finish green_to_scheduler

function green_on_system /* (green, body, kind), on the user stack */
	save_registers
	mov %rsp, G_SP(%rdi)
	mov %rdi, %rbx
	mov %rsi, %r12
	mov %rdx, %r13
	mov %rdx, %rsi
	reserve
	call green_enter_system
	.cfi_remember_state
	.cfi_undefined %rip /* the end of the native part: what is on the user stack may move */
	mov G_SYSTEM_SP(%rbx), %rsp
	and $-16, %rsp
	xor %ebp, %ebp
	complete %rbx
	mov %rbx, %rdi
	call *%r12
	mov %rbx, %rdi
	mov %r13, %rsi
	call green_leave_system
	mov G_SP(%rbx), %rsp
	.cfi_restore_state
	.cfi_adjust_cfa_offset -8
	complete %rbx
	restore_registers
	ret
finish green_on_system

function green_callback /* (green, body), on the system stack */
	save_registers
	mov %rdi, %rbx
	mov %rsi, %r12
	reserve
	call green_enter_callback
	pushq G_SYSTEM_SP(%rbx)
	.cfi_adjust_cfa_offset 8
	mov %rsp, G_SYSTEM_SP(%rbx)
	.cfi_remember_state
	mov G_SP(%rbx), %rsp
	.cfi_adjust_cfa_offset -16 /* the registers of the managed caller, saved by green_on_system */
	lea 40(%rsp), %rbp         /* its frame record */
	complete %rbx
	reserve
	mov %rbx, %rdi
	call *%r12
	unreserve
	mov %rsp, G_SP(%rbx) /* elsewhere, if the stack has moved */
	reserve
	mov %rbx, %rdi
	call green_leave_callback
	mov G_SYSTEM_SP(%rbx), %rsp
	.cfi_restore_state
	popq G_SYSTEM_SP(%rbx)
	.cfi_adjust_cfa_offset -8
	xor %ebp, %ebp
	complete %rbx
	mov %rbx, %rdi
	call green_left_callback
	unreserve
	restore_registers
	ret
finish green_callback

	.globl green_switch_end
green_switch_end:

/* Foreign code on the user stack itself: below what is saved here nobody looks. */
function green_here /* (green, body) */
	save_registers
	mov %rsp, G_SP(%rdi)
	mov %rdi, %rbx
	mov %rsi, %r12
	reserve
	call green_enter_here
	mov %rbx, %rdi
	xor %ebp, %ebp /* a register like any other, to foreign code */
	call *%r12
	mov %rbx, %rdi
	call green_leave_here
	unreserve
	restore_registers
	ret
finish green_here

/* The first function of a green thread is in rbx. */
function green_first
	.cfi_undefined %rip
	mov %rbx, %rdi
	call green_main
	ud2
finish green_first

function green_entry
	.cfi_undefined %rip
	ud2
finish green_entry
	.globl green_entry_end
green_entry_end:

function green_save /* (jump) */
	mov (%rsp), %rax
	mov %rax, 56(%rdi)
	lea 8(%rsp), %rax
	mov %rax, 0(%rdi)
	mov %rbp, 8(%rdi)
	mov %rbx, 16(%rdi)
	mov %r12, 24(%rdi)
	mov %r13, 32(%rdi)
	mov %r14, 40(%rdi)
	mov %r15, 48(%rdi)
	xor %eax, %eax
	ret
finish green_save

function green_restore /* (jump) */
	.cfi_undefined %rip /* it does not return, and rsp is on its way */
	mov 0(%rdi), %rsp
	mov 8(%rdi), %rbp
	mov 16(%rdi), %rbx
	mov 24(%rdi), %r12
	mov 32(%rdi), %r13
	mov 40(%rdi), %r14
	mov 48(%rdi), %r15
	mov $1, %eax
	jmp *56(%rdi)
finish green_restore

/* Where hijacked returns lead: sp is where the caller has it, the slot is right below. rax and rdx hold results, the other caller-saved
 * registers are free. Every 16th hit calls C. */
	.globl green_trampoline
	.type green_trampoline, @function
green_trampoline:
	mov %fs:green_current@tpoff, %rcx
	mov G_STACK(%rcx), %rsi
	mov G_BARRIERS(%rcx), %rdi
	mov STACK_POS(%rsi), %r8
	lea -8(%rsp), %r10
1:	mov STACK_N(%rsi), %r9d
	cmp %r9, %r8
	jae 3f
	mov %r8, %r9
	shl $4, %r9
	add $1, %r8
	cmp %r10, (%rdi, %r9)
	jne 1b
	mov 8(%rdi, %r9), %r11
	mov %r8, STACK_POS(%rsi)
	addl $1, G_HITS(%rcx)
	testl $15, G_HITS(%rcx)
	jz 2f
	jmp *%r11
3:	ud2
2:	push %rax
.Lpart1:
	push %rdx
.Lpart2:
	push %r11
.Lpart3:
	sub $8, %rsp
.Lpart4:
	mov %rcx, %rdi
	call green_barrier_helper
	add $8, %rsp
.Lpart5:
	pop %r11
.Lpart6:
	pop %rdx
.Lpart7:
	pop %rax
.Lpart8:
	jmp *%r11
.Lpart9:

	.section .data.rel.ro, "aw"
	.globl green_trampoline_parts
	.align 8
green_trampoline_parts:
	.quad green_trampoline, .Lpart1, .Lpart2, .Lpart3, .Lpart4, .Lpart5, .Lpart6, .Lpart7, .Lpart8, .Lpart9
	.section .note.GNU-stack, "", @progbits
