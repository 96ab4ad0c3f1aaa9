/* SPDX-License-Identifier: MIT */
/*
 * The control socket of a fleet: whoever runs it, and root, may ask for things while it runs.
 *
 * It is an abstract UNIX stream socket named "s2vm/PID", which ends with its process whatever that dies
 * of, and which both sides know each other's user and process by (SO_PEERCRED). Requests and answers are
 * lines of one JSON object each, with the protocol's version:
 *
 *   {"version":1,"command":"check"}
 *   {"version":1,"violation":"S1: ..."}                            for each of the first violations
 *   {"version":1,"done":true,"tables":9,"spaces":3,"violations":0} the last line
 *   {"version":1,"error":"...","exit":4}                           or this one, with an exit status
 *
 *   {"version":1,"command":"freeze","guest":0}                     a guest, where it is now
 *   {"version":1,"command":"freeze","guest":0,"template":"NAME","templates":"/DIR"}
 *                                                                  the same, and as a template
 *   {"version":1,"command":"reset","guest":0}                      back to there
 *   {"version":1,"done":true}                                      what these answer
 *
 * A connection serves any number of requests, one after the other.
 */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include <jansson.h>

#include "fleet.h"

#define CONTROL_VERSION 1

/* ---- the fleet's side ---- */

struct control;

/* Serves requests for this process in a thread of its own. False if there can be no socket. */
bool control_start(struct control **control, struct fleet *fleet, struct error *error);

/* Ends what is under way with a client. */
void control_stop(struct control *control);

/* ---- the other side ---- */

/* Connects to the fleet that process @pid runs; a file descriptor, or -1. */
int control_connect(int pid, struct error *error);

/* Sends a request, without its version, and frees it. */
bool control_send(int fd, json_t *request, struct error *error);

/* A stream of answers. */
struct control_input {
	int fd;
	size_t used;
	size_t start;
	char bytes[4096];
};

/* The next answer, to be freed; NULL with an error, which may be one that the fleet has reported. */
json_t *control_receive(struct control_input *input, struct error *error);

#endif
