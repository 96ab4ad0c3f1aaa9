/* SPDX-License-Identifier: MIT */
/*
 * What a guest program and s2vm agree on. The only header that both sides include.
 *
 * A guest program is a static 64-bit ELF executable. It starts at its entry point with a stack, with
 * the registers below set, with every other general register zero and with vector and x87 registers
 * as after a reset; SSE is switched on. Nothing of it is written
 * before it starts, so a guest that only reads owns no table.
 *
 *   rdi  number of this guest, from 0
 *   rsi  guest-physical address of the memory file's first byte
 *   rdx  bytes of the memory file that are mapped (not rounded to pages)
 *   rcx  the argument given on s2vm's command line, 0 if none
 *   r8   a seed, different for each guest
 *   rsp  end of the stack, 16-byte aligned
 *
 * The memory file has at least one byte. Its last page is filled up with zeros, and can be written
 * as a whole.
 *
 * Under the direct engine it runs at CPL 3, and guest-virtual addresses are guest-physical ones. Under
 * svm and vmx it is a machine of its own: it starts in 64-bit mode at CPL 0, with the stage-1 tables
 * that it brings itself, without interrupts and without descriptor tables. It names its PML4 in an
 * ELF note. The tables must be in writable memory and should have their accessed and dirty bits set:
 * processors that walk them may write to them.
 *
 * A call to s2vm is `out %al, $S2VM_CALL_PORT` with the function's number in rax and its arguments
 * in rdi, rsi, rdx and r10. The result comes back in rax; every other register is preserved.
 */
#ifndef S2VM_GUEST_ABI_H
#define S2VM_GUEST_ABI_H

/* The ELF note of a program that can be a machine; its description is the PML4's address, 8 bytes. */
#define S2VM_NOTE_NAME	       "s2vm"
#define S2VM_NOTE_MACHINE_ROOT 1

/* The one I/O port that a guest may use. */
#define S2VM_CALL_PORT 0xe0

/*
 * Report a result. rdi, rsi, rdx, r10: 32 bytes, most significant byte of rdi first when they are
 * a digest. A guest may report several results; the last one is printed, the first one ends what is
 * measured as its launch. Returns 0.
 */
#define S2VM_CALL_RESULT 1

/*
 * Write text to s2vm's log. rdi: guest-physical address, rsi: bytes, at most S2VM_WRITE_MAX. Returns
 * the number of bytes taken, or S2VM_ERROR if there are too many or the range is not all in readable
 * memory of this guest.
 */
#define S2VM_CALL_WRITE 2
#define S2VM_WRITE_MAX	4096

/*
 * Mark a point in time, for benchmarks. rdi: the mark's number. s2vm notes the time and the faults
 * counted so far. Returns 0, or S2VM_ERROR for S2VM_MARKS and more.
 */
#define S2VM_CALL_MARK 3
#define S2VM_MARKS     8

/* What a refused call returns in rax; no call succeeds with it. */
#define S2VM_ERROR 0xffffffffffffffff

/* End this guest. rdi: its exit status, 0 if all went well. Does not return. */
#define S2VM_CALL_EXIT 4

/*
 * Where programs are linked, where their stack ends, and where the memory file begins. The file's
 * first byte is aligned to 1 GiB, so that its tables can be shared at every level that it fills.
 */
#define S2VM_PROGRAM_BASE 0x400000
#define S2VM_STACK_END	  0x400000
#define S2VM_STACK_BYTES  0x10000
#define S2VM_FILE_BASE	  0x40000000

#endif
