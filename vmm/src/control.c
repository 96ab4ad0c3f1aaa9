// SPDX-License-Identifier: MIT
#include "control.h"
#include "findings.h"
#include "linux_template.h"
#include "moment.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENT_SECONDS 5   /* for a client to ask and to take the answer */
#define FLEET_SECONDS  600 /* for a fleet to answer: a check may look at millions of entries */

/* ---- both sides ---- */

static socklen_t make_address(struct sockaddr_un *address, int pid)
{
	int length;

	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	length = snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1, "s2vm/%d", pid);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

static void limit_time(int fd, int seconds)
{
	struct timeval limit = { .tv_sec = seconds };

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

static bool peer_of(int fd, struct ucred *peer)
{
	socklen_t size = sizeof(*peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &size) == 0;
}

static bool send_all(int fd, const char *bytes, size_t count)
{
	while (count) {
		ssize_t sent = send(fd, bytes, count, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		bytes += sent;
		count -= (size_t)sent;
	}
	return true;
}

/* Sends @message as a line, and frees it. */
static bool send_line(int fd, json_t *message)
{
	char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
	bool sent = text && send_all(fd, text, strlen(text)) && send_all(fd, "\n", 1);

	free(text);
	json_decref(message);
	return sent;
}

/* Takes the next line out of what has been received; NULL if it is not whole yet. */
static char *take_line(struct control_input *input)
{
	char *line = input->bytes + input->start;
	char *end = memchr(line, '\n', input->used - input->start);

	if (!end)
		return NULL;
	*end = '\0';
	input->start = (size_t)(end + 1 - input->bytes);
	return line;
}

/* The next line, which is good until the next call; NULL with errno at the end (0) or when it failed. */
static char *receive_line(struct control_input *input)
{
	char *line;

	while (!(line = take_line(input))) {
		ssize_t count;

		input->used -= input->start;
		memmove(input->bytes, input->bytes + input->start, input->used);
		input->start = 0;
		errno = EMSGSIZE;
		if (input->used == sizeof(input->bytes))
			return NULL;
		errno = 0;
		count = recv(input->fd, input->bytes + input->used,
			     sizeof(input->bytes) - input->used, 0);
		if (count < 0 && errno == EINTR)
			continue;
		if (count <= 0)
			return NULL;
		input->used += (size_t)count;
	}
	return line;
}

/* ---- the fleet's side ---- */

struct control {
	struct fleet *fleet;
	int listener;
	pthread_t thread;
	pthread_mutex_t lock;
	int client; /* -1 for none */
	bool ending;
};

static bool send_error(int fd, const struct error *error)
{
	return send_line(fd, json_pack("{s:i, s:s, s:i}", "version", CONTROL_VERSION, "error",
				       error->text, "exit", (int)error->exit));
}

/* What is wrong with a request, or with who sends it. */
static bool refuse(int fd, const char *text)
{
	struct error error;

	error_set(&error, EXIT_FAILED, "%s", text);
	return send_error(fd, &error);
}

/* The last answer, of @done or of what failed. */
static bool send_end(int fd, bool done, const struct error *error)
{
	if (!done)
		return send_error(fd, error);
	return send_line(fd, json_pack("{s:i, s:b}", "version", CONTROL_VERSION, "done", true));
}

static bool send_findings(int fd, const struct findings *findings)
{
	for (size_t at = 0; at < json_array_size(findings->texts); at++)
		if (!send_line(fd, json_pack("{s:i, s:O}", "version", CONTROL_VERSION, "violation",
					     json_array_get(findings->texts, at))))
			return false;
	return send_line(fd, json_pack("{s:i, s:b, s:I, s:I, s:I}", "version", CONTROL_VERSION,
				       "done", true, "tables", (json_int_t)findings->tables,
				       "spaces", (json_int_t)findings->spaces, "violations",
				       (json_int_t)findings->violations));
}

/* What is found is sent when the fleet goes on again: it does not wait for its client. */
static bool serve_check(struct control *control, int fd, const json_t *request)
{
	struct findings findings;
	struct error error;
	bool sent;

	(void)request;
	if (!fleet_pause(control->fleet, &error))
		return send_error(fd, &error);
	findings_take(&findings, control->fleet);
	fleet_resume(control->fleet);
	sent = send_findings(fd, &findings);
	findings_free(&findings);
	return sent;
}

/* The guest that a request is about; NULL if it names none that has been launched. */
static struct guest *guest_of(struct control *control, const json_t *request, struct error *error)
{
	const json_t *number = json_object_get(request, "guest");
	json_int_t id = json_integer_value(number);

	if (!json_is_integer(number) || id < 0 || id > INT_MAX) {
		error_set(error, EXIT_INPUT, "the request needs the number of a guest");
		return NULL;
	}
	return fleet_find_guest(control->fleet, (unsigned)id, error);
}

/* Where a template is wanted, if one is. */
static bool place_of(const json_t *request, struct linux_template_place *place,
		     struct error *error)
{
	const json_t *name = json_object_get(request, "template");
	const json_t *directory = json_object_get(request, "templates");

	place->name = json_string_value(name);
	place->directory = json_string_value(directory);
	if (!name && !directory)
		return true;
	if (place->name && place->directory && place->directory[0] == '/')
		return true;
	return error_set(error, EXIT_INPUT,
			 "a template needs a name, and a directory with all of its path");
}

static bool serve_freeze(struct control *control, int fd, const json_t *request)
{
	struct linux_template_place place;
	struct guest *guest;
	struct error error;
	bool done;

	guest = guest_of(control, request, &error);
	done = guest && place_of(request, &place, &error) &&
	       linux_template_freeze(control->fleet, guest, &place, &error);
	return send_end(fd, done, &error);
}

static bool serve_reset(struct control *control, int fd, const json_t *request)
{
	struct guest *guest;
	struct error error;
	bool done;

	guest = guest_of(control, request, &error);
	done = guest && fleet_go_back(control->fleet, guest, &error);
	return send_end(fd, done, &error);
}

/* What can be asked for. Each is false if the client is gone. */
static const struct command {
	const char *name;
	bool (*serve)(struct control *control, int fd, const json_t *request);
} commands[] = {
	{ "check", serve_check },
	{ "freeze", serve_freeze },
	{ "reset", serve_reset },
};

static bool serve_request(struct control *control, int fd, const json_t *request)
{
	json_t *version = json_object_get(request, "version");
	const char *command = json_string_value(json_object_get(request, "command"));

	if (!json_is_integer(version) || !command)
		return refuse(fd, "a request is an object with a version and a command");
	if (json_integer_value(version) != CONTROL_VERSION)
		return refuse(fd, "this fleet speaks version 1 of the control protocol");
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(command, commands[i].name) == 0)
			return commands[i].serve(control, fd, request);
	return refuse(fd, "this fleet knows no such command");
}

static bool permitted(int fd)
{
	struct ucred peer;

	return peer_of(fd, &peer) && (peer.uid == 0 || peer.uid == geteuid());
}

static void serve_client(struct control *control, int fd)
{
	struct control_input input = { .fd = fd };
	bool going_on = permitted(fd);
	char *line;

	limit_time(fd, CLIENT_SECONDS);
	if (!going_on)
		refuse(fd, "only who runs it, and root, may ask it for something");
	while (going_on && (line = receive_line(&input))) {
		json_t *request = json_loads(line, JSON_REJECT_DUPLICATES, NULL);

		going_on = serve_request(control, fd, request);
		json_decref(request);
	}
	if (going_on && errno == EMSGSIZE)
		refuse(fd, "a request is longer than 4095 bytes");
}

/* From now on control_stop() ends what is under way with it; false if that has begun. */
static bool set_client(struct control *control, int fd)
{
	bool ending;

	pthread_mutex_lock(&control->lock);
	control->client = fd;
	ending = control->ending;
	pthread_mutex_unlock(&control->lock);
	return !ending;
}

static void *thread_main(void *argument)
{
	struct control *control = argument;
	bool going_on = true;

	while (going_on) {
		int fd = accept4(control->listener, NULL, NULL, SOCK_CLOEXEC);

		going_on = set_client(control, fd);
		if (fd < 0) {
			usleep(1000); /* Out of file descriptors, say. */
			continue;
		}
		if (going_on)
			serve_client(control, fd);
		going_on = set_client(control, -1);
		close(fd);
	}
	return NULL;
}

static int listen_here(struct error *error)
{
	struct sockaddr_un address;
	socklen_t length = make_address(&address, getpid());
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && bind(fd, (struct sockaddr *)&address, length) == 0 && listen(fd, 8) == 0)
		return fd;
	error_set(error, EXIT_FAILED, "no control socket s2vm/%d: %s", (int)getpid(),
		  strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

/* The process's signals are not for this thread. */
static int start_thread(struct control *control)
{
	sigset_t all, before;
	int status;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	status = pthread_create(&control->thread, NULL, thread_main, control);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return status;
}

bool control_start(struct control **out, struct fleet *fleet, struct error *error)
{
	struct control *control = calloc(1, sizeof(*control));

	if (!control)
		return error_set(error, EXIT_FAILED, "out of memory");
	*control = (struct control){ .fleet = fleet, .client = -1 };
	control->listener = listen_here(error);
	if (control->listener < 0) {
		free(control);
		return false;
	}
	pthread_mutex_init(&control->lock, NULL);
	if (start_thread(control)) {
		error_set(error, EXIT_FAILED, "cannot start a thread; raise ulimit -u");
		pthread_mutex_destroy(&control->lock);
		close(control->listener);
		free(control);
		return false;
	}
	*out = control;
	return true;
}

void control_stop(struct control *control)
{
	pthread_mutex_lock(&control->lock);
	control->ending = true;
	shutdown(control->listener, SHUT_RDWR);
	if (control->client >= 0)
		shutdown(control->client, SHUT_RDWR);
	pthread_mutex_unlock(&control->lock);
	pthread_join(control->thread, NULL);
	close(control->listener);
	pthread_mutex_destroy(&control->lock);
	free(control);
}

/* ---- the other side ---- */

static bool no_fleet(int pid, struct error *error)
{
	if (kill(pid, 0) < 0 && errno == ESRCH)
		return error_set(error, EXIT_NO_SUCH, "there is no process %d", pid);
	return error_set(error, EXIT_NO_SUCH,
			 "process %d runs no fleet here; give the process ID of an s2vm run", pid);
}

/* Anybody may have taken the name: only the process itself may answer, of its user or root's. */
static bool check_peer(int fd, int pid, struct error *error)
{
	struct ucred peer;

	if (!peer_of(fd, &peer) || peer.pid != pid)
		return no_fleet(pid, error);
	if (geteuid() != 0 && peer.uid != 0 && peer.uid != geteuid())
		return error_set(error, EXIT_FAILED,
				 "process %d is user %u's: only who runs it, and root, may ask it for something",
				 pid, peer.uid);
	return true;
}

int control_connect(int pid, struct error *error)
{
	struct sockaddr_un address;
	socklen_t length = make_address(&address, pid);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		error_set(error, EXIT_FAILED, "cannot make a socket: %s", strerror(errno));
		return -1;
	}
	limit_time(fd, FLEET_SECONDS);
	if (connect(fd, (struct sockaddr *)&address, length) < 0) {
		if (errno == ECONNREFUSED)
			no_fleet(pid, error);
		else
			error_set(error, EXIT_FAILED, "cannot reach process %d: %s", pid,
				  strerror(errno));
	} else if (check_peer(fd, pid, error)) {
		return fd;
	}
	close(fd);
	return -1;
}

bool control_send(int fd, json_t *request, struct error *error)
{
	if (request)
		json_object_set_new(request, "version", json_integer(CONTROL_VERSION));
	errno = ENOMEM;
	if (send_line(fd, request))
		return true;
	/* Whoever sends no more may have said why. */
	if (errno == EPIPE)
		return true;
	return error_set(error, EXIT_FAILED, "cannot ask the fleet: %s", strerror(errno));
}

/* What the fleet says that it could not do. */
static void take_refusal(const json_t *answer, const json_t *text, struct error *error)
{
	json_int_t status = json_integer_value(json_object_get(answer, "exit"));
	bool known = status > EXIT_DONE && status <= EXIT_INVARIANT;

	error_set(error, known ? (enum error_exit)status : EXIT_FAILED, "the fleet refuses: %s",
		  json_is_string(text) ? json_string_value(text) : "it does not say why");
}

json_t *control_receive(struct control_input *input, struct error *error)
{
	char *line = receive_line(input);
	json_t *answer, *text;

	if (!line) {
		if (errno == EAGAIN)
			error_set(error, EXIT_FAILED, "the fleet does not answer");
		else if (errno && errno != ECONNRESET)
			error_set(error, EXIT_FAILED, "cannot read the fleet's answer: %s",
				  strerror(errno));
		else
			error_set(error, EXIT_FAILED, "the fleet ended before it had answered");
		return NULL;
	}
	answer = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
	if (json_integer_value(json_object_get(answer, "version")) != CONTROL_VERSION) {
		json_decref(answer);
		error_set(error, EXIT_FAILED, "the fleet answers in another protocol than version 1");
		return NULL;
	}
	text = json_object_get(answer, "error");
	if (!text)
		return answer;
	take_refusal(answer, text, error);
	json_decref(answer);
	return NULL;
}
