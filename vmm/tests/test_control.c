// SPDX-License-Identifier: MIT
/* Requests at the control socket that no guest is needed for: they are refused, with the right exit status. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "control.h"

/* A fleet of programs in which one of two guests has been launched. */
struct scene {
	struct fleet fleet;
	struct guest guests[2];
	struct control *control;
	int fd;
};

static int begin(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	struct error error;

	scene->fleet.config.guests = 2;
	scene->fleet.guests = scene->guests;
	scene->fleet.guest_count = 1;
	scene->guests[0].fleet = &scene->fleet;
	pthread_mutex_init(&scene->fleet.moments_lock, NULL);
	if (!control_start(&scene->control, &scene->fleet, &error))
		return -1;
	scene->fd = control_connect(getpid(), &error);
	*state = scene;
	return scene->fd < 0 ? -1 : 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	close(scene->fd);
	control_stop(scene->control);
	pthread_mutex_destroy(&scene->fleet.moments_lock);
	free(scene);
	return 0;
}

static void refused(struct scene *scene, const char *request, enum error_exit status,
		    const char *why)
{
	struct control_input input = { .fd = scene->fd };
	struct error error;

	assert_true(control_send(scene->fd, json_loads(request, 0, NULL), &error));
	assert_null(control_receive(&input, &error));
	if (!strstr(error.text, why))
		fail_msg("%s: %s", request, error.text);
	assert_int_equal(error.exit, status);
}

static void test_guests_that_are_none(void **state)
{
	static const char *const wrong[] = {
		"{}",
		"{\"guest\":\"0\"}",
		"{\"guest\":-1}",
		"{\"guest\":1.0}",
		"{\"guest\":4294967296}",
		"{\"guest\":null}",
		"{\"guest\":[0]}",
	};
	static const char *const commands[] = { "freeze", "reset" };

	for (unsigned command = 0; command < 2; command++) {
		json_t *name = json_string(commands[command]);
		char *text;

		for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
			json_t *request = json_loads(wrong[i], 0, NULL);

			json_object_set(request, "command", name);
			text = json_dumps(request, 0);
			refused(*state, text, EXIT_INPUT, "needs the number of a guest");
			free(text);
			json_decref(request);
		}
		json_decref(name);
	}
	refused(*state, "{\"command\":\"freeze\",\"guest\":1}", EXIT_NO_SUCH,
		"there is no guest 1, it runs guests from 0 to 1");
	refused(*state, "{\"command\":\"reset\",\"guest\":2147483647}", EXIT_NO_SUCH,
		"there is no guest 2147483647");
}

static void test_places_that_are_none(void **state)
{
	static const char why[] = "a template needs a name, and a directory with all of its path";
	static const char *const wrong[] = {
		"{\"command\":\"freeze\",\"guest\":0,\"template\":\"a\"}",
		"{\"command\":\"freeze\",\"guest\":0,\"templates\":\"/tmp\"}",
		"{\"command\":\"freeze\",\"guest\":0,\"template\":\"a\",\"templates\":\"tmp\"}",
		"{\"command\":\"freeze\",\"guest\":0,\"template\":\"a\",\"templates\":\"\"}",
		"{\"command\":\"freeze\",\"guest\":0,\"template\":1,\"templates\":\"/tmp\"}",
		"{\"command\":\"freeze\",\"guest\":0,\"template\":\"a\",\"templates\":7}",
	};

	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		refused(*state, wrong[i], EXIT_INPUT, why);
	/* The name is looked at before the guest is. */
	refused(*state,
		"{\"command\":\"freeze\",\"guest\":0,\"template\":\"../a\",\"templates\":\"/nowhere\"}",
		EXIT_INPUT, "a template's name has up to");
}

static void test_guests_that_cannot(void **state)
{
	refused(*state, "{\"command\":\"freeze\",\"guest\":0}", EXIT_INPUT,
		"only Linux guests can be frozen while they run");
	refused(*state, "{\"command\":\"reset\",\"guest\":0}", EXIT_INPUT,
		"guest 0 was neither frozen nor launched from a template");
}

static void test_requests_that_are_none(void **state)
{
	refused(*state, "{\"command\":\"walk\",\"guest\":0}", EXIT_FAILED, "no such command");
	refused(*state, "{\"command\":7}", EXIT_FAILED, "with a version and a command");
	refused(*state, "{\"guest\":0}", EXIT_FAILED, "with a version and a command");
}

/* It ends the connection, and the next one is served. */
static void test_a_request_that_is_too_long(void **state)
{
	struct scene *scene = *state;
	struct control_input input = { .fd = scene->fd };
	char request[5000];
	struct error error;

	memset(request, 'x', sizeof(request));
	assert_true(send(scene->fd, request, sizeof(request), MSG_NOSIGNAL) > 0);
	assert_null(control_receive(&input, &error));
	close(scene->fd);
	scene->fd = control_connect(getpid(), &error);
	assert_true(scene->fd >= 0);
	refused(*state, "{\"command\":\"walk\"}", EXIT_FAILED, "no such command");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_guests_that_are_none, begin, end),
		cmocka_unit_test_setup_teardown(test_places_that_are_none, begin, end),
		cmocka_unit_test_setup_teardown(test_guests_that_cannot, begin, end),
		cmocka_unit_test_setup_teardown(test_requests_that_are_none, begin, end),
		cmocka_unit_test_setup_teardown(test_a_request_that_is_too_long, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
