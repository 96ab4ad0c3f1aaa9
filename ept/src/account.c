// SPDX-License-Identifier: MIT
/*
 * Who pays for what (B6): each table and each private page is divided among the spaces that are translated
 * by it, so that the parts add up to what the pools say.
 */
#include "ept_internal.h"

#include <stdlib.h>

/* How many spaces come by a table or page, and how many of them have been given their part. */
struct visits {
	uint32_t all;
	uint32_t served;
};

struct accounting {
	struct ept *ept;
	struct visits *tables;
	struct visits *pages;
	struct ept_account *account; /* NULL while visits are counted */
};

struct place {
	struct ept_table *table;
	unsigned index;
};

/* The next part of a page of memory that @visits->all spaces share; parts add up to all of it. */
static uint64_t next_part(struct visits *visits)
{
	uint64_t before = (uint64_t)visits->served * EPT_PAGE_BYTES / visits->all;

	visits->served++;
	return (uint64_t)visits->served * EPT_PAGE_BYTES / visits->all - before;
}

static void visit(struct accounting *accounting, struct visits *visits, uint64_t *alone,
		  uint64_t *shared, uint64_t *part)
{
	if (!accounting->account) {
		visits->all++;
		return;
	}
	*(visits->all > 1 ? shared : alone) += 1;
	*part += next_part(visits);
}

static void visit_table(struct accounting *accounting, const struct ept_table *table)
{
	struct ept_account none, *account = accounting->account ? accounting->account : &none;

	visit(accounting, &accounting->tables[ept_table_number(accounting->ept, table)],
	      &account->tables_alone, &account->tables_shared, &account->tables_part_bytes);
}

static void visit_page(struct accounting *accounting, struct fpa page)
{
	struct ept_account none, *account = accounting->account ? accounting->account : &none;

	if (ept_page_is_private(accounting->ept, page))
		visit(accounting, &accounting->pages[ept_page_number(accounting->ept, page)],
		      &account->pages_alone, &account->pages_shared, &account->pages_part_bytes);
}

/* All tables and pages of a space. */
static void walk(struct accounting *accounting, struct ept_space *space)
{
	struct ept *ept = accounting->ept;
	struct place stack[EPT_ROOT_LEVEL] = { { .table = space->root } };
	unsigned depth = 1;

	visit_table(accounting, space->root);
	while (depth) {
		struct place *place = &stack[depth - 1];
		struct ept_table *table = place->table;
		uint64_t entry;

		if (place->index == EPT_ENTRIES) {
			depth--;
			continue;
		}
		entry = ept_entry_load(ept, table, place->index);
		if (ept_entry_fixed(ept, table, place->index++) || !ept_entry_present(entry))
			continue;
		if (ept_entry_is_table(ept, table->level, entry)) {
			stack[depth++] = (struct place){ .table = ept_entry_child(ept, entry) };
			visit_table(accounting, stack[depth - 1].table);
		} else {
			visit_page(accounting, ept_entry_target(ept->config.format, entry));
		}
	}
}

static size_t walk_all(struct accounting *accounting, struct ept_account *accounts, size_t max)
{
	struct ept_space *space;
	size_t count = 0;

	TAILQ_FOREACH(space, &accounting->ept->spaces, link) {
		struct ept_account unwanted = { 0 };

		if (accounts) {
			accounting->account = count < max ? &accounts[count] : &unwanted;
			*accounting->account = (struct ept_account){ .space = space };
		}
		walk(accounting, space);
		count++;
	}
	return count;
}

size_t ept_accounts(struct ept *ept, struct ept_account *accounts, size_t max)
{
	struct accounting accounting = { .ept = ept };
	size_t count = 0;

	accounting.tables = calloc(ept->config.memory.table_count, sizeof(struct visits));
	accounting.pages = calloc(ept->config.memory.page_count + 1ul, sizeof(struct visits));
	if (accounting.tables && accounting.pages) {
		pthread_mutex_lock(&ept->spaces_lock);
		walk_all(&accounting, NULL, 0);
		count = walk_all(&accounting, accounts, max);
		pthread_mutex_unlock(&ept->spaces_lock);
	}
	free(accounting.tables);
	free(accounting.pages);
	return count;
}
