/* SPDX-License-Identifier: MIT */
/*
 * The doctor's own guests: look into each 2 MiB of the memory file, and report its first word, again
 * and again. Guest 1 uses its stack first, and so gets a root and a path of its own; guest 2 writes to
 * the word after its first report.
 */
#include "s2vm/guest_abi.h"

	.section .rodata
	.globl doctor_code
doctor_code:
	movq %rdi, %r12
	cmpq $1, %r12
	jne 1f
	pushq %rdi
1:
	movb 0x200000(%rsi), %al
	movb 0x400000(%rsi), %al
	movb 0x600000(%rsi), %al
	movq (%rsi), %rdi
	movl $S2VM_CALL_RESULT, %eax
	outb %al, $S2VM_CALL_PORT
	cmpq $2, %r12
	jne 1b
	movq $99, (%rsi)
	jmp 1b
	.globl doctor_code_end
doctor_code_end:
	.section .note.GNU-stack, "", @progbits
