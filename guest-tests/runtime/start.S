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

	.section .note.GNU-stack, "", @progbits
