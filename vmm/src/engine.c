// SPDX-License-Identifier: MIT
/* Which engines there are, and which of them a host offers. */
#include <string.h>

#include "gate.h"

static const char *const names[] = {
	[ENGINE_AUTO] = "auto",
	[ENGINE_DIRECT] = "direct",
	[ENGINE_SVM] = "svm",
	[ENGINE_VMX] = "vmx",
};

const char *engine_name(enum engine engine)
{
	return names[engine];
}

bool engine_parse(const char *name, enum engine *engine)
{
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(name, names[i]) == 0) {
			*engine = (enum engine)i;
			return true;
		}
	return false;
}

bool engine_choose(const struct host *host, enum engine wanted, enum engine *engine,
		   struct error *error)
{
	char reason[160];

	if (wanted == ENGINE_AUTO)
		wanted = host->vmx ? ENGINE_VMX : host->svm ? ENGINE_SVM : ENGINE_DIRECT;
	*engine = wanted;
	if (wanted == ENGINE_DIRECT || (wanted == ENGINE_SVM ? host->svm : host->vmx))
		return true;
	host_nested_reason(engine_name(wanted), reason, sizeof(reason));
	return error_set(error, EXIT_HOST,
			 "%s; --engine direct needs no nested virtualization", reason);
}
