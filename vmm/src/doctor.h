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

enum doctor_outcome {
	DOCTOR_TRUSTED,	   /* no test failed */
	DOCTOR_NOT_TRUSTED, /* a test failed */
	DOCTOR_CANNOT_RUN, /* the engine runs no guests on this host, so there is nothing to trust */
	DOCTOR_ERROR,	   /* the test itself could not go on: @error says why */
};

/* Tests the contract with @engine. */
enum doctor_outcome doctor_test(enum engine engine, doctor_report report, void *context,
				struct error *error);

#endif
