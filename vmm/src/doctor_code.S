/* SPDX-License-Identifier: MIT */
/*
 * The doctor's own guests: doctor_code.h says what they do. What they report are their results, four
 * words each. One that uses its stack or writes gets a root and a path of its own.
 */
#include "doctor_code.h"
#include "s2vm/guest_abi.h"

	.section .rodata
	.globl doctor_code
doctor_code:
	/*
	 * A machine lets interrupts in, though it gets none: Bochs keeps those of its host off, too,
	 * while a guest has them off, and then nobody can take a guest out that does not come itself.
	 */
	movl %cs, %eax
	testl $3, %eax
	jnz 1f
	sti
1:
	movq %rsi, %rbx
	movzbl %cl, %r12d
	movl %ecx, %r14d
	shrl $DOCTOR_END_SHIFT, %r14d
	imulq $DOCTOR_PART_BYTES, %r14, %r14
	shrl $DOCTOR_FIRST_SHIFT, %ecx
	movzbl %cl, %r13d
	imulq $DOCTOR_PART_BYTES, %r13, %r13
	cmpl $DOCTOR_SPIN_READ, %r12d
	je spin
	cmpl $DOCTOR_SPIN_WRITE, %r12d
	je spin_write
	cmpl $DOCTOR_SPIN_OWN, %r12d
	je spin_own
	cmpl $DOCTOR_TENANT, %r12d
	je tenant
	cmpl $DOCTOR_OWN_ROOT, %r12d
	jne report
	pushq %rdi
report:
	movq (%rbx), %rdi
	movq DOCTOR_PART_BYTES(%rbx), %rsi
	movq 2*DOCTOR_PART_BYTES(%rbx), %rdx
	movq 3*DOCTOR_PART_BYTES(%rbx), %r10
	movl $S2VM_CALL_RESULT, %eax
	outb %al, $S2VM_CALL_PORT
	cmpl $DOCTOR_WRITE, %r12d
	jne report
	cmpq $DOCTOR_PARTS*DOCTOR_PART_BYTES, %r13
	jae report
	movq $DOCTOR_WRITTEN, (%rbx, %r13)
	addq $DOCTOR_PART_BYTES, %r13
	jmp report

tenant:
	movq $DOCTOR_WRITTEN, (%rbx, %r13)
	movq 0x2000(%rbx, %r13), %rdi
	addq $DOCTOR_PART_BYTES, %r13
	cmpq %r14, %r13
	jb tenant
1:
	movl $S2VM_CALL_RESULT, %eax
	outb %al, $S2VM_CALL_PORT
	jmp 1b

spin_own:
	movq $DOCTOR_WRITTEN, (%rbx)
spin:
	movq (%rbx), %rax
	movq %rax, -DOCTOR_MIRROR(%rsp)
	incq 8-DOCTOR_MIRROR(%rsp)
	jmp spin

spin_write:
	incq (%rbx)
	jmp spin_write
	.globl doctor_code_end
doctor_code_end:
	.section .note.GNU-stack, "", @progbits
