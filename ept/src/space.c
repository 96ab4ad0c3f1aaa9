// SPDX-License-Identifier: MIT
/* The engine as a whole, and the lives of spaces. */
#include "ept_internal.h"

#include <stdlib.h>

static bool areas_apart(const struct ept_memory *memory)
{
	uint64_t tables = (uint64_t)memory->table_count << EPT_PAGE_SHIFT;
	uint64_t pages = (uint64_t)memory->page_count << EPT_PAGE_SHIFT;

	return memory->tables_at.v + tables <= memory->pages_at.v ||
	       memory->pages_at.v + pages <= memory->tables_at.v;
}

static bool config_valid(const struct ept_config *config)
{
	const struct ept_memory *memory = &config->memory;

	return config->format && memory->tables && memory->table_count &&
	       memory->table_count <= EPT_TABLES_MAX &&
	       config->root_entry_index < EPT_ENTRIES &&
	       memory->tables_at.v % EPT_PAGE_BYTES == 0 && memory->tables_at.v < EPT_FPA_END &&
	       memory->pages_at.v % EPT_PAGE_BYTES == 0 && memory->pages_at.v < EPT_FPA_END &&
	       areas_apart(memory);
}

struct ept *ept_create(const struct ept_config *config)
{
	struct ept *ept = config_valid(config) ? calloc(1, sizeof(*ept)) : NULL;

	if (!ept)
		return NULL;
	ept->config = *config;
	pthread_mutex_init(&ept->spaces_lock, NULL);
	pthread_mutex_init(&ept->files_lock, NULL);
	TAILQ_INIT(&ept->spaces);
	ept->rmap = rmap_create(config->memory.table_count);
	if (!ept->rmap || !ept_tables_init(ept) || !ept_pages_init(ept) || !ept_index_init(ept)) {
		ept_destroy(ept);
		return NULL;
	}
	return ept;
}

void ept_destroy(struct ept *ept)
{
	if (!ept)
		return;
	assert(TAILQ_EMPTY(&ept->spaces));
	ept_files_free(ept);
	ept_index_free(ept);
	ept_pages_free(ept);
	ept_tables_free(ept);
	rmap_destroy(ept->rmap);
	free(ept->trace);
	pthread_mutex_destroy(&ept->spaces_lock);
	free(ept);
}

struct ept_space *ept_space_new(struct ept *ept, const struct ept_space_options *options)
{
	struct ept_space *space = calloc(1, sizeof(*space));

	if (!space)
		return NULL;
	pthread_mutex_init(&space->lock, NULL);
	space->ept = ept;
	space->options = *options;
	space->number = atomic_fetch_add(&ept->next_space, 1);
	atomic_store(&space->references, 1);
	return space;
}

void ept_space_publish(struct ept_space *space)
{
	struct ept *ept = space->ept;

	pthread_mutex_lock(&ept->spaces_lock);
	TAILQ_INSERT_TAIL(&ept->spaces, space, link);
	pthread_mutex_unlock(&ept->spaces_lock);
}

/* A root with the gate's entry and nothing else, which hardware may see from now on. */
static struct ept_table *root_create(struct ept *ept)
{
	struct ept_table *root = ept_table_take(ept, EPT_ROOT_LEVEL);

	if (!root)
		return NULL;
	pthread_mutex_lock(&root->lock);
	root->published = true;
	pthread_mutex_unlock(&root->lock);
	if (ept->config.root_entry)
		atomic_store(&ept_table_entries(ept, root)[ept->config.root_entry_index],
			     ept->config.root_entry);
	return root;
}

void ept_space_discard(struct ept_space *space)
{
	ept_list_free(&space->regions);
	pthread_mutex_destroy(&space->lock);
	free(space);
}

enum ept_status ept_space_create(struct ept *ept, const struct ept_space_options *options,
				 struct ept_space **out)
{
	struct ept_space *space = ept_space_new(ept, options);

	if (!space)
		return EPT_NO_MEMORY;
	space->root = root_create(ept);
	if (!space->root) {
		ept_space_discard(space);
		return EPT_NO_TABLE;
	}
	ept_space_publish(space);
	*out = space;
	return EPT_OK;
}

static void space_free(struct ept_space *space)
{
	struct ept *ept = space->ept;

	pthread_mutex_lock(&ept->spaces_lock);
	TAILQ_REMOVE(&ept->spaces, space, link);
	pthread_mutex_unlock(&ept->spaces_lock);
	ept_table_put(ept, space->root);
	ept_space_discard(space);
}

void ept_space_put(struct ept_space *space)
{
	while (space && atomic_fetch_sub(&space->references, 1) == 1) {
		struct ept_space *parent = space->parent;

		space_free(space);
		space = parent;
	}
}

void ept_space_destroy(struct ept_space *space)
{
	ept_space_put(space);
}

struct fpa ept_space_root(const struct ept_space *space)
{
	return ept_table_at(space->ept, space->root);
}

bool ept_space_translate(struct ept_space *space, struct gpa gpa, struct fpa *to, unsigned *rights)
{
	struct ept *ept = space->ept;
	struct ept_table *table;
	uint64_t span = EPT_PAGE_BYTES;
	uint64_t entry = 0;

	*rights = EPT_READ | EPT_WRITE | EPT_EXEC;
	pthread_mutex_lock(&space->lock);
	table = space->root;
	for (unsigned level = EPT_ROOT_LEVEL;; level--) {
		unsigned index = ept_entry_index(gpa, level);

		entry = ept_entry_fixed(ept, table, index) ? 0 : ept_entry_load(ept, table, index);
		if (!ept_entry_present(entry))
			break;
		*rights &= ept_entry_rights(ept->config.format, entry);
		span = ept_entry_span(level);
		if (!ept_entry_is_table(ept, level, entry))
			break;
		table = ept_entry_child(ept, entry);
	}
	pthread_mutex_unlock(&space->lock);
	to->v = ept_entry_target(ept->config.format, entry).v | gpa.v % span;
	return ept_entry_present(entry);
}

uint32_t ept_space_number(const struct ept_space *space)
{
	return space->number;
}

uint32_t ept_space_domain(const struct ept_space *space)
{
	return space->options.domain;
}

uint64_t ept_space_faults(const struct ept_space *space)
{
	return atomic_load(&space->faults);
}
