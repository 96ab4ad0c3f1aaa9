// SPDX-License-Identifier: MIT
/*
 * The checker finds what it is there to find: each violation is made by a store to the memory of
 * the tables, and must be reported under its name.
 */
#include <stdio.h>
#include <string.h>

#include "port.h"

#define AT    (UINT64_C(4) * GIB1)
#define PAGES (2 * MIB2 / KIB4)

/* Two guests with a leaf table in common, one of which has a page and a table of its own too. */
struct scene {
	struct world *world;
	uint32_t file;
	struct guest *a;
	struct guest *b;
	char reported[8192];
};

static void scene_create(struct scene *scene, void **state)
{
	struct world_options options = world_defaults(*state);

	memset(scene, 0, sizeof(*scene));
	scene->world = world_create(&options);
	scene->file = world_file(scene->world, PAGES, false);
	scene->a = guest_create(scene->world, 0, true);
	scene->b = guest_create(scene->world, 0, true);
	guest_must_map(scene->a, AT, 2 * MIB2, scene->file, 0, RWX);
	guest_must_map(scene->b, AT, 2 * MIB2, scene->file, 0, RWX);
	guest_must_read(scene->a, AT, world_stamp(scene->file, 0, 0));
	guest_must_read(scene->b, AT, world_stamp(scene->file, 0, 0));
	guest_must_write(scene->a, AT + MIB2, 1);
	guest_must_write(scene->a, AT + MIB2 + KIB4, 2);
	/* From here on the tests break what the world would find out. */
	scene->world->check_every = 0;
}

static void collect(void *context, const char *text)
{
	struct scene *scene = context;
	size_t used = strlen(scene->reported);

	snprintf(scene->reported + used, sizeof(scene->reported) - used, "%s\n", text);
}

static struct fpa entry_at(struct guest *guest, uint64_t gpa, unsigned level)
{
	struct fpa table = guest_table(guest, gpa, level);

	return (struct fpa){table.v + ept_entry_index((struct gpa){gpa}, level) * 8};
}

/* Stores @value, requires that the checker reports @name, and puts the old value back. */
static void must_report(struct scene *scene, struct fpa entry, uint64_t value, const char *name)
{
	uint64_t old = world_load(scene->world, entry);

	scene->reported[0] = 0;
	world_store(scene->world, entry, value);
	assert_true(ept_check(scene->world->ept, collect, scene) > 0);
	world_store(scene->world, entry, old);
	if (!strstr(scene->reported, name))
		port_fail(scene->world, "%s is not reported, but: %s", name, scene->reported);
	scene->reported[0] = 0;
	assert_int_equal(ept_check(scene->world->ept, collect, scene), 0);
}

static const struct ept_format *format_of(const struct scene *scene)
{
	return scene->world->format;
}

static void scene_destroy(struct scene *scene)
{
	world_destroy(scene->world);
}

static void a_sound_scene_has_no_violations(void **state)
{
	struct scene scene;

	scene_create(&scene, state);
	assert_int_equal(ept_check(scene.world->ept, collect, &scene), 0);
	assert_int_equal(ept_check(scene.world->ept, NULL, NULL), 0);
	assert_string_equal(scene.reported, "");
	scene_destroy(&scene);
}

/* One entry more than the count says, and one less. */
static void S1_a_wrong_use_count(void **state)
{
	struct scene scene;
	uint64_t entry;

	scene_create(&scene, state);
	entry = guest_entry(scene.a, AT + MIB2, 2);
	must_report(&scene, entry_at(scene.b, AT + MIB2, 2), entry, "S1");
	must_report(&scene, entry_at(scene.b, AT, 2), 0, "S1");
	scene_destroy(&scene);
}

static void S2_a_path_that_writes_to_a_shared_table(void **state)
{
	struct scene scene;
	uint64_t entry;

	scene_create(&scene, state);
	for (unsigned level = 2; level <= EPT_ROOT_LEVEL; level++) {
		entry = guest_entry(scene.b, AT, level);
		world_store(scene.world, entry_at(scene.b, AT, level),
			    ept_entry_with_write(format_of(&scene), entry, level > 2));
	}
	entry = guest_entry(scene.b, AT, 2);
	must_report(&scene, entry_at(scene.b, AT, 2),
		    ept_entry_with_write(format_of(&scene), entry, true), "S2");
	scene_destroy(&scene);
}

static void S2_a_shared_page_that_is_writable(void **state)
{
	struct scene scene;
	struct fpa at;
	uint64_t entry;

	scene_create(&scene, state);
	/* A clone that has written has its own tables, which map the first page as its parent's do.
	 */
	scene.b = guest_must_clone(scene.a);
	guest_must_write(scene.b, AT + MIB2 + KIB4, 3);
	at = entry_at(scene.b, AT + MIB2, 1);
	entry = world_load(scene.world, at);
	assert_false(ept_entry_writable(format_of(&scene), entry));
	must_report(&scene, at, ept_entry_with_write(format_of(&scene), entry, true), "S2");
	scene_destroy(&scene);
}

static void S3_a_page_mapped_twice_or_not_at_all(void **state)
{
	struct scene scene;
	uint64_t entry;

	scene_create(&scene, state);
	entry = guest_entry(scene.a, AT + MIB2, 1);
	must_report(&scene, entry_at(scene.a, AT + MIB2 + KIB4, 1), entry, "S3");
	must_report(&scene, entry_at(scene.a, AT + MIB2, 1), 0, "S3");
	scene_destroy(&scene);
}

static void S4_an_entry_for_a_free_page(void **state)
{
	struct scene scene;
	struct fpa page;
	uint64_t entry;

	scene_create(&scene, state);
	page = ept_entry_target(format_of(&scene), guest_entry(scene.a, AT + MIB2, 1));
	/* The last page of the pool has never been used. */
	page.v += (scene.world->page_count - 8) * KIB4;
	entry = ept_entry_leaf(format_of(&scene), page, RWX);
	must_report(&scene, entry_at(scene.a, AT + MIB2, 1), entry, "S4");
	/* The page of a guest that has ended is in quarantine, and then free. */
	page = ept_entry_target(format_of(&scene), guest_entry(scene.a, AT + MIB2 + KIB4, 1));
	assert_int_equal(guest_unmap(scene.a, AT + MIB2 + KIB4, KIB4), EPT_OK);
	entry = ept_entry_leaf(format_of(&scene), page, RWX);
	must_report(&scene, entry_at(scene.a, AT + MIB2, 1), entry, "S4");
	world_scrub_all(scene.world);
	must_report(&scene, entry_at(scene.a, AT + MIB2, 1), entry, "S4");
	scene_destroy(&scene);
}

static void S4_an_entry_for_a_free_table(void **state)
{
	struct scene scene;
	struct fpa table, at;
	uint64_t entry;

	scene_create(&scene, state);
	table = guest_table(scene.a, AT + MIB2, 1);
	at = entry_at(scene.a, AT + MIB2, 2);
	assert_int_equal(guest_unmap(scene.a, AT + MIB2, MIB2), EPT_OK);
	entry = ept_entry_table(format_of(&scene), table, EPT_READ);
	must_report(&scene, at, entry, "S4");
	world_scrub_all(scene.world);
	must_report(&scene, at, entry, "S4");
	/* Neither a table nor anything else. */
	table.v = UINT64_C(1) << 50;
	must_report(&scene, at, ept_entry_table(format_of(&scene), table, EPT_READ), "S4");
	scene_destroy(&scene);
}

static void S5_another_page_than_the_region_shows(void **state)
{
	struct scene scene;
	uint64_t entry;

	scene_create(&scene, state);
	entry = guest_entry(scene.b, AT + KIB4, 1);
	must_report(&scene, entry_at(scene.b, AT, 1), entry, "S5");
	must_report(&scene, entry_at(scene.a, AT + MIB2 + 2 * KIB4, 1), entry, "S5");
	scene_destroy(&scene);
}

static void S5_more_rights_than_the_region_grants(void **state)
{
	struct scene scene;
	struct fpa page, at;

	scene_create(&scene, state);
	assert_int_equal(guest_protect(scene.a, AT + MIB2, MIB2, EPT_READ), EPT_OK);
	guest_must_read(scene.a, AT + MIB2, 1);
	at = entry_at(scene.a, AT + MIB2, 1);
	page = ept_entry_target(format_of(&scene), world_load(scene.world, at));
	must_report(&scene, at, ept_entry_leaf(format_of(&scene), page, RX), "S5");
	scene_destroy(&scene);
}

static void S5_something_outside_of_all_regions(void **state)
{
	struct scene scene;
	struct fpa at, page;

	scene_create(&scene, state);
	assert_int_equal(guest_unmap(scene.a, AT + MIB2 + 8 * KIB4, KIB4), EPT_OK);
	at = entry_at(scene.a, AT + MIB2 + 8 * KIB4, 1);
	page = world_file_page(scene.world, scene.file, EPT_ENTRIES + 8);
	must_report(&scene, at, ept_entry_leaf(format_of(&scene), page, EPT_READ), "S5");
	scene_destroy(&scene);
}

static void S7_the_reverse_map_and_the_tables_differ(void **state)
{
	struct scene scene;
	uint64_t entry;

	scene_create(&scene, state);
	/* A page's entry that the map knows and the walk does not find. */
	must_report(&scene, entry_at(scene.b, AT + 5 * KIB4, 1), 0, "S7");
	/* The other way round, for a table. */
	entry = guest_entry(scene.a, AT + MIB2, 2);
	must_report(&scene, entry_at(scene.b, AT + MIB2, 2), entry, "S7");
	/* And for a page: the entry of another one. */
	entry = guest_entry(scene.b, AT, 1);
	must_report(&scene, entry_at(scene.b, AT + KIB4, 1), entry, "S7");
	scene_destroy(&scene);
}

static void S8_a_table_at_two_levels(void **state)
{
	struct scene scene;
	struct fpa table;

	scene_create(&scene, state);
	for (unsigned level = 2; level <= EPT_ROOT_LEVEL; level++) {
		table = guest_table(scene.a, AT, level);
		must_report(&scene, entry_at(scene.a, AT + MIB2, 2),
			    ept_entry_table(format_of(&scene), table, EPT_READ), "S8");
	}
	scene_destroy(&scene);
}

static void S8_a_table_that_is_not_what_the_index_says(void **state)
{
	struct scene scene;
	struct fpa page;

	scene_create(&scene, state);
	page = world_file_page(scene.world, scene.file, 77);
	must_report(&scene, entry_at(scene.b, AT + 5 * KIB4, 1),
		    ept_entry_leaf(format_of(&scene), page, RX), "S8");
	scene_destroy(&scene);
}

/* Also one in a place that no path could write through: the file would be one mistake away. */
static void S9_a_writable_entry_for_a_private_file(void **state)
{
	struct scene scene;
	struct fpa at;
	uint64_t entry;

	scene_create(&scene, state);
	at = entry_at(scene.a, AT + MIB2 + 9 * KIB4, 1);
	entry = world_load(scene.world, at);
	must_report(&scene, at, ept_entry_with_write(format_of(&scene), entry, true), "S9");
	at = entry_at(scene.b, AT + 9 * KIB4, 1);
	entry = world_load(scene.world, at);
	must_report(&scene, at, ept_entry_with_write(format_of(&scene), entry, true), "S9");
	scene_destroy(&scene);
}

/* An entry of 2 MiB that a private region of all rights has for @page of the scene's file. */
static uint64_t large_entry(const struct scene *scene, uint64_t page, unsigned rights)
{
	return ept_entry_large_leaf(format_of(scene),
				    world_file_page(scene->world, scene->file, page), rights);
}

/*
 * Two guests with a table of 2 MiB entries in common, 1 GiB at LARGE; and one with its own, at
 * LARGE2, whose last half span has 4 KiB entries. The third entry there is absent, the first is
 * broken.
 */
#define LARGE  (UINT64_C(8) * GIB1)
#define LARGE2 (UINT64_C(10) * GIB1)

static void large_scene_create(struct scene *scene, void **state)
{
	struct ept_region region;

	scene_create(scene, state);
	scene->file = world_file(scene->world, 2 * GIB1 / KIB4, false);
	region = region_of(LARGE, GIB1, scene->file, 0, RWX);
	region.large = true;
	assert_int_equal(guest_map(scene->a, &region), EPT_OK);
	assert_int_equal(guest_map(scene->b, &region), EPT_OK);
	guest_must_read(scene->a, LARGE, world_stamp(scene->file, 0, 0));
	guest_must_read(scene->b, LARGE, world_stamp(scene->file, 0, 0));
	region = region_of(LARGE2, 4 * MIB2 + MIB2 / 2, scene->file, 0, RWX);
	region.large = true;
	assert_int_equal(guest_map(scene->a, &region), EPT_OK);
	guest_must_read(scene->a, LARGE2, world_stamp(scene->file, 0, 0));
	guest_must_write(scene->a, LARGE2, 1);
	assert_int_equal(guest_protect(scene->a, LARGE2 + 2 * MIB2, MIB2, RX), EPT_OK);
	assert_int_equal(guest_protect(scene->a, LARGE2 + 2 * MIB2, MIB2, RWX), EPT_OK);
	assert_int_equal(guest_entry(scene->a, LARGE2 + 2 * MIB2, 2), 0);
	world_check(scene->world);
}

static void S5_a_2_mib_entry_beyond_its_region(void **state)
{
	struct scene scene;

	large_scene_create(&scene, state);
	must_report(&scene, entry_at(scene.a, LARGE2 + 4 * MIB2, 2),
		    large_entry(&scene, 4 * EPT_ENTRIES, RX), "reaches beyond its region");
	/* Outside of all regions. */
	must_report(&scene, entry_at(scene.a, LARGE2 + 5 * MIB2, 2),
		    large_entry(&scene, 5 * EPT_ENTRIES, RX), "outside of all regions");
	scene_destroy(&scene);
}

static void S5_a_2_mib_entry_in_a_region_of_4_kib_ones(void **state)
{
	struct ept_region region;
	struct scene scene;

	large_scene_create(&scene, state);
	region = region_of(LARGE2 + 8 * MIB2, MIB2, scene.file, 8 * EPT_ENTRIES, RWX);
	assert_int_equal(guest_map(scene.a, &region), EPT_OK);
	must_report(&scene, entry_at(scene.a, LARGE2 + 8 * MIB2, 2),
		    large_entry(&scene, 8 * EPT_ENTRIES, RX), "should not be large");
	/* One that asks for them but is not aligned for them. */
	region = region_of(LARGE2 + 9 * MIB2, 2 * MIB2, scene.file, 1, RWX);
	region.large = true;
	assert_int_equal(guest_map(scene.a, &region), EPT_OK);
	must_report(&scene, entry_at(scene.a, LARGE2 + 9 * MIB2, 2), large_entry(&scene, 0, RX),
		    "should not be large");
	scene_destroy(&scene);
}

static void S5_a_2_mib_entry_for_another_page(void **state)
{
	struct scene scene;

	large_scene_create(&scene, state);
	must_report(&scene, entry_at(scene.a, LARGE2 + MIB2, 2),
		    large_entry(&scene, 2 * EPT_ENTRIES, RX), "its region shows page 512");
	must_report(&scene, entry_at(scene.b, LARGE + 7 * MIB2, 2),
		    large_entry(&scene, 8 * EPT_ENTRIES, RX), "its region shows page 3584");
	scene_destroy(&scene);
}

static void S5_a_2_mib_entry_of_other_rights(void **state)
{
	struct scene scene;

	large_scene_create(&scene, state);
	must_report(&scene, entry_at(scene.a, LARGE2 + MIB2, 2),
		    large_entry(&scene, EPT_ENTRIES, EPT_READ), "S5");
	scene_destroy(&scene);
}

/* The page goes from its place in the table of 4 KiB entries into one of 2 MiB, with 511 others. */
static void S5_a_2_mib_entry_for_private_pages(void **state)
{
	struct scene scene;
	struct fpa from, page;
	uint64_t entry;

	large_scene_create(&scene, state);
	from = entry_at(scene.a, AT + MIB2, 1);
	entry = world_load(scene.world, from);
	page = ept_entry_target(format_of(&scene), entry);
	assert_int_equal(page.v % MIB2, 0);
	world_store(scene.world, from, 0);
	scene.reported[0] = 0;
	world_store(scene.world, entry_at(scene.a, LARGE2 + 2 * MIB2, 2),
		    ept_entry_large_leaf(format_of(&scene), page, RX));
	assert_true(ept_check(scene.world->ept, collect, &scene) > 0);
	world_store(scene.world, entry_at(scene.a, LARGE2 + 2 * MIB2, 2), 0);
	world_store(scene.world, from, entry);
	assert_non_null(strstr(scene.reported, "S5"));
	scene_destroy(&scene);
}

static void S4_a_2_mib_entry_for_no_memory(void **state)
{
	struct scene scene;
	struct fpa page = {UINT64_C(1) << 50};

	large_scene_create(&scene, state);
	must_report(&scene, entry_at(scene.a, LARGE2 + MIB2, 2),
		    ept_entry_large_leaf(format_of(&scene), page, RX), "S4");
	scene_destroy(&scene);
}

static void S7_a_2_mib_entry_that_the_reverse_map_does_not_know(void **state)
{
	struct scene scene;

	large_scene_create(&scene, state);
	must_report(&scene, entry_at(scene.a, LARGE2 + 2 * MIB2, 2),
		    large_entry(&scene, 2 * EPT_ENTRIES, RX), "the reverse map does not know");
	/* One that it knows and the walk does not find. */
	must_report(&scene, entry_at(scene.a, LARGE2 + 3 * MIB2, 2), 0,
		    "S7: the reverse map knows");
	must_report(&scene, entry_at(scene.b, LARGE + 3 * MIB2, 2), 0, "S7: the reverse map knows");
	/* A large one in the place of a table, which loses its user. */
	must_report(&scene, entry_at(scene.a, LARGE2, 2), large_entry(&scene, 0, RX), "S7");
	must_report(&scene, entry_at(scene.a, LARGE2, 2), large_entry(&scene, 0, RX), "S1");
	scene_destroy(&scene);
}

static void S8_a_2_mib_entry_that_is_not_what_the_index_says(void **state)
{
	struct scene scene;

	large_scene_create(&scene, state);
	must_report(&scene, entry_at(scene.b, LARGE + 5 * MIB2, 2),
		    large_entry(&scene, 6 * EPT_ENTRIES, RX), "S8");
	must_report(&scene, entry_at(scene.b, LARGE + 5 * MIB2, 2),
		    large_entry(&scene, 5 * EPT_ENTRIES, RWX), "S8");
	scene_destroy(&scene);
}

static void S9_a_writable_2_mib_entry_for_a_private_file(void **state)
{
	struct scene scene;

	large_scene_create(&scene, state);
	must_report(&scene, entry_at(scene.a, LARGE2 + MIB2, 2),
		    large_entry(&scene, EPT_ENTRIES, RWX), "S9");
	must_report(&scene, entry_at(scene.b, LARGE + 5 * MIB2, 2),
		    large_entry(&scene, 5 * EPT_ENTRIES, RWX), "S9");
	scene_destroy(&scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH_FORMAT(a_sound_scene_has_no_violations),
		EACH_FORMAT(S1_a_wrong_use_count),
		EACH_FORMAT(S2_a_path_that_writes_to_a_shared_table),
		EACH_FORMAT(S2_a_shared_page_that_is_writable),
		EACH_FORMAT(S3_a_page_mapped_twice_or_not_at_all),
		EACH_FORMAT(S4_an_entry_for_a_free_page),
		EACH_FORMAT(S4_an_entry_for_a_free_table),
		EACH_FORMAT(S5_another_page_than_the_region_shows),
		EACH_FORMAT(S5_more_rights_than_the_region_grants),
		EACH_FORMAT(S5_something_outside_of_all_regions),
		EACH_FORMAT(S7_the_reverse_map_and_the_tables_differ),
		EACH_FORMAT(S8_a_table_at_two_levels),
		EACH_FORMAT(S8_a_table_that_is_not_what_the_index_says),
		EACH_FORMAT(S9_a_writable_entry_for_a_private_file),
		EACH_FORMAT(S4_a_2_mib_entry_for_no_memory),
		EACH_FORMAT(S5_a_2_mib_entry_beyond_its_region),
		EACH_FORMAT(S5_a_2_mib_entry_in_a_region_of_4_kib_ones),
		EACH_FORMAT(S5_a_2_mib_entry_for_another_page),
		EACH_FORMAT(S5_a_2_mib_entry_of_other_rights),
		EACH_FORMAT(S5_a_2_mib_entry_for_private_pages),
		EACH_FORMAT(S7_a_2_mib_entry_that_the_reverse_map_does_not_know),
		EACH_FORMAT(S8_a_2_mib_entry_that_is_not_what_the_index_says),
		EACH_FORMAT(S9_a_writable_2_mib_entry_for_a_private_file),
	};

	return cmocka_run_group_tests_name("ept.check", tests, NULL, NULL);
}
