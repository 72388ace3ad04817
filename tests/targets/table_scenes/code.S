/* The functions that stand on the stacks of the scenes. None is ever called or returns: a thread is put into one (scene_run) and burns CPU
 * there for good, with its stack and frame pointer as the scene wants them; the others are where return addresses point to. Each has a frame record
 * at rbp, all along, and its CFI says the same. */
	.text
	.macro begin name
	.globl \name
	.type \name, @function
\name:
	.cfi_startproc
	.endm

	.macro finish name
	.cfi_endproc
	.size \name, . - \name
	.endm

	.macro burn
1:	imul $1664525, %rax, %rax
	add $1013904223, %rax
	imul $1664525, %rax, %rax
	jmp 1b
	.endm

	.macro framed names:vararg
	.irp name, \names
	begin \name
	.cfi_def_cfa %rbp, 16
	.cfi_offset %rbp, -16
	burn
	finish \name
	.endr
	.endm

	framed scene_a_leaf, scene_a_mid, scene_a_root
	framed scene_b_leaf, scene_b_mid, scene_b_root
	framed scene_c_leaf, scene_c_mid, scene_c_root
	framed scene_system_leaf, scene_system_mid, scene_system_root
	framed scene_native_leaf, scene_native_mid, scene_native_root
	framed scene_first, scene_second, scene_caller, scene_helper, scene_handler_leaf

	/* Outermost frames: of a stack in the table (STACK_TOP), and of any other. */
	.macro outermost names:vararg
	.irp name, \names
	begin \name
	.cfi_undefined %rip
	burn
	finish \name
	.endr
	.endm
	outermost scene_stack_top, scene_native_top, scene_alone

	/* A stack switch (SETS_SP): it looks as if it could be walked. */
	framed scene_switch

	/* A frame that shows a trampoline's entry as if it were a return address would be looked up one byte before. */
	framed scene_before_trampoline

	/* Where hijacked returns lead. One loop for each distance of sp to the caller's; in the last ones rbp is the trampoline's own. */
	.globl scene_trampoline, scene_trampoline_end
	.type scene_trampoline, @function
scene_trampoline:
	burn
.Lpushed_one:
	burn
.Lpushed_two:
	burn
.Lsaved_fp:
	burn
.Lown_fp:
	burn
scene_trampoline_end:
	.size scene_trampoline, . - scene_trampoline

	framed scene_before_other_trampoline
	.globl scene_other_trampoline
	.type scene_other_trampoline, @function
scene_other_trampoline:
	burn
	.size scene_other_trampoline, . - scene_other_trampoline

	/* scene_run(pc, sp, fp): never comes back. */
	begin scene_run
	.cfi_undefined %rip
	mov %rsi, %rsp
	mov %rdx, %rbp
	jmp *%rdi
	finish scene_run

	.section .data.rel.ro, "aw"
	.globl scene_trampoline_parts
	.align 8
scene_trampoline_parts:
	.quad scene_trampoline, .Lpushed_one, .Lpushed_two, .Lsaved_fp, .Lown_fp, scene_trampoline_end
	.section .note.GNU-stack, "", @progbits
