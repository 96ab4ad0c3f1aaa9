// SPDX-License-Identifier: MIT
#include "random_model.h"

#include <string.h>

/*
 * Where cells begin: borders of spans of every level, and addresses a few pages beside them, so
 * that whole tables of each level, parts of tables, and neighbours in one table all occur.
 */
static const uint64_t cuts[] = {
	0,
	5 * KIB4,
	MIB2 - 3 * KIB4,
	MIB2,
	MIB2 + 7 * KIB4,
	2 * MIB2,
	2 * MIB2 + 9 * KIB4,
	3 * MIB2,
	4 * MIB2,
	4 * MIB2 + 256 * KIB4,
	5 * MIB2,
	GIB1 - 2 * MIB2,
	GIB1 - MIB2,
	GIB1 - KIB4,
	GIB1,
	GIB1 + KIB4,
	GIB1 + MIB2,
	GIB1 + 2 * MIB2,
	GIB1 + 2 * MIB2 + 300 * KIB4,
	2 * GIB1,
	2 * GIB1 + 5 * MIB2 + KIB4,
	3 * GIB1,
	4 * GIB1,
	4 * GIB1 + MIB2,
	GIB512 - GIB1,
	GIB512 - MIB2,
	GIB512 - 2 * KIB4,
	GIB512,
	GIB512 + 3 * KIB4,
	GIB512 + MIB2,
	GIB512 + 2 * MIB2,
	GIB512 + GIB1,
	2 * GIB512,
	3 * GIB512,
	3 * GIB512 + GIB1,
	3 * GIB512 + GIB1 + MIB2,
};

#define CUTS (sizeof(cuts) / sizeof(*cuts))

unsigned model_cell_count(void)
{
	return CUTS - 1;
}

uint64_t model_cut(unsigned cell)
{
	return cuts[cell];
}

struct gpa model_point(unsigned cell, unsigned point)
{
	uint64_t pages = (cuts[cell + 1] - cuts[cell]) / EPT_PAGE_BYTES;
	uint64_t page = 0;

	if (point == 1)
		page = pages - 1;
	else if (point == 2)
		page = pages / 3;
	else if (point == 3)
		page = pages / 3 + (pages > 1); /* beside the one before */
	return (struct gpa){cuts[cell] + page * EPT_PAGE_BYTES};
}

struct file_page model_file_page(const struct model *model, unsigned cell, struct gpa gpa)
{
	struct file_page page = model->cells[cell].first;

	page.page += (gpa.v - cuts[cell]) / EPT_PAGE_BYTES;
	return page;
}

bool model_any(const struct model *model, unsigned first, unsigned last)
{
	for (unsigned cell = first; cell < last; cell++)
		if (model->cells[cell].rights)
			return true;
	return false;
}

bool model_covers(const struct model *model, unsigned first, unsigned last)
{
	for (unsigned cell = first; cell < last; cell++)
		if (!model->cells[cell].rights)
			return false;
	return true;
}

void model_map(struct model *model, unsigned first, unsigned last, const struct ept_region *region)
{
	for (unsigned cell = first; cell < last; cell++) {
		uint64_t offset = (cuts[cell] - region->start.v) / EPT_PAGE_BYTES;

		model->cells[cell] = (struct model_cell){
			.rights = region->rights,
			.mode = region->mode,
			.first = {region->first.file, region->first.page + offset},
		};
	}
}

void model_unmap(struct model *model, unsigned first, unsigned last)
{
	for (unsigned cell = first; cell < last; cell++) {
		model->cells[cell].rights = 0;
		for (unsigned point = 0; point < MODEL_POINTS; point++)
			model->pages[cell][point].copied = false;
	}
}

void model_protect(struct model *model, unsigned first, unsigned last, unsigned rights)
{
	for (unsigned cell = first; cell < last; cell++)
		model->cells[cell].rights = rights;
}

enum ept_status model_access(const struct model *model, unsigned cell, unsigned access)
{
	if (!model->cells[cell].rights)
		return EPT_OUTSIDE;
	return model->cells[cell].rights & access ? EPT_OK : EPT_DENIED;
}

static uint64_t file_word(const struct model_files *files, struct file_page page, unsigned word)
{
	if (files->pages[page.file])
		return files->pages[page.file][page.page].words[word];
	return world_stamp(page.file, page.page, word);
}

/* Points of cells of a few pages can be one and the same page. */
static struct model_page *page_of(const struct model *model, unsigned cell, unsigned point)
{
	for (unsigned other = 0; other < point; other++)
		if (model_point(cell, other).v == model_point(cell, point).v)
			point = other;
	return (struct model_page *)&model->pages[cell][point];
}

uint64_t model_read(const struct model *model, const struct model_files *files, unsigned cell,
		    unsigned point, unsigned word)
{
	const struct model_page *page = page_of(model, cell, point);

	if (page->copied)
		return page->words[word];
	return file_word(files, model_file_page(model, cell, model_point(cell, point)), word);
}

void model_own(struct model *model, const struct model_files *files, unsigned cell, unsigned point)
{
	struct model_page *page = page_of(model, cell, point);

	if (model->cells[cell].mode == EPT_SHARED || page->copied)
		return;
	for (unsigned word = 0; word < PORT_WORDS; word++)
		page->words[word] = model_read(model, files, cell, point, word);
	page->copied = true;
}

void model_write(struct model *model, struct model_files *files, unsigned cell, unsigned point,
		 unsigned word, uint64_t value)
{
	struct file_page page = model_file_page(model, cell, model_point(cell, point));

	model_own(model, files, cell, point);
	if (model->cells[cell].mode == EPT_SHARED)
		files->pages[page.file][page.page].words[word] = value;
	else
		page_of(model, cell, point)->words[word] = value;
}

bool model_watched(const struct model_files *files, struct file_page page)
{
	return files->watched.file == page.file &&
	       page.page - files->watched.page < files->watched_count;
}

void model_move(struct model *model, unsigned cell, unsigned goal)
{
	model->cells[goal] = model->cells[cell];
	memcpy(model->pages[goal], model->pages[cell], sizeof(model->pages[cell]));
	model_unmap(model, cell, cell + 1);
}
