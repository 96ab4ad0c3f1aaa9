// SPDX-License-Identifier: MIT
/*
 * Private pages and their counts.
 *
 *	free --take--> live --last put--> quarantined --discard--> free
 */
#include "ept_internal.h"

#include <stdlib.h>

bool ept_pages_init(struct ept *ept)
{
	struct ept_page_pool *pool = &ept->pages;
	uint32_t count = ept->config.memory.page_count;

	pthread_mutex_init(&pool->lock, NULL);
	pool->free = EPT_NONE;
	pool->quarantine = EPT_NONE;
	pool->counts = calloc(count ? count : 1, sizeof(*pool->counts));
	pool->list_next = calloc(count ? count : 1, sizeof(*pool->list_next));
	return pool->counts && pool->list_next;
}

void ept_pages_free(struct ept *ept)
{
	free(ept->pages.counts);
	free(ept->pages.list_next);
	pthread_mutex_destroy(&ept->pages.lock);
}

static struct fpa page_at(const struct ept *ept, uint32_t number)
{
	uint64_t offset = (uint64_t)number << EPT_PAGE_SHIFT;

	return (struct fpa){ ept->config.memory.pages_at.v + offset };
}

bool ept_page_take(struct ept *ept, struct fpa *page)
{
	struct ept_page_pool *pool = &ept->pages;
	uint32_t number = EPT_NONE;

	pthread_mutex_lock(&pool->lock);
	if (pool->free != EPT_NONE) {
		number = pool->free;
		pool->free = pool->list_next[number];
	} else if (pool->next_unused < ept->config.memory.page_count) {
		number = pool->next_unused++;
	}
	pthread_mutex_unlock(&pool->lock);
	if (number == EPT_NONE)
		return false;
	assert(atomic_load(&pool->counts[number]) == 0);
	atomic_store(&pool->counts[number], 1);
	ept_count(&pool->live);
	*page = page_at(ept, number);
	return true;
}

void ept_page_give_back(struct ept *ept, struct fpa page)
{
	struct ept_page_pool *pool = &ept->pages;
	uint32_t number = ept_page_number(ept, page);

	assert(atomic_load(&pool->counts[number]) == 1);
	atomic_store(&pool->counts[number], 0);
	atomic_fetch_sub(&pool->live, 1);
	pthread_mutex_lock(&pool->lock);
	pool->list_next[number] = pool->free;
	pool->free = number;
	pthread_mutex_unlock(&pool->lock);
}

void ept_page_get(struct ept *ept, struct fpa page)
{
	uint32_t before = atomic_fetch_add(&ept->pages.counts[ept_page_number(ept, page)], 1);

	assert(before > 0 && before < UINT32_MAX);
	(void)before;
}

void ept_page_put(struct ept *ept, struct fpa page)
{
	struct ept_page_pool *pool = &ept->pages;
	uint32_t number = ept_page_number(ept, page);
	uint32_t before = atomic_fetch_sub(&pool->counts[number], 1);

	assert(before > 0);
	if (before > 1)
		return;
	atomic_fetch_sub(&pool->live, 1);
	pthread_mutex_lock(&pool->lock);
	pool->list_next[number] = pool->quarantine;
	pool->quarantine = number;
	pool->quarantined++;
	pthread_mutex_unlock(&pool->lock);
}

bool ept_page_is_shared(const struct ept *ept, struct fpa page)
{
	return atomic_load(&ept->pages.counts[ept_page_number(ept, page)]) > 1;
}
