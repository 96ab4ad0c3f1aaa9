/* SPDX-License-Identifier: MIT */
/* What the gates' code and the VMM agree on; read by the assembler too. */
#ifndef VMM_GATE_CODE_H
#define VMM_GATE_CODE_H

/* Exceptions that the processor defines: AMD APM Vol. 2, "Exception and interrupt vectors". */
#define GATE_VECTORS	32
#define GATE_STUB_BYTES 16
#define GATE_VECTOR_NMI 2

/* Ports that only a gate may use. Guests are refused them, so whoever uses them is a gate. */
#define GATE_PORT_EXCEPTION 0xf0 /* an exception, with the stub's place as its number */
#define GATE_PORT_DONE	    0xf1 /* a chain is done */
#define GATE_PORT_EXIT	    0xf2 /* the guest's processor came out of the guest */
#define GATE_PORT_NO_ENTRY  0xf3 /* the processor refused to enter the guest */
#define GATE_PORT_NO_VMX    0xf4 /* VMXON or VMPTRLD failed */

/* Edits that one run of a gate commits. */
#define GATE_CHAIN_EDITS      96
#define GATE_CHAIN_EDIT_BYTES 3 /* of code: pop %rdi is one byte, pop (%rdi) two */

/* VMCS fields that one run of the vmx gate writes. */
#define GATE_CHAIN_WRITES	96
#define GATE_CHAIN_WRITE_BYTES	5 /* of code: pop %rcx, pop %rdx, vmwrite %rdx, %rcx */

/* Those that it writes on its way back to the guest, and those that one run of it reads. */
#define GATE_CHAIN_ORDERS     8
#define GATE_CHAIN_READS      96
#define GATE_CHAIN_READ_BYTES 5 /* of code: pop %rcx, pop %rdx, vmread %rcx, (%rdx) */

/*
 * Where the vmx gate leaves what it read of the VMCS, from HOST_RSP on. The first slot keeps the
 * guest's rax meanwhile.
 */
#define GATE_VMX_RAX	       0
#define GATE_VMX_REASON	       8
#define GATE_VMX_QUALIFICATION 16
#define GATE_VMX_GPA	       24
#define GATE_VMX_RIP	       32
#define GATE_VMX_LENGTH	       40
#define GATE_VMX_RSP	       48
#define GATE_VMX_RFLAGS	       56
#define GATE_VMX_EVENT	       64
#define GATE_VMX_EVENT_ERROR   72
#define GATE_VMX_REPORT_BYTES  80

/* Encodings of VMCS fields: Intel SDM Vol. 3D, Appendix B, "Field encoding in VMCS". */
#define VMCS_GUEST_PHYSICAL	0x2400
#define VMCS_INSTRUCTION_ERROR	0x4400
#define VMCS_EXIT_REASON	0x4402
#define VMCS_VECTORING		0x4408
#define VMCS_VECTORING_ERROR	0x440a
#define VMCS_INSTRUCTION_LENGTH 0x440c
#define VMCS_EXIT_QUALIFICATION 0x6400
#define VMCS_GUEST_RSP		0x681c
#define VMCS_GUEST_RIP		0x681e
#define VMCS_GUEST_RFLAGS	0x6820

#endif
