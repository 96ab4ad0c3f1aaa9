/* SPDX-License-Identifier: MIT */
/* What the direct gate's code and the VMM agree on; read by the assembler too. */
#ifndef VMM_GATE_DIRECT_CODE_H
#define VMM_GATE_DIRECT_CODE_H

/* Exceptions that the processor defines: AMD APM Vol. 2, "Exception and interrupt vectors". */
#define GATE_VECTORS	32
#define GATE_STUB_BYTES 16

/* Ports that only the gate may use: the TSS bitmap refuses them to guests. */
#define GATE_PORT_FAULT 0xf0
#define GATE_PORT_DONE	0xf1

/* Edits that one run of the gate commits. */
#define GATE_CHAIN_EDITS      128
#define GATE_CHAIN_EDIT_BYTES 3 /* of code: pop %rdi is one byte, pop (%rdi) two */

#endif
