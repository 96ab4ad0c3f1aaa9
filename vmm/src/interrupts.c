// SPDX-License-Identifier: MIT
#include "interrupts.h"

#include <signal.h>

static volatile bool interrupted;

static void on_interrupt(int signal)
{
	(void)signal;
	interrupted = true;
}

volatile bool *interrupts_catch(void)
{
	struct sigaction action = { .sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	return &interrupted;
}
