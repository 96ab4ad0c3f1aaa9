// SPDX-License-Identifier: MIT
/* Growing arrays. */
#include "ept_internal.h"

#include <stdlib.h>

bool ept_list_reserve(struct ept_list *list, size_t more, size_t item_bytes)
{
	size_t need = list->count + more;
	size_t capacity = list->capacity ? list->capacity : 8;
	void *items;

	if (need <= list->capacity)
		return true;
	while (capacity < need)
		capacity *= 2;
	items = realloc(list->items, capacity * item_bytes);
	if (!items)
		return false;
	list->items = items;
	list->capacity = capacity;
	return true;
}

void ept_list_free(struct ept_list *list)
{
	free(list->items);
	*list = (struct ept_list){ 0 };
}
