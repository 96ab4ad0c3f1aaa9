/* SPDX-License-Identifier: MIT */
/*
 * A self-test of what a fleet relies on, on the kernel that is running: the contract with KVM
 * (docs/architecture.md).
 */
#ifndef VMM_DOCTOR_H
#define VMM_DOCTOR_H

#include "error.h"
#include "gate.h"

enum doctor_verdict { DOCTOR_PASS, DOCTOR_FAIL, DOCTOR_NOTE };

/* Called for each thing that was tested, with what was seen. */
typedef void (*doctor_report)(void *context, enum doctor_verdict verdict, const char *text);

/*
 * Tests the contract with @engine. True if a fleet can be trusted: no test failed. False with
 * @error set if the test itself could not be run; its text is empty if a test failed.
 */
bool doctor_test(enum engine engine, doctor_report report, void *context, struct error *error);

#endif
