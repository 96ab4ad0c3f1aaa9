/* SPDX-License-Identifier: MIT */
/* The guests of test_running.c: running_code.h says what they do. */
#include "running_code.h"
#include "s2vm/guest_abi.h"

	.section .rodata
	.globl running_code
running_code:
	/* A machine lets interrupts in, or an emulated host could not take it out either. */
	movl %cs, %eax
	testl $3, %eax
	jnz 1f
	sti
1:
	movq %rsi, %rbx
	leaq 1(%rdi), %r13
	shlq $RUNNING_TAG_SHIFT, %r13
	cmpb $RUNNING_WRITE, %cl
	je write
	cmpb $RUNNING_SPIN, %cl
	je spin
	cmpb $RUNNING_REPORT, %cl
	je report
	cmpb $RUNNING_TELL, %cl
	je tell
	cmpb $RUNNING_LEAD, %cl
	je lead
	cmpb $RUNNING_FOLLOW, %cl
	je follow

read:
	movl $1, %r8d
	movq %rbx, %r11
1:
	movq (%r11), %rcx
	cmpq %r8, %rcx
	jne wrong
	movq 0xff8(%r11), %rcx
	notq %rcx
	cmpq %r8, %rcx
	jne wrong
	addq $0x1000, %r11
	incq %r8
	cmpq $RUNNING_PAGES, %r8
	jbe 1b
	incq -RUNNING_MIRROR(%rsp)
	jmp read

	/*
	 * A page holds its last count or, if the guest's memory was set back since, the file's word. Count 0
	 * is memory that was set back, or fresh: no page may hold a count then. The page behind each is the
	 * file's always.
	 */
write:
	movq -RUNNING_MIRROR(%rsp), %rax
	movl $1, %r8d
	movq %rbx, %r11
	leaq (%r13, %rax), %r9
1:
	movq (%r11), %rcx
	cmpq %r8, %rcx
	je 2f
	testq %rax, %rax
	jz wrong
	cmpq %r9, %rcx
	jne wrong
2:
	incq %r8
	movq 0x1000(%r11), %rcx
	cmpq %r8, %rcx
	jne wrong
	leaq 1(%r9), %rdx
	movq %rdx, (%r11)
	addq $RUNNING_STRIDE * 0x1000, %r11
	addq $RUNNING_STRIDE - 1, %r8
	cmpq $RUNNING_PARTS * RUNNING_STRIDE, %r8
	jb 1b
	incq %rax
	movq %rax, -RUNNING_MIRROR(%rsp)
	jmp write

spin:
	movl $1, %r8d
	movq (%rbx), %rcx
	cmpq %r8, %rcx
	jne wrong
	incq -RUNNING_MIRROR(%rsp)
	jmp spin

report:
	movq (%rbx), %rdi
	movq RUNNING_STRIDE * 0x1000(%rbx), %rsi
	movq 2 * RUNNING_STRIDE * 0x1000(%rbx), %rdx
	movq 3 * RUNNING_STRIDE * 0x1000(%rbx), %r10
	movl $S2VM_CALL_RESULT, %eax
	outb %al, $S2VM_CALL_PORT
	jmp report

	/* Each guest has words of its own in the two pages. */
tell:
	shrq $RUNNING_TAG_SHIFT - 3, %r13
	addq %r13, %rbx
1:
	incq 0x1000(%rbx)
	incq (%rbx)
	jmp 1b

	/* Of both CPUs the guest's number is the same, and so are the words that one writes. */
lead:
	movl $1, %r8d
	movq %rbx, %r11
1:
	pause
	cmpq %r8, -RUNNING_READY(%rsp)
	jb 1b
	movq (%r11), %rcx
	cmpq %r8, %rcx
	jne wrong
	leaq (%r13, %r8), %rcx
	movq %rcx, (%r11)
	movq %r8, -RUNNING_LED(%rsp)
	addq $RUNNING_STEP * 0x1000, %r11
	addq $RUNNING_STEP, %r8
	cmpq $RUNNING_PAGES, %r8
	jbe 1b
2:
	pause
	cmpq %r8, -RUNNING_READY(%rsp)
	jb 2b
	xorl %edi, %edi
	movl $S2VM_CALL_EXIT, %eax
	outb %al, $S2VM_CALL_PORT

	/* The first read leaves a translation to the page that the other one is about to have copied. */
follow:
	movl $1, %r8d
	movq %rbx, %r11
1:
	movq (%r11), %rcx
	cmpq %r8, %rcx
	jne wrong
	movq %r8, -RUNNING_READY(%rsp)
2:
	pause
	cmpq %r8, -RUNNING_LED(%rsp)
	jb 2b
	movq (%r11), %rcx
	leaq (%r13, %r8), %rdx
	cmpq %rdx, %rcx
	jne wrong
	addq $RUNNING_STEP * 0x1000, %r11
	addq $RUNNING_STEP, %r8
	cmpq $RUNNING_PAGES, %r8
	jbe 1b
	movq %r8, -RUNNING_READY(%rsp)
3:
	pause
	jmp 3b

wrong:
	leaq -1(%r8), %rdi
	movq %rcx, %rsi
	movq %r8, %rdx
	movq -RUNNING_MIRROR(%rsp), %r10
	movl $S2VM_CALL_RESULT, %eax
	outb %al, $S2VM_CALL_PORT
	movl $1, %edi
	movl $S2VM_CALL_EXIT, %eax
	outb %al, $S2VM_CALL_PORT
	.globl running_code_end
running_code_end:
	.section .note.GNU-stack, "", @progbits
