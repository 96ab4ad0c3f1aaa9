// SPDX-License-Identifier: MIT
/* Other people's bugs, each as a test of its own that carries its name (docs/sharing.md). */
#include "ept_internal.h"
#include "port.h"

#define AT    (UINT64_C(4) * GIB1)
#define PAGES (8 * MIB2 / KIB4)

static struct world *world_of(void **state)
{
	struct world_options options = world_defaults(*state);

	return world_create(&options);
}

static struct guest *guest_with(struct world *world, uint64_t start, uint64_t bytes, uint32_t file,
				unsigned rights)
{
	struct guest *guest = guest_create(world, 0, true);

	guest_must_map(guest, start, bytes, file, 0, rights);
	return guest;
}

static struct ept_usage usage_of(struct world *world)
{
	struct ept_usage usage;

	ept_usage(world->ept, &usage);
	return usage;
}

static struct ept_counters counters_of(struct world *world)
{
	struct ept_counters counters;

	ept_counters(world->ept, &counters);
	return counters;
}

/* A fault that another thread takes while this one is in the middle of an operation. */
struct other_fault {
	struct guest *guest;
	uint64_t gpa;
	unsigned access;
	enum ept_status status;
};

static void *other_thread(void *argument)
{
	struct other_fault *fault = argument;

	fault->status = guest_fault(fault->guest, fault->gpa, fault->access);
	return NULL;
}

/* No checks meanwhile: they want to be alone with the engine. */
static enum ept_status fault_in_other_thread(struct guest *guest, uint64_t gpa, unsigned access)
{
	struct other_fault fault = {guest, gpa, access, EPT_INVALID};
	unsigned check_every = guest->world->check_every;
	pthread_t thread;

	guest->world->check_every = 0;
	assert_int_equal(pthread_create(&thread, NULL, other_thread, &fault), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	guest->world->check_every = check_every;
	return fault.status;
}

/* Another guest needs a table, and there is none but those that an operation is about to drop. */
static void a4a118f2eead_no_table_is_reused_before_its_flush(void **state)
{
	struct world_options options = world_defaults(*state);
	struct ept_change change = {0};
	struct tally tally = {0};
	struct world *world;
	struct guest *a, *b;
	uint32_t file;

	options.tables = 8;
	world = world_create(&options);
	file = world_file(world, PAGES, false);
	a = guest_with(world, AT, MIB2, file, RWX);
	b = guest_with(world, 0, 2 * MIB2, file, RX);
	guest_must_read(a, AT, world_stamp(file, 0, 0));
	guest_must_read(b, 0, world_stamp(file, 0, 0));
	assert_int_equal(ept_space_unmap(a->space, (struct gpa){AT}, MIB2, &change), EPT_OK);
	assert_int_equal(fault_in_other_thread(b, MIB2, EPT_READ), EPT_NO_TABLE);
	world_commit(world, &change, &tally);
	assert_int_equal(fault_in_other_thread(b, MIB2, EPT_READ), EPT_NO_TABLE);
	while (ept_change_finish(&change) == EPT_MORE)
		world_commit(world, &change, &tally);
	/* Dropped, and in quarantine. */
	assert_int_equal(fault_in_other_thread(b, MIB2, EPT_READ), EPT_NO_TABLE);
	assert_int_equal(ept_scrub(world->ept, 8, &change), EPT_OK);
	assert_int_equal(fault_in_other_thread(b, MIB2, EPT_READ), EPT_NO_TABLE);
	world_commit(world, &change, &tally);
	assert_int_equal(ept_change_finish(&change), EPT_OK);
	ept_change_free(&change);
	guest_must_read(b, MIB2, world_stamp(file, EPT_ENTRIES, 0));
	world_destroy(world);
}

static void a4a118f2eead_no_page_is_reused_before_its_flush(void **state)
{
	struct world_options options = world_defaults(*state);
	struct ept_change change = {0};
	struct tally tally = {0};
	struct world *world;
	struct guest *a, *b;
	uint32_t file;

	options.pages = 1;
	world = world_create(&options);
	file = world_file(world, PAGES, false);
	a = guest_with(world, AT, MIB2, file, RWX);
	b = guest_with(world, AT, MIB2, file, RWX);
	guest_must_write(a, AT, 1);
	assert_int_equal(guest_write(b, AT, 2), EPT_NO_PAGE);
	assert_int_equal(ept_space_unmap(a->space, (struct gpa){AT}, KIB4, &change), EPT_OK);
	world_commit(world, &change, &tally);
	assert_int_equal(fault_in_other_thread(b, AT, EPT_WRITE), EPT_NO_PAGE);
	while (ept_change_finish(&change) == EPT_MORE)
		world_commit(world, &change, &tally);
	ept_change_free(&change);
	assert_int_equal(guest_write(b, AT, 2), EPT_NO_PAGE);
	world_scrub_all(world);
	guest_must_write(b, AT, 2);
	guest_must_read(b, AT + 8, world_stamp(file, 0, 1));
	world_destroy(world);
}

/* A page's count is of leaf entries, a table's of upper ones: neither is the other, nor of guests.
 */
static void CVE_2024_57883_counts_of_tables_and_pages_are_apart(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file, RWX);
	struct ept_space_usage usage;
	struct guest *clones[4];

	guest_must_write(a, AT, 1);
	for (unsigned i = 0; i < 4; i++)
		clones[i] = guest_must_clone(a);
	/* Five guests, one leaf table, one page. */
	assert_int_equal(usage_of(world).tables[1], 1);
	assert_int_equal(usage_of(world).pages, 1);
	guest_must_write(clones[0], AT + KIB4, 2);
	/* Now two leaf tables map the page, one of which four guests use. */
	ept_space_usage(clones[0]->space, &usage);
	assert_int_equal(usage.pages_shared, 1);
	assert_int_equal(usage.pages_alone, 1);
	for (unsigned i = 1; i < 4; i++)
		guest_destroy(clones[i]);
	guest_destroy(a);
	/* The page is the last guest's alone, and it writes to it without a copy. */
	guest_must_write(clones[0], AT, 3);
	assert_int_equal(usage_of(world).pages, 2);
	world_destroy(world);
}

/* Everything that asks "is it shared?" gets one answer: at three users, at two, and at one. */
static void CVE_2026_23100_all_agree_on_what_is_shared(void **state)
{
	for (unsigned others = 0; others < 3; others++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, false);
		struct guest *a = guest_with(world, AT, MIB2, file, RWX);
		struct ept_counters before;
		struct ept_space_usage usage;
		uint64_t expected = others ? 4 : 0;
		struct guest *clones[2];

		guest_must_write(a, AT, 1);
		for (unsigned i = 0; i < 2; i++)
			clones[i] = guest_must_clone(a);
		for (unsigned i = others; i < 2; i++)
			guest_destroy(clones[i]);
		ept_space_usage(a->space, &usage);
		assert_int_equal(usage.tables_shared, expected);
		assert_int_equal(usage.pages_shared, others ? 1 : 0);
		before = counters_of(world);
		assert_int_equal(guest_unmap(a, AT, KIB4), EPT_OK);
		assert_int_equal(counters_of(world).tables_copied - before.tables_copied, expected);
		assert_int_equal(usage_of(world).pages, others ? 1 : 0);
		for (unsigned i = 0; i < others; i++)
			guest_must_read(clones[i], AT, 1);
		world_destroy(world);
	}
}

/*
 * The same for each table below the root: it was used by two guests, and one of them has ended. The
 * other has tables of its own above it, and everything else is its own too.
 */
static void CVE_2026_23100_all_agree_on_lower_tables(void **state)
{
	for (unsigned level = 1; level < EPT_ROOT_LEVEL; level++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, false);
		struct guest *a = guest_with(world, AT, MIB2, file, RWX);
		uint64_t beside = AT + ept_table_span(level);
		struct ept_space_usage usage;
		struct ept_counters before;
		struct guest *clone;

		guest_must_map(a, beside, MIB2, file, 0, RWX);
		guest_must_write(a, AT, 1);
		guest_must_write(a, AT + KIB4, 2);
		clone = guest_must_clone(a);
		guest_must_write(a, beside, 3);
		ept_space_usage(a->space, &usage);
		assert_int_equal(usage.tables_shared, level);
		guest_destroy(clone);
		ept_space_usage(a->space, &usage);
		assert_int_equal(usage.tables_shared, 0);
		assert_int_equal(usage.pages_shared, 0);
		before = counters_of(world);
		assert_int_equal(guest_protect(a, AT, KIB4, EPT_READ), EPT_OK);
		assert_int_equal(guest_unmap(a, AT, KIB4), EPT_OK);
		guest_must_write(a, AT + KIB4, 4);
		assert_int_equal(counters_of(world).tables_copied, before.tables_copied);
		assert_int_equal(counters_of(world).pages_copied, before.pages_copied);
		world_destroy(world);
	}
}

/*
 * An unmap has made the table of its first edge its own, which was nobody else's and in the share
 * index, and is about to copy the one of its last edge. A guest that looks into the index now must
 * not find the first one: it is going to lose half of its entries.
 */
static void CVE_2025_38084_what_is_unshared_cannot_be_shared_again(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, 3 * MIB2, file, RX);
	struct guest *b = guest_with(world, AT, 3 * MIB2, file, RX);
	struct guest *c = guest_with(world, AT, 3 * MIB2, file, RX);
	struct ept_change change = {0};
	struct tally tally = {0};

	guest_must_read(a, AT, world_stamp(file, 0, 0));
	guest_must_read(a, AT + 2 * MIB2, world_stamp(file, 2 * EPT_ENTRIES, 0));
	guest_must_read(b, AT + 2 * MIB2, world_stamp(file, 2 * EPT_ENTRIES, 0));
	assert_int_equal(ept_space_unmap(a->space, (struct gpa){AT + MIB2 / 2}, 2 * MIB2, &change),
			 EPT_OK);
	world_commit(world, &change, &tally);
	assert_int_equal(fault_in_other_thread(c, AT, EPT_READ), EPT_OK);
	while (ept_change_finish(&change) == EPT_MORE)
		world_commit(world, &change, &tally);
	ept_change_free(&change);
	world_check(world);
	assert_int_not_equal(guest_table(a, AT, 1).v, guest_table(c, AT, 1).v);
	guest_must_read(c, AT + MIB2 - KIB4, world_stamp(file, EPT_ENTRIES - 1, 0));
	assert_int_equal(guest_exec(a, AT + MIB2 - KIB4), EPT_OUTSIDE);
	world_destroy(world);
}

/*
 * Memory runs out below a table that the same fault has found in the index and locked: what was
 * prepared must be dropped without waiting for that lock.
 */
static void pKVM_8ed0fbe54046_failure_below_a_table_just_found(void **state)
{
	struct world_options options = world_defaults(*state);
	struct world *world;
	struct guest *a, *b;
	uint64_t value;
	uint32_t file;

	/* Root, PDPT, PD and PT of one guest; root and PDPT of the other. */
	options.tables = 6;
	world = world_create(&options);
	file = world_file(world, GIB1 / KIB4, false);
	a = guest_with(world, AT, GIB1, file, RX);
	b = guest_with(world, AT, GIB1, file, RX);
	guest_must_read(a, AT, world_stamp(file, 0, 0));
	assert_int_equal(guest_read(b, AT + MIB2, &value), EPT_NO_TABLE);
	assert_int_equal(guest_table(b, AT, 3).v, 0);
	guest_must_read(b, AT, world_stamp(file, 0, 0));
	world_destroy(world);
}

/* After the unmap of a part, guests that come later find the whole, not what is left. */
static void CVE_2025_38084_a_changed_table_is_not_found(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file, RX);
	struct guest *b = guest_with(world, AT, MIB2, file, RX);

	guest_must_read(a, AT, world_stamp(file, 0, 0));
	assert_int_equal(guest_unmap(a, AT + 16 * KIB4, KIB4), EPT_OK);
	guest_must_read(b, AT + 16 * KIB4, world_stamp(file, 16, 0));
	assert_int_equal(guest_exec(a, AT + 16 * KIB4), EPT_OUTSIDE);
	world_destroy(world);
}

/* own.c, keep(): a table that nobody else has is not copied, and must not be found any more. */
static void CVE_2025_38084_a_kept_table_is_not_found(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file, RWX);
	struct fpa table;
	struct guest *b;

	guest_must_read(a, AT, world_stamp(file, 0, 0));
	assert_int_equal(usage_of(world).indexed, 1);
	table = guest_table(a, AT, 1);
	guest_must_write(a, AT, 1);
	assert_int_equal(guest_table(a, AT, 1).v, table.v);
	assert_int_equal(usage_of(world).indexed, 0);
	b = guest_with(world, AT, MIB2, file, RWX);
	guest_must_read(b, AT, world_stamp(file, 0, 0));
	world_destroy(world);
}

/* Rights are part of what is looked for, in both orders, and a right taken away stays away. */
static void b1bd5cba3306_other_rights_other_table(void **state)
{
	static const unsigned all[] = {EPT_READ, RX, RW, RWX};

	for (unsigned first = 0; first < 4; first++)
		for (unsigned second = 0; second < 4; second++) {
			struct world *world = world_of(state);
			uint32_t file = world_file(world, PAGES, false);
			struct guest *a = guest_with(world, AT, MIB2, file, all[first]);
			struct guest *b = guest_with(world, AT, MIB2, file, all[second]);

			guest_must_read(a, AT, world_stamp(file, 0, 0));
			guest_must_read(b, AT, world_stamp(file, 0, 0));
			assert_int_equal(guest_table(a, AT, 1).v == guest_table(b, AT, 1).v,
					 first == second);
			assert_int_equal(guest_exec(b, AT),
					 all[second] & EPT_EXEC ? EPT_OK : EPT_DENIED);
			assert_int_equal(guest_write(b, AT, 1),
					 all[second] & EPT_WRITE ? EPT_OK : EPT_DENIED);
			guest_must_read(a, AT, world_stamp(file, 0, 0));
			world_destroy(world);
		}
}

/* Guests that differ in one part of the key: domain, rights, mode; with the first as it is. */
static const struct {
	uint32_t domain;
	unsigned rights;
	enum ept_mode mode;
} keys[] = {
	{0, RW, EPT_PRIVATE},
	{1, RW, EPT_PRIVATE},
	{0, EPT_READ, EPT_PRIVATE},
	{0, RW, EPT_SHARED},
};

#define KEYS (sizeof(keys) / sizeof(*keys))

/*
 * In a small index keys that differ meet in one chain now and then, of hundreds of keys for
 * certain; then it is the comparison that must tell them apart, not the hash.
 */
static void S8_every_part_of_the_key_counts(void **state)
{
	struct world_options options = world_defaults(*state);
	struct world *world;
	uint32_t file;

	options.tables = 32;
	world = world_create(&options);
	/* The point is how often keys meet, not what the checker says of each of the guests. */
	world->check_every = 128;
	file = world_file(world, GIB1 / KIB4, true);
	for (uint64_t page = 0; page < GIB1 / KIB4; page += EPT_ENTRIES) {
		struct guest *guests[KEYS];

		for (unsigned k = 0; k < KEYS; k++) {
			struct ept_region region = region_of(AT, MIB2, file, page, keys[k].rights);

			region.mode = keys[k].mode;
			guests[k] = guest_create(world, keys[k].domain, true);
			assert_int_equal(guest_map(guests[k], &region), EPT_OK);
			guest_must_read(guests[k], AT, world_stamp(file, page, 0));
		}
		assert_int_equal(counters_of(world).tables_shared, 0);
		for (unsigned k = 0; k < KEYS; k++)
			guest_destroy(guests[k]);
		world_scrub_all(world);
	}
	world_destroy(world);
}

/* What one key has and another has not, in each part of it. */
static void change_key(struct ept_key *key, unsigned part, unsigned by)
{
	switch (part) {
	case 0:
		key->domain += by;
		break;
	case 1:
		key->first.file += by;
		break;
	case 2:
		key->first.page += by;
		break;
	case 3:
		key->level = (uint8_t)(key->level + by);
		break;
	case 4:
		key->rights = (uint8_t)(key->rights + by);
		break;
	case 5:
		key->mode = (uint8_t)(key->mode + by);
		break;
	default:
		key->large = !key->large;
	}
}

#define KEY_PARTS 7

/*
 * Tables with keys that no guest has, in an index of 64 chains: among so many every part is at some
 * time the only one in which two keys of one chain differ.
 */
static void S8_keys_that_differ_in_one_part_find_nothing(void **state)
{
	enum { TABLES = 32, PART_ROUNDS = 20 };
	struct world_options options = world_defaults(*state);
	struct ept_table *tables[TABLES];
	struct world *world;

	options.tables = 64;
	world = world_create(&options);
	for (unsigned round = 0; round < PART_ROUNDS; round++) {
		for (unsigned i = 0; i < TABLES; i++) {
			tables[i] = ept_table_take(world->ept, 1);
			assert_non_null(tables[i]);
			tables[i]->key = (struct ept_key){
				.first = {i, (uint64_t)round * EPT_ENTRIES},
				.level = 1,
				.rights = RW,
			};
			ept_index_add(world->ept, tables[i]);
		}
		for (unsigned i = 0; i < TABLES * KEY_PARTS; i++) {
			struct ept_key key = tables[i / KEY_PARTS]->key;

			assert_ptr_equal(ept_index_get(world->ept, &key), tables[i / KEY_PARTS]);
			ept_table_put(world->ept, tables[i / KEY_PARTS]);
			/* Beyond the files of all, and another step for each. */
			change_key(&key, i % KEY_PARTS, TABLES + (round * TABLES + i) % 200);
			assert_null(ept_index_get(world->ept, &key));
		}
		for (unsigned i = 0; i < TABLES; i++)
			ept_table_put(world->ept, tables[i]);
		world_scrub_all(world);
	}
	world_destroy(world);
}

/* The same file under two rights within one guest. */
static void b1bd5cba3306_two_rights_in_one_guest(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file, RWX);

	guest_must_map(a, AT + GIB1, MIB2, file, 0, EPT_READ);
	guest_must_write(a, AT, 1);
	guest_must_read(a, AT + GIB1, world_stamp(file, 0, 0));
	assert_int_equal(guest_write(a, AT + GIB1, 2), EPT_DENIED);
	assert_int_equal(guest_exec(a, AT + GIB1), EPT_DENIED);
	assert_int_equal(guest_exec(a, AT), EPT_OK);
	world_destroy(world);
}

/* Letting go of many shared tables asks for no more invalidations than letting go of one. */
static void bug_8ce720d5bd91_invalidations_are_batched(void **state)
{
	unsigned needed[2];

	for (unsigned i = 0; i < 2; i++) {
		struct world *world = world_of(state);
		uint32_t file = world_file(world, PAGES, false);
		uint64_t bytes = i ? 8 * MIB2 : MIB2;
		struct guest *guests[2];

		for (unsigned g = 0; g < 2; g++) {
			guests[g] = guest_with(world, AT, 8 * MIB2, file, RX);
			for (uint64_t at = 0; at < bytes; at += MIB2)
				guest_must_read(guests[g], AT + at,
						world_stamp(file, at / KIB4, 0));
		}
		assert_int_equal(guest_unmap(guests[1], AT, bytes), EPT_OK);
		needed[i] = guests[1]->last.invalidations;
		guest_must_read(guests[0], AT, world_stamp(file, 0, 0));
		world_destroy(world);
	}
	assert_in_range(needed[0], 0, 1);
	assert_int_equal(needed[1], needed[0]);
}

/* Two guests' pages, in turn, all of them next to each other, in quarantine. */
static struct world *pages_in_quarantine(void **state, unsigned each)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, 8 * MIB2, file, RWX);
	struct guest *b = guest_must_clone(a);

	for (unsigned page = 0; page < each; page++) {
		guest_must_write(a, AT + page * KIB4, 1000 + page);
		guest_must_write(b, AT + page * KIB4, 2000 + page);
	}
	guest_destroy(a);
	guest_destroy(b);
	assert_int_equal(usage_of(world).pages_quarantined, 2 * each);
	return world;
}

/* One scrub, and how many calls its discards would be on a real machine. */
static unsigned scrub_discards(struct world *world)
{
	struct ept_change change = {0};
	struct tally tally = {0};

	assert_int_equal(ept_scrub(world->ept, 64, &change), EPT_OK);
	world_commit(world, &change, &tally);
	assert_int_equal(ept_change_finish(&change), EPT_OK);
	ept_change_free(&change);
	return tally.discards;
}

/* Of many pages of several guests none is left out. */
static void TFRMM_2052addb_every_page_of_a_range_is_invalidated(void **state)
{
	struct world *world = pages_in_quarantine(state, 64);

	assert_true(scrub_discards(world) > 0);
	for (unsigned page = 0; page < 128; page++)
		assert_int_equal(world->pages[page].words[0], PORT_POISON);
	world_destroy(world);
}

/* Contract, 4: a batch wants one call for each contiguous range, in whatever order pages died. */
static void bug_8ce720d5bd91_discards_are_batched(void **state)
{
	struct world *world = pages_in_quarantine(state, 64);

	assert_in_range(scrub_discards(world), 1, 4);
	world_destroy(world);
}

/* What goes is the replaced entry's whole span: both vCPUs had more of it cached than is unmapped.
 */
static void Hafnium_b7325779_invalidation_covers_what_was_replaced(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, 3 * MIB2, file, RWX);

	guest_must_write(a, AT + MIB2 / 4, 5);
	/* After the write, which empties the caches too. */
	for (a->vcpu = 0; a->vcpu < PORT_VCPUS; a->vcpu++)
		for (unsigned i = 0; i < 12; i++)
			guest_must_read(a, AT + i * MIB2 / 4,
					i == 1 ? 5 : world_stamp(file, i * EPT_ENTRIES / 4, 0));
	assert_int_equal(guest_unmap(a, AT + MIB2 / 2 + KIB4, 2 * MIB2), EPT_OK);
	for (a->vcpu = 0; a->vcpu < PORT_VCPUS; a->vcpu++) {
		assert_int_equal(guest_exec(a, AT + 3 * MIB2 / 4), EPT_OUTSIDE);
		assert_int_equal(guest_exec(a, AT + MIB2), EPT_OUTSIDE);
		guest_must_read(a, AT + MIB2 / 4, 5);
		guest_must_read(a, AT + MIB2 / 2, world_stamp(file, EPT_ENTRIES / 2, 0));
	}
	world_destroy(world);
}

/* A mapping never replaces another one, wholly or in part. */
static void Hafnium_d9238ecc_nothing_is_mapped_over_something(void **state)
{
	static const struct {
		uint64_t start, bytes;
	} over[] = {
		{AT + MIB2, MIB2}, {AT + MIB2 / 2, MIB2},
		{AT, 4 * MIB2},	   {AT + 2 * MIB2 - KIB4, KIB4},
		{AT + MIB2, KIB4},
	};
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	uint32_t other = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT + MIB2, MIB2, file, RWX);
	struct guest *b;

	guest_must_write(a, AT + MIB2, 1);
	b = guest_must_clone(a);
	for (unsigned i = 0; i < sizeof(over) / sizeof(*over); i++) {
		struct ept_region region = region_of(over[i].start, over[i].bytes, other, 0, RWX);

		assert_int_equal(guest_map(a, &region), EPT_OVERLAP);
		guest_must_read(a, AT + MIB2, 1);
		guest_must_read(a, AT + MIB2 + KIB4, world_stamp(file, 1, 0));
		guest_must_read(b, AT + MIB2, 1);
		assert_int_equal(guest_exec(a, AT), EPT_OUTSIDE);
	}
	world_destroy(world);
}

/* A table is scrubbed through the gate before its page has another use: KVM's shadow is gone. */
static void contract_3_a_reused_table_shows_nothing_old(void **state)
{
	struct world_options options = world_defaults(*state);
	struct world *world;
	uint32_t file, other;

	options.tables = 4;
	world = world_create(&options);
	file = world_file(world, PAGES, false);
	other = world_file(world, PAGES, false);
	for (unsigned round = 0; round < 12; round++) {
		/* The four pages change their levels from round to round. */
		uint64_t at = round * (GIB512 + GIB1 + MIB2);
		struct guest *a = guest_with(world, at, MIB2, round % 2 ? other : file, RWX);

		for (unsigned page = 0; page < EPT_ENTRIES; page += 50)
			guest_must_read(a, at + page * KIB4,
					world_stamp(round % 2 ? other : file, page, 0));
		guest_destroy(a);
		world_scrub_all(world);
	}
	world_destroy(world);
}

/*
 * index.c, ept_index_get(): a table is found before its maker has finished, who then gives up. It
 * is in use by then, so a pass must not wait for its maker, and KVM must forget it in the end.
 */
static void contract_3_a_table_that_only_its_finder_keeps(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, false);
	struct guest *a = guest_with(world, AT, MIB2, file, RX);
	struct guest *b = guest_with(world, AT, MIB2, file, RX);
	struct ept_change change = {0};
	struct tally tally;

	assert_int_equal(ept_space_fault(a->space, (struct gpa){AT}, EPT_READ, &change), EPT_OK);
	assert_int_equal(fault_in_other_thread(b, AT, EPT_READ), EPT_OK);
	ept_change_cancel(&change);
	ept_change_free(&change);
	assert_int_equal(usage_of(world).tables[1], 1);
	guest_must_read(b, AT, world_stamp(file, 0, 0));
	assert_int_equal(world_reclaim(world, (struct file_page){file, 0}, 1, &tally), EPT_OK);
	assert_int_equal(tally.gate_edits, 1);
	guest_destroy(b);
	/* Its root, PDPT, PD, and the table. */
	assert_int_equal(usage_of(world).tables_quarantined, 4);
	world_destroy(world);
}

/* Every entry of every table: none grants write to a page of a file opened for private use. */
static void S9_private_files_are_never_written(void **state)
{
	struct world *world = world_of(state);
	uint32_t file = world_file(world, PAGES, true);
	struct guest *a = guest_with(world, AT, MIB2, file, RWX);
	struct guest *b = guest_must_clone(a);

	for (unsigned page = 0; page < EPT_ENTRIES; page += 3) {
		guest_must_write(a, AT + page * KIB4, page);
		guest_must_write(b, AT + (page + 1) * KIB4 % MIB2, page);
	}
	for (unsigned page = 0; page < EPT_ENTRIES; page++) {
		struct fpa target;
		uint64_t entry = guest_entry(a, AT + page * KIB4, 1);

		target = ept_entry_target(world->format, entry);
		if (entry && ept_entry_writable(world->format, entry))
			assert_true(world_is_private(world, target));
		assert_int_equal(world_peek(world, world_file_page(world, file, page), 0),
				 world_stamp(file, page, 0));
	}
	world_destroy(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH_FORMAT(a4a118f2eead_no_table_is_reused_before_its_flush),
		EACH_FORMAT(a4a118f2eead_no_page_is_reused_before_its_flush),
		EACH_FORMAT(CVE_2024_57883_counts_of_tables_and_pages_are_apart),
		EACH_FORMAT(CVE_2026_23100_all_agree_on_what_is_shared),
		EACH_FORMAT(CVE_2026_23100_all_agree_on_lower_tables),
		EACH_FORMAT(CVE_2025_38084_what_is_unshared_cannot_be_shared_again),
		EACH_FORMAT(CVE_2025_38084_a_changed_table_is_not_found),
		EACH_FORMAT(CVE_2025_38084_a_kept_table_is_not_found),
		EACH_FORMAT(pKVM_8ed0fbe54046_failure_below_a_table_just_found),
		EACH_FORMAT(b1bd5cba3306_other_rights_other_table),
		EACH_FORMAT(S8_every_part_of_the_key_counts),
		EACH_FORMAT(S8_keys_that_differ_in_one_part_find_nothing),
		EACH_FORMAT(b1bd5cba3306_two_rights_in_one_guest),
		EACH_FORMAT(bug_8ce720d5bd91_invalidations_are_batched),
		EACH_FORMAT(bug_8ce720d5bd91_discards_are_batched),
		EACH_FORMAT(TFRMM_2052addb_every_page_of_a_range_is_invalidated),
		EACH_FORMAT(Hafnium_b7325779_invalidation_covers_what_was_replaced),
		EACH_FORMAT(Hafnium_d9238ecc_nothing_is_mapped_over_something),
		EACH_FORMAT(contract_3_a_reused_table_shows_nothing_old),
		EACH_FORMAT(contract_3_a_table_that_only_its_finder_keeps),
		EACH_FORMAT(S9_private_files_are_never_written),
	};

	return cmocka_run_group_tests_name("ept.bugs", tests, NULL, NULL);
}
