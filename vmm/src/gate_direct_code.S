/* SPDX-License-Identifier: MIT */
/*
 * The direct engine's gate: what runs at CPL 0 in a fleet, in the gate's window. It decides nothing.
 *
 * It is copied to the first page of the fleet's physical memory, and runs with the stack of its
 * vCPU's gate page. All of it is position-independent. Where KVM interprets CPL 0, an instruction
 * costs nearly a microsecond, so there is no loop and no branch in here: the VMM sets the
 * instruction pointer and the stack instead.
 */
#include "gate_direct_code.h"

	.section .rodata
	.balign 4096
	.globl gate_direct_code
gate_direct_code:

/*
 * One stub for each exception: tell the VMM. Its number is the stub's. Only a page fault comes back
 * to its stub, to drop the error code and run the faulting instruction again.
 */
	.rept GATE_VECTORS
	.balign GATE_STUB_BYTES
	outb %al, $GATE_PORT_FAULT
	addq $8, %rsp
	iretq
	.endr

/*
 * Committing edits: the stack is a list of address and value pairs, and an entry into this chain
 * from its end runs as many pairs as there are. Each pair is one store of 8 bytes, which KVM sees.
 */
	.balign GATE_STUB_BYTES
	.globl gate_direct_chain
gate_direct_chain:
	.rept GATE_CHAIN_EDITS
	popq %rdi
	popq (%rdi)
	.endr
	.globl gate_direct_chain_end
gate_direct_chain_end:
	outb %al, $GATE_PORT_DONE

/* The same, and forget cached translations: the list ends with this vCPU's own CR3. */
	.balign GATE_STUB_BYTES
	.globl gate_direct_flush_chain
gate_direct_flush_chain:
	.rept GATE_CHAIN_EDITS
	popq %rdi
	popq (%rdi)
	.endr
	.globl gate_direct_flush_chain_end
gate_direct_flush_chain_end:
	popq %rdi
	movq %rdi, %cr3
	outb %al, $GATE_PORT_DONE

	.globl gate_direct_code_end
gate_direct_code_end:
	.section .note.GNU-stack, "", @progbits
