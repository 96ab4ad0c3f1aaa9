/* SPDX-License-Identifier: MIT */
/* Commands: each parses its options, does its work, and returns s2vm's exit status. */
#ifndef VMM_CLI_H
#define VMM_CLI_H

int cli_run(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_trace(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_freeze(int argc, char **argv);
int cli_reset(int argc, char **argv);
int cli_template(int argc, char **argv);
int cli_doctor(int argc, char **argv);

#endif
