/* SPDX-License-Identifier: MIT */
/*
 * The entry point of every guest program.
 *
 * It writes no memory: a guest that only reads must not own a stack page. The registers of the ABI
 * are the arguments of a C function already; only the stack pointer is moved to where a call would
 * have left it, so that C finds the alignment that it expects.
 */
#include <s2vm/guest_abi.h>

	/* For link.ld, which cannot read the header, to check its own number against. */
	.globl	guest_program_base
	.set	guest_program_base, S2VM_PROGRAM_BASE

	.section .text.start, "ax", @progbits
	.globl	_start
	.type	_start, @function
_start:
	sub	$8, %rsp
	jmp	guest_main
	.size	_start, . - _start

/*
 * Stage-1 tables, for where the program is a machine of its own: 512 GiB as they are, by 1 GiB pages,
 * accessed and dirty, so that the processor finds nothing to write there.
 */
	.section .data.machine, "aw", @progbits
	.balign 0x1000
machine_pml4:
	.quad	machine_pdpt + 0x27
	.fill	511, 8, 0
machine_pdpt:
	.set	gib, 0
	.rept	512
	.quad	(gib << 30) + 0xe7
	.set	gib, gib + 1
	.endr

	.section .note.s2vm, "a", @note
	.balign 4
	.long	2f - 1f, 4f - 3f, S2VM_NOTE_MACHINE_ROOT
1:
	.asciz	S2VM_NOTE_NAME
2:
	.balign 4
3:
	.quad	machine_pml4
4:

	.section .note.GNU-stack, "", @progbits
