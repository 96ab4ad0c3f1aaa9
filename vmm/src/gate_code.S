/* SPDX-License-Identifier: MIT */
/*
 * What runs in a fleet on the gate's side: at CPL 0 under the direct engine, as the guest hypervisor
 * under svm and vmx. It decides nothing: the VMM sets the instruction pointer, the stack and the
 * registers for each piece.
 *
 * It is copied to the first page of the fleet's physical memory and runs at the gate's window, so all
 * of it is position-independent. Where KVM interprets CPL 0, an instruction costs nearly a
 * microsecond: chains are unrolled and entered from their end.
 */
#include "gate_code.h"

	.section .rodata
	.balign 4096
	.globl gate_code
gate_code:

/*
 * One stub for each exception: tell the VMM. Its number is the stub's. Only a page fault of the
 * direct engine's guest comes back to its stub, to drop the error code and run the faulting
 * instruction again. An NMI has done what it was sent for once it is taken: see gate_pass().
 */
	.set vector, 0
	.rept GATE_VECTORS
	.balign GATE_STUB_BYTES
	.if vector == GATE_VECTOR_NMI
	.globl gate_nmi_return
gate_nmi_return:
	iretq
	.else
	outb %al, $GATE_PORT_EXCEPTION
	addq $8, %rsp
	iretq
	.endif
	.set vector, vector + 1
	.endr

/*
 * Committing edits: the stack is a list of address and value pairs, and an entry into this chain
 * from its end runs as many pairs as there are. Each pair is one store of 8 bytes, which KVM sees.
 */
	.rept GATE_CHAIN_EDITS
	popq %rdi
	popq (%rdi)
	.endr
	.globl gate_chain_end
gate_chain_end:
	outb %al, $GATE_PORT_DONE

/* The same under the direct engine, and load the root that the list ends with. */
	.rept GATE_CHAIN_EDITS
	popq %rdi
	popq (%rdi)
	.endr
	.globl gate_root_chain_end
gate_root_chain_end:
	popq %rdi
	movq %rdi, %cr3
	outb %al, $GATE_PORT_DONE

/* The same under vmx: the list ends with a new EPT pointer and what INVEPT takes. */
	.rept GATE_CHAIN_EDITS
	popq %rdi
	popq (%rdi)
	.endr
	.globl gate_invept_chain_end
gate_invept_chain_end:
	popq %rcx
	popq %rdx
	vmwrite %rdx, %rcx
	popq %rcx
	invept (%rsp), %rcx
	outb %al, $GATE_PORT_DONE

/*
 * The svm engine's gate: enter the guest, come back, tell the VMM. rax is the VMCB's address; all
 * other registers are the guest's, and are not touched. Interrupts stay off, by GIF.
 */
	.globl gate_svm_enter
gate_svm_enter:
	vmrun %rax
	outb %al, $GATE_PORT_EXIT
	jmp gate_svm_enter

/* The NMI that brought the vCPU out of its guest is still pending: take it, where GIF allows it. */
	.globl gate_svm_take_nmi
gate_svm_take_nmi:
	stgi
	clgi
	outb %al, $GATE_PORT_DONE

/* The vmx engine's gate, first part: VMX operation and a VMCS. Their addresses lie on the stack. */
	.globl gate_vmx_begin
gate_vmx_begin:
	vmxon (%rsp)
	jbe 1f
	vmclear 8(%rsp)
	jbe 1f
	vmptrld 8(%rsp)
	jbe 1f
	outb %al, $GATE_PORT_DONE
1:
	outb %al, $GATE_PORT_NO_VMX

/* Writing fields: the stack is a list of field and value pairs, as with edits. */
	.rept GATE_CHAIN_WRITES
	popq %rcx
	popq %rdx
	vmwrite %rdx, %rcx
	.endr
	.globl gate_vmx_write_end
gate_vmx_write_end:
	outb %al, $GATE_PORT_DONE

/* Reading fields: the stack is a list of fields and of addresses to put their values at. */
	.rept GATE_CHAIN_READS
	popq %rcx
	popq %rdx
	vmread %rcx, (%rdx)
	.endr
	.globl gate_vmx_read_end
gate_vmx_read_end:
	outb %al, $GATE_PORT_DONE

/*
 * Entering: the first time by vmlaunch, later by vmresume. What comes after them runs if they fail. Before
 * vmresume fields can be written, from such a list that ends with what was in the two registers that
 * this takes.
 */
	.globl gate_vmx_launch
gate_vmx_launch:
	vmlaunch
	jmp 2f
	.rept GATE_CHAIN_ORDERS
	popq %rcx
	popq %rdx
	vmwrite %rdx, %rcx
	.endr
	.globl gate_vmx_orders_end
gate_vmx_orders_end:
	popq %rcx
	popq %rdx
	.globl gate_vmx_resume
gate_vmx_resume:
	vmresume
2:
	movl $VMCS_INSTRUCTION_ERROR, %eax
	vmread %rax, %rax
	outb %al, $GATE_PORT_NO_ENTRY

/*
 * The guest came out: rsp is HOST_RSP, all other registers are the guest's. Leave what happened in the
 * gate's page and tell the VMM, with the guest's registers as they were.
 */
	.globl gate_vmx_exit
gate_vmx_exit:
	movq %rax, GATE_VMX_RAX(%rsp)
	movl $VMCS_EXIT_REASON, %eax
	vmread %rax, GATE_VMX_REASON(%rsp)
	movl $VMCS_EXIT_QUALIFICATION, %eax
	vmread %rax, GATE_VMX_QUALIFICATION(%rsp)
	movl $VMCS_GUEST_PHYSICAL, %eax
	vmread %rax, GATE_VMX_GPA(%rsp)
	movl $VMCS_GUEST_RIP, %eax
	vmread %rax, GATE_VMX_RIP(%rsp)
	movl $VMCS_INSTRUCTION_LENGTH, %eax
	vmread %rax, GATE_VMX_LENGTH(%rsp)
	movl $VMCS_GUEST_RSP, %eax
	vmread %rax, GATE_VMX_RSP(%rsp)
	movl $VMCS_GUEST_RFLAGS, %eax
	vmread %rax, GATE_VMX_RFLAGS(%rsp)
	movl $VMCS_VECTORING, %eax
	vmread %rax, GATE_VMX_EVENT(%rsp)
	movl $VMCS_VECTORING_ERROR, %eax
	vmread %rax, GATE_VMX_EVENT_ERROR(%rsp)
	movq GATE_VMX_RAX(%rsp), %rax
	outb %al, $GATE_PORT_EXIT
	jmp gate_vmx_resume

	.globl gate_code_end
gate_code_end:
	.section .note.GNU-stack, "", @progbits
