/* SPDX-License-Identifier: MIT */
/*
 * The flat model of guests' memory for the random test. The address space is cut into cells by a
 * fixed list of addresses; operations take whole cells, so all pages of a cell are in one region,
 * and accesses go to a few pages of each cell. What a page reads as is then a matter of two arrays.
 */
#ifndef RANDOM_MODEL_H
#define RANDOM_MODEL_H

#include "port.h"

#define MODEL_CELLS  48
#define MODEL_POINTS 4 /* per cell */
#define MODEL_FILES  6

/* What a cell's pages show; rights 0 for nothing. */
struct model_cell {
	unsigned rights;
	enum ept_mode mode;
	struct file_page first;
};

struct model_page {
	bool copied; /* the guest has its own */
	uint64_t words[PORT_WORDS];
};

struct model {
	struct model_cell cells[MODEL_CELLS];
	struct model_page pages[MODEL_CELLS][MODEL_POINTS];
};

/* Memory files that can be written: contents by page, shared by all guests. */
struct model_files {
	struct page *pages[MODEL_FILES]; /* NULL if it is not writable */
	struct file_page watched;	 /* the first of them */
	uint64_t watched_count;
};

bool model_watched(const struct model_files *files, struct file_page page);
/* The cell's pages are those of @goal now, a cell of the same size. */
void model_move(struct model *model, unsigned cell, unsigned goal);

unsigned model_cell_count(void);
uint64_t model_cut(unsigned cell);
/* A page of the cell: its first, its last, or one of two in between. */
struct gpa model_point(unsigned cell, unsigned point);

struct file_page model_file_page(const struct model *model, unsigned cell, struct gpa gpa);
bool model_any(const struct model *model, unsigned first, unsigned last);
bool model_covers(const struct model *model, unsigned first, unsigned last);
void model_map(struct model *model, unsigned first, unsigned last, const struct ept_region *region);
void model_unmap(struct model *model, unsigned first, unsigned last);
void model_protect(struct model *model, unsigned first, unsigned last, unsigned rights);

/* What an access to a point must end with, in a space that is not frozen. */
enum ept_status model_access(const struct model *model, unsigned cell, unsigned access);
uint64_t model_read(const struct model *model, const struct model_files *files, unsigned cell,
		    unsigned point, unsigned word);
/* A write fault: a private page becomes the guest's own. */
void model_own(struct model *model, const struct model_files *files, unsigned cell, unsigned point);
void model_write(struct model *model, struct model_files *files, unsigned cell, unsigned point,
		 unsigned word, uint64_t value);

#endif
