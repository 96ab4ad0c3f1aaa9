// SPDX-License-Identifier: MIT
/* s2vm trace: shows the events that s2vm run --trace has written. */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "cli.h"
#include "ept/trace.h"
#include "options.h"

struct trace_options {
	const char *path;
	unsigned kinds;	 /* bit n for enum ept_event_kind */
	unsigned levels; /* bit n for level n */
	uint64_t space;	 /* UINT64_MAX for any, as the next */
	uint64_t table;
	bool json;
	bool headers;
};

enum option_key {
	KEY_EVENT = 0x100,
	KEY_SPACE,
	KEY_TABLE,
	KEY_LEVEL,
	KEY_JSON,
	KEY_NO_HEADERS,
};

static const struct argp_option option_table[] = {
	{ "event", KEY_EVENT, "KIND[,KIND...]", 0,
	  "Events of these kinds: fill, share, clone, unshare, break, zap, free (all)", 0 },
	{ "space", KEY_SPACE, "N", 0, "Events of this space (all)", 0 },
	{ "table", KEY_TABLE, "N", 0, "Events of this table (all)", 0 },
	{ "level", KEY_LEVEL, "LEVEL[,LEVEL...]", 0,
	  "Events of tables of these levels: pt, pd, pdpt, pml4, or 1 to 4 (all)", 0 },
	{ "json", KEY_JSON, NULL, 0, "Print one JSON object", 0 },
	{ "no-headers", KEY_NO_HEADERS, NULL, 0, "Leave out the headings", 0 },
	{ 0 },
};

static bool set_kinds(struct trace_options *options, const char *text, struct error *error)
{
	const char *names[EPT_EVENT_KINDS + 1] = { NULL };

	for (unsigned kind = 0; kind < EPT_EVENT_KINDS; kind++)
		names[kind] = ept_event_name(kind);
	return option_list(text, "--event", names, &options->kinds, error);
}

static bool set_option(struct trace_options *options, int key, const char *text,
		       struct error *error)
{
	switch (key) {
	case KEY_EVENT:
		return set_kinds(options, text, error);
	case KEY_SPACE:
		return option_number(text, "--space", 0, UINT32_MAX, &options->space, error);
	case KEY_TABLE:
		return option_number(text, "--table", 0, UINT32_MAX, &options->table, error);
	default:
		return option_levels(text, "--level", EPT_ROOT_LEVEL, &options->levels, error);
	}
}

static error_t parse(int key, char *text, struct argp_state *state)
{
	struct trace_options *options = state->input;
	struct error error;

	switch (key) {
	case KEY_JSON:
		options->json = true;
		return 0;
	case KEY_NO_HEADERS:
		options->headers = false;
		return 0;
	case KEY_EVENT:
	case KEY_SPACE:
	case KEY_TABLE:
	case KEY_LEVEL:
		if (!set_option(options, key, text, &error))
			argp_error(state, "%s", error.text);
		return 0;
	case ARGP_KEY_ARG:
		if (options->path)
			argp_error(state, "unexpected argument \"%s\"", text);
		options->path = text;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "the file that s2vm run --trace has written is needed");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* A trace that is read line by line, and what has been seen of it. */
struct trace {
	const struct trace_options *options;
	FILE *file;
	char *line;
	size_t size;
	uint64_t line_number;
	uint64_t events; /* up to the last that was read, with those that are missing */
	uint64_t lost;
	uint64_t shown;
	bool complete; /* it has its last line */
};

static bool bad_line(const struct trace *trace, const char *what, struct error *error)
{
	return error_set(error, EXIT_INPUT, "%s, line %llu: %s", trace->options->path,
			 (unsigned long long)trace->line_number, what);
}

/* The next line as an object, to be freed; NULL at the end, with *@good, or where it is none. */
static json_t *next_line(struct trace *trace, bool *good, struct error *error)
{
	json_t *object;

	errno = 0;
	*good = true;
	if (getline(&trace->line, &trace->size, trace->file) < 0) {
		*good = !errno || error_set(error, EXIT_INPUT, "cannot read %s: %s",
					    trace->options->path, strerror(errno));
		return NULL;
	}
	trace->line_number++;
	object = json_loads(trace->line, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(object)) {
		json_decref(object);
		object = NULL;
		*good = bad_line(trace, "not a JSON object", error);
	}
	return object;
}

/* A member that is a number from 0 to @most. */
static bool get(const json_t *object, const char *name, uint64_t most, uint64_t *value)
{
	json_t *member = json_object_get(object, name);

	*value = (uint64_t)json_integer_value(member);
	return json_is_integer(member) && *value <= most;
}

static bool kind_of(const char *name, struct ept_event *event)
{
	for (unsigned kind = 0; name && kind < EPT_EVENT_KINDS; kind++)
		if (strcmp(name, ept_event_name(kind)) == 0) {
			event->kind = (uint8_t)kind;
			return true;
		}
	return false;
}

static bool read_event(const json_t *object, struct ept_event *event)
{
	uint64_t level, table, space = EPT_NO_SPACE, count;

	if (!kind_of(json_string_value(json_object_get(object, "event")), event) ||
	    !get(object, "number", INT64_MAX - 1, &event->number) ||
	    !get(object, "level", EPT_ROOT_LEVEL, &level) || !level ||
	    !get(object, "table", UINT32_MAX, &table) ||
	    !get(object, "count", UINT32_MAX, &count) ||
	    (!json_is_null(json_object_get(object, "space")) &&
	     !get(object, "space", EPT_NO_SPACE - 1, &space)))
		return false;
	event->level = (uint8_t)level;
	event->table = (uint32_t)table;
	event->space = (uint32_t)space;
	event->count = (uint32_t)count;
	return true;
}

static bool wanted(const struct trace_options *options, const struct ept_event *event)
{
	return options->kinds >> event->kind & 1 && options->levels >> event->level & 1 &&
	       (options->space == UINT64_MAX || options->space == event->space) &&
	       (options->table == UINT64_MAX || options->table == event->table);
}

static void print_event(const struct trace *trace, const struct ept_event *event)
{
	char space[16];

	snprintf(space, sizeof(space), "%u", event->space);
	if (event->space == EPT_NO_SPACE)
		strcpy(space, trace->options->json ? "null" : "-");
	if (trace->options->json)
		printf("%s\n    {\"number\": %llu, \"event\": \"%s\", \"level\": %u, \"table\": %u, \"space\": %s, \"count\": %u}",
		       trace->shown ? "," : "", (unsigned long long)event->number,
		       ept_event_name(event->kind), event->level, event->table, space,
		       event->count);
	else
		printf("%8llu  %-8s %-5s %8u %7s %6u\n", (unsigned long long)event->number,
		       ept_event_name(event->kind), option_level_names[event->level - 1],
		       event->table, space, event->count);
}

/* The last line says how many events there were. */
static bool take_end(struct trace *trace, const json_t *object, struct error *error)
{
	uint64_t events;

	if (!get(object, "events", INT64_MAX, &events) || events < trace->events)
		return bad_line(trace, "neither an event nor the end of a trace", error);
	trace->lost += events - trace->events;
	trace->events = events;
	trace->complete = true;
	return true;
}

static bool take_line(struct trace *trace, const json_t *object, struct error *error)
{
	struct ept_event event;

	if (trace->complete)
		return bad_line(trace, "something follows the end of the trace", error);
	if (!json_object_get(object, "number"))
		return take_end(trace, object, error);
	if (!read_event(object, &event))
		return bad_line(trace, "not an event as this s2vm knows them", error);
	if (event.number < trace->events)
		return bad_line(trace, "its number does not come after the one before", error);
	trace->lost += event.number - trace->events;
	trace->events = event.number + 1;
	if (wanted(trace->options, &event)) {
		print_event(trace, &event);
		trace->shown++;
	}
	return true;
}

static bool take_schema(struct trace *trace, struct error *error)
{
	bool good;
	json_t *object = next_line(trace, &good, error);
	int failure = trace->line_number ? 0 : errno;
	const char *schema = json_string_value(json_object_get(object, "schema"));

	/* Where nothing could be read, the error says why. */
	if (!failure && (!schema || strcmp(schema, "s2vm-trace-1") != 0))
		good = error_set(error, EXIT_INPUT,
				 "%s is no trace of schema s2vm-trace-1; s2vm run --trace writes one",
				 trace->options->path);
	json_decref(object);
	return good;
}

static void print_end(const struct trace *trace)
{
	if (trace->options->json)
		printf("\n  ],\n  \"shown\": %llu,\n  \"total\": %llu,\n  \"lost\": %llu,\n  \"complete\": %s\n}\n",
		       (unsigned long long)trace->shown, (unsigned long long)trace->events,
		       (unsigned long long)trace->lost, trace->complete ? "true" : "false");
	else
		printf("%llu of %llu events shown, %llu lost%s\n",
		       (unsigned long long)trace->shown, (unsigned long long)trace->events,
		       (unsigned long long)trace->lost,
		       trace->complete ? "" : "; the trace has no end: its run goes on, or was killed");
}

static bool show(struct trace *trace, struct error *error)
{
	json_t *object;
	bool good;

	if (!take_schema(trace, error))
		return false;
	if (trace->options->json)
		printf("{\n  \"schema\": \"s2vm-events-1\",\n  \"events\": [");
	else if (trace->options->headers)
		puts("  number  event    level    table   space  count");
	while ((object = next_line(trace, &good, error))) {
		good = take_line(trace, object, error);
		json_decref(object);
		if (!good)
			return false;
	}
	if (good)
		print_end(trace);
	return good;
}

int cli_trace(int argc, char **argv)
{
	const struct argp argp = {
		.options = option_table,
		.parser = parse,
		.args_doc = "FILE",
		.doc = "Shows what happened to tables, as s2vm run --trace has written it to FILE.\v"
		       "Exit status: 0 done, 2 for wrong usage or input.",
	};
	struct trace_options options = {
		.kinds = (1u << EPT_EVENT_KINDS) - 1,
		.levels = (2u << EPT_ROOT_LEVEL) - 2,
		.space = UINT64_MAX,
		.table = UINT64_MAX,
		.headers = true,
	};
	struct trace trace = { .options = &options };
	struct error error;
	bool good;

	argp_parse(&argp, argc, argv, 0, NULL, &options);
	trace.file = fopen(options.path, "re");
	if (!trace.file) {
		error_set(&error, EXIT_INPUT, "cannot open trace %s: %s", options.path,
			  strerror(errno));
		return error_print(&error);
	}
	good = show(&trace, &error);
	fclose(trace.file);
	free(trace.line);
	return good ? EXIT_DONE : error_print(&error);
}
