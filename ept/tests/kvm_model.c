// SPDX-License-Identifier: MIT
#include "kvm_model.h"

#include <stdlib.h>
#include <string.h>

/* What KVM made of one table for one level and one kind of path. */
struct shadow {
	uint64_t entries[EPT_ENTRIES]; /* 0: nothing yet */
	uint64_t used[EPT_ENTRIES / 64];
	struct fpa table;
	unsigned level;
	bool writable; /* whether all entries above grant write */
	bool unsync;   /* the gate stored to the table, of level 1, and nobody looked since */
	struct shadow *next;
};

struct kvm_model {
	struct world *world;
	struct shadow *shadows; /* all of them */
	struct shadow **by_role;
	uint64_t *known; /* the tables' contents as KVM may believe them */
};

struct kvm_model *kvm_create(struct world *world)
{
	struct kvm_model *kvm = calloc(1, sizeof(*kvm));

	kvm->world = world;
	kvm->by_role = calloc((size_t)world->table_count * EPT_ROOT_LEVEL * 2, sizeof(void *));
	kvm->known = calloc((size_t)world->table_count, EPT_PAGE_BYTES);
	return kvm;
}

void kvm_destroy(struct kvm_model *kvm)
{
	if (!kvm)
		return;
	while (kvm->shadows) {
		struct shadow *next = kvm->shadows->next;

		free(kvm->shadows);
		kvm->shadows = next;
	}
	free(kvm->by_role);
	free(kvm->known);
	free(kvm);
}

static struct shadow **role_of(struct kvm_model *kvm, uint32_t table, unsigned level, bool writable)
{
	return &kvm->by_role[(table * EPT_ROOT_LEVEL + level - 1) * 2 + writable];
}

static struct fpa entry_of(struct fpa table, unsigned index)
{
	return (struct fpa){table.v + index * sizeof(uint64_t)};
}

static bool table_is_known(struct kvm_model *kvm, uint32_t table)
{
	for (unsigned role = 0; role < EPT_ROOT_LEVEL * 2; role++)
		if (kvm->by_role[table * EPT_ROOT_LEVEL * 2 + role])
			return true;
	return false;
}

static uint64_t *known_of(struct kvm_model *kvm, uint32_t table)
{
	return &kvm->known[(size_t)table * EPT_ENTRIES];
}

static void entry_set(struct shadow *shadow, unsigned index, uint64_t value)
{
	uint64_t bit = UINT64_C(1) << index % 64;

	shadow->entries[index] = value;
	if (value)
		shadow->used[index / 64] |= bit;
	else
		shadow->used[index / 64] &= ~bit;
}

/* The next index from @from on that is used, or EPT_ENTRIES. */
static unsigned next_used(const struct shadow *shadow, unsigned from)
{
	while (from < EPT_ENTRIES) {
		uint64_t rest = shadow->used[from / 64] >> from % 64;

		if (rest)
			return from + (unsigned)__builtin_ctzll(rest);
		from = (from / 64 + 1) * 64;
	}
	return EPT_ENTRIES;
}

#define for_each_used(shadow, index)                                                               \
	for (unsigned index = next_used(shadow, 0); index < EPT_ENTRIES;                           \
	     index = next_used(shadow, index + 1))

static bool went_through(const struct translation *cached, struct fpa entry)
{
	for (unsigned level = 1; level <= EPT_ROOT_LEVEL; level++)
		if (cached->entries[level].v == entry.v)
			return true;
	return false;
}

/* A flush of one entry's translations, on all vCPUs of all guests. */
static void tlb_drop_entry(struct kvm_model *kvm, struct fpa entry)
{
	for (unsigned g = 0; g < PORT_GUESTS; g++) {
		struct guest *guest = kvm->world->guests[g];

		for (unsigned i = 0; guest && i < PORT_VCPUS * PORT_TLB; i++) {
			struct translation *cached = &guest->tlbs[i / PORT_TLB][i % PORT_TLB];

			if (cached->valid && went_through(cached, entry))
				cached->valid = false;
		}
	}
}

/* Looks again at a table of level 1: what memory no longer says goes. */
static void shadow_sync(struct kvm_model *kvm, struct shadow *shadow)
{
	for_each_used(shadow, index)
	{
		struct fpa entry = entry_of(shadow->table, index);

		if (world_load(kvm->world, entry) == shadow->entries[index])
			continue;
		entry_set(shadow, index, 0);
		tlb_drop_entry(kvm, entry);
	}
	shadow->unsync = false;
}

static struct shadow *shadow_get(struct kvm_model *kvm, struct fpa table, unsigned level,
				 bool writable)
{
	uint32_t number = world_table_number(kvm->world, table);
	struct shadow **role = role_of(kvm, number, level, writable);

	if (!world_is_table(kvm->world, table))
		port_fail(kvm->world, "a walk left the tables");
	if (*role)
		return *role;
	if (!table_is_known(kvm, number))
		for (unsigned i = 0; i < EPT_ENTRIES; i++)
			known_of(kvm, number)[i] = world_load(kvm->world, entry_of(table, i));
	*role = calloc(1, sizeof(**role));
	(*role)->table = table;
	(*role)->level = level;
	(*role)->writable = writable;
	(*role)->next = kvm->shadows;
	kvm->shadows = *role;
	return *role;
}

static struct shadow *shadow_child(struct kvm_model *kvm, const struct shadow *shadow,
				   uint64_t entry)
{
	return shadow_get(kvm, ept_entry_target(kvm->world->format, entry), shadow->level - 1,
			  shadow->writable && ept_entry_writable(kvm->world->format, entry));
}

static bool is_leaf(struct kvm_model *kvm, const struct shadow *shadow, uint64_t entry)
{
	return ept_entry_is_leaf(kvm->world->format, shadow->level, entry);
}

static void translation_set(struct kvm_model *kvm, struct translation *out,
			    const struct shadow *leaf, uint64_t entry)
{
	out->valid = true;
	out->page = leaf_page(ept_entry_target(kvm->world->format, entry), leaf->level, out->gpa);
	out->rights = ept_entry_rights(kvm->world->format, entry);
	if (!leaf->writable)
		out->rights &= ~(unsigned)EPT_WRITE;
}

/* The processor's walk: of shadow pages only. */
static bool hardware_walk(struct kvm_model *kvm, struct guest *guest, struct translation *out)
{
	struct shadow *shadow = shadow_get(kvm, guest->root, EPT_ROOT_LEVEL, true);

	for (;;) {
		unsigned index = ept_entry_index(out->gpa, shadow->level);
		uint64_t entry = shadow->entries[index];

		out->entries[shadow->level] = entry_of(shadow->table, index);
		if (!entry)
			return false;
		if (is_leaf(kvm, shadow, entry)) {
			translation_set(kvm, out, shadow, entry);
			return true;
		}
		shadow = shadow_child(kvm, shadow, entry);
	}
}

/*
 * Syncs all tables of level 1 below @shadow: KVM does so before it links a shadow page anew
 * (65855ed8b034, "Synchronize the shadow pagetable before link it").
 */
static void sync_below(struct kvm_model *kvm, struct shadow *shadow)
{
	if (shadow->level == 1) {
		if (shadow->unsync)
			shadow_sync(kvm, shadow);
		return;
	}
	for_each_used(shadow, index) if (!is_leaf(kvm, shadow, shadow->entries[index]))
		sync_below(kvm, shadow_child(kvm, shadow, shadow->entries[index]));
}

/* The child of an upper shadow entry, which is filled from memory if there was none. */
static struct shadow *shadow_link(struct kvm_model *kvm, struct shadow *shadow, unsigned index)
{
	struct fpa entry = entry_of(shadow->table, index);
	struct shadow *child;

	if (shadow->entries[index])
		return shadow_child(kvm, shadow, shadow->entries[index]);
	entry_set(shadow, index, world_load(kvm->world, entry));
	child = shadow_child(kvm, shadow, shadow->entries[index]);
	sync_below(kvm, child);
	return child;
}

/*
 * A leaf entry in memory, as KVM's walker leaves it when it fetches it for an access: it notes the
 * access in the guest's table (FNAME(update_accessed_dirty_bits)).
 */
static uint64_t leaf_accessed(struct kvm_model *kvm, struct fpa entry)
{
	uint64_t value = world_load(kvm->world, entry) | kvm->world->format->accessed_bit;
	uint32_t table = world_table_number(kvm->world, entry);

	if (value != world_load(kvm->world, entry)) {
		world_store(kvm->world, entry, value);
		known_of(kvm, table)[entry.v / sizeof(value) % EPT_ENTRIES] = value;
	}
	return value;
}

/* KVM's handling of a fault that the tables in memory allow: fills in what is missing. */
static void fetch(struct kvm_model *kvm, struct guest *guest, struct gpa gpa,
		  const struct walk *walk)
{
	struct shadow *shadow = shadow_get(kvm, guest->root, EPT_ROOT_LEVEL, true);
	unsigned index;

	while (shadow->level > walk->level)
		shadow = shadow_link(kvm, shadow, ept_entry_index(gpa, shadow->level));
	index = ept_entry_index(gpa, walk->level);
	if (shadow->entries[index])
		tlb_drop_entry(kvm, entry_of(shadow->table, index));
	entry_set(shadow, index, leaf_accessed(kvm, walk->entries[walk->level]));
}

static struct translation *tlb_slot(struct guest *guest, struct gpa gpa)
{
	uint64_t hash = (gpa.v >> EPT_PAGE_SHIFT) * UINT64_C(0x9e3779b97f4a7c15) >> 32;

	return &guest->tlbs[guest->vcpu % PORT_VCPUS][hash % PORT_TLB];
}

bool kvm_access(struct kvm_model *kvm, struct guest *guest, struct gpa gpa, unsigned access,
		struct fpa *page)
{
	struct gpa at = {gpa.v & ~(uint64_t)(EPT_PAGE_BYTES - 1)};
	struct translation *slot = tlb_slot(guest, at);
	struct translation found = {.gpa = at};
	struct walk walk;

	if (!slot->valid || slot->gpa.v != at.v || !(slot->rights & access)) {
		slot->valid = false;
		if (!hardware_walk(kvm, guest, &found) || !(found.rights & access)) {
			world_walk(kvm->world, guest->root, at, &walk);
			if (!walk.complete || !(walk.rights & access))
				return false;
			fetch(kvm, guest, at, &walk);
			if (!hardware_walk(kvm, guest, &found) || !(found.rights & access))
				port_fail(kvm->world, "KVM's shadow of a path is stale");
		}
		*slot = found;
	}
	*page = slot->page;
	return true;
}

void kvm_stored(struct kvm_model *kvm, struct fpa entry, enum ept_edit_by by)
{
	uint32_t table = world_table_number(kvm->world, entry);
	unsigned index = (unsigned)(entry.v / sizeof(uint64_t)) % EPT_ENTRIES;

	known_of(kvm, table)[index] = world_load(kvm->world, entry);
	if (by != EPT_EDIT_GATE)
		return;
	for (unsigned role = 0; role < EPT_ROOT_LEVEL * 2; role++) {
		struct shadow *shadow = kvm->by_role[table * EPT_ROOT_LEVEL * 2 + role];

		if (!shadow)
			continue;
		if (shadow->level == 1) {
			shadow->unsync = true;
			continue;
		}
		entry_set(shadow, index, 0);
		tlb_drop_entry(kvm, entry);
	}
}

void kvm_pass_gate(struct kvm_model *kvm, struct guest *guest)
{
	sync_below(kvm, shadow_get(kvm, guest->root, EPT_ROOT_LEVEL, true));
	memset(guest->tlbs, 0, sizeof(guest->tlbs));
}

static bool within(struct fpa at, struct fpa start, uint64_t bytes)
{
	return at.v >= start.v && at.v - start.v < bytes;
}

static void tlb_drop_pages(struct guest *guest, struct fpa start, uint64_t bytes)
{
	for (unsigned i = 0; i < PORT_VCPUS * PORT_TLB; i++) {
		struct translation *cached = &guest->tlbs[i / PORT_TLB][i % PORT_TLB];

		if (within(cached->page, start, bytes))
			cached->valid = false;
	}
}

void kvm_drop_pages(struct kvm_model *kvm, struct fpa start, uint64_t bytes)
{
	for (struct shadow *shadow = kvm->shadows; shadow; shadow = shadow->next)
		for_each_used(shadow, index)
		{
			uint64_t entry = shadow->entries[index];
			struct fpa target = ept_entry_target(kvm->world->format, entry);

			if (is_leaf(kvm, shadow, entry) &&
			    (within(target, start, bytes) ||
			     within(start, target, ept_entry_span(shadow->level))))
				entry_set(shadow, index, 0);
		}
	for (unsigned g = 0; g < PORT_GUESTS; g++)
		if (kvm->world->guests[g])
			tlb_drop_pages(kvm->world->guests[g], start, bytes);
}

bool kvm_reaches(struct kvm_model *kvm, struct fpa page)
{
	for (struct shadow *shadow = kvm->shadows; shadow; shadow = shadow->next)
		for_each_used(shadow, index) if (is_leaf(kvm, shadow, shadow->entries[index]) &&
						 within(page,
							ept_entry_target(kvm->world->format,
									 shadow->entries[index]),
							ept_entry_span(shadow->level))) return true;
	for (unsigned g = 0; g < PORT_GUESTS; g++)
		for (unsigned i = 0; kvm->world->guests[g] && i < PORT_VCPUS * PORT_TLB; i++) {
			const struct guest *guest = kvm->world->guests[g];
			const struct translation *cached = &guest->tlbs[i / PORT_TLB][i % PORT_TLB];

			if (cached->valid && cached->page.v == page.v)
				return true;
		}
	return false;
}

__attribute__((noreturn)) static void stale(struct kvm_model *kvm, const struct guest *guest,
					    const struct translation *cached, const char *why)
{
	port_fail(kvm->world,
		  "S6: the guest with root %#llx has %#llx cached as %#llx, rights %u, %s",
		  (unsigned long long)ept_space_root(guest->space).v,
		  (unsigned long long)cached->gpa.v, (unsigned long long)cached->page.v,
		  cached->rights, why);
}

/* Whether what a vCPU may still use is what its guest's regions and tables allow. */
static void check_translation(struct kvm_model *kvm, struct guest *guest,
			      const struct translation *cached)
{
	struct ept_region region;
	struct fpa file;
	struct walk walk;

	world_walk(kvm->world, ept_space_root(guest->space), cached->gpa, &walk);
	if (!ept_space_region(guest->space, cached->gpa, &region))
		stale(kvm, guest, cached, "where there is no region");
	if (cached->rights & ~region.rights)
		stale(kvm, guest, cached, "which the region does not grant");
	if (walk.complete && walk.page.v != cached->page.v)
		stale(kvm, guest, cached, "where the tables have another page");
	if (world_is_private(kvm->world, cached->page)) {
		if (!walk.complete || (cached->rights & ~walk.rights & EPT_WRITE))
			stale(kvm, guest, cached, "though the private page was taken away");
		return;
	}
	file = world_file_page(kvm->world, region.first.file,
			       region.first.page +
				       (cached->gpa.v - region.start.v) / EPT_PAGE_BYTES);
	if (file.v != cached->page.v)
		stale(kvm, guest, cached, "which is not the region's page");
	if ((cached->rights & EPT_WRITE) && region.mode != EPT_SHARED)
		stale(kvm, guest, cached, "S9: to a file's page");
}

/* A leaf entry that hardware would use: each of its pages, of many only some. */
static void check_leaf(struct kvm_model *kvm, struct guest *guest, const struct shadow *shadow,
		       unsigned index, struct gpa base)
{
	uint64_t pages = ept_entry_span(shadow->level) / EPT_PAGE_BYTES;
	uint64_t stride = pages > 8 ? pages / 8 - 1 : 1;

	for (uint64_t page = 0; page < pages; page += stride) {
		struct translation reached = {0};

		reached.gpa.v = base.v + page * EPT_PAGE_BYTES;
		translation_set(kvm, &reached, shadow, shadow->entries[index]);
		check_translation(kvm, guest, &reached);
	}
}

/* All that hardware would find in @shadow, whose first entry translates @base, without a fault. */
static void check_shadow(struct kvm_model *kvm, struct guest *guest, struct shadow *shadow,
			 struct gpa base)
{
	for_each_used(shadow, index)
	{
		struct gpa at = {base.v + index * ept_entry_span(shadow->level)};

		if (is_leaf(kvm, shadow, shadow->entries[index]))
			check_leaf(kvm, guest, shadow, index, at);
		else
			check_shadow(kvm, guest, shadow_child(kvm, shadow, shadow->entries[index]),
				     at);
	}
}

static void check_tlbs(struct kvm_model *kvm, struct guest *guest)
{
	for (unsigned i = 0; i < PORT_VCPUS * PORT_TLB; i++) {
		const struct translation *cached = &guest->tlbs[i / PORT_TLB][i % PORT_TLB];

		if (cached->valid)
			check_translation(kvm, guest, cached);
	}
}

/* What changed without a commit may only have been absent before. */
static void check_known(struct kvm_model *kvm, uint32_t table)
{
	struct world *world = kvm->world;
	const uint64_t *memory = &world->tables[(size_t)table * EPT_ENTRIES];
	uint64_t *known = known_of(kvm, table);

	if (!table_is_known(kvm, table) || !memcmp(memory, known, EPT_PAGE_BYTES))
		return;
	for (unsigned i = 0; i < EPT_ENTRIES; i++)
		if (known[i] && known[i] != memory[i])
			port_fail(world, "table %u, entry %u: changed behind KVM's back", table, i);
	memcpy(known, memory, EPT_PAGE_BYTES);
}

void kvm_check(struct kvm_model *kvm)
{
	for (uint32_t table = 0; table < kvm->world->table_count; table++)
		check_known(kvm, table);
	for (unsigned g = 0; g < PORT_GUESTS; g++) {
		struct guest *guest = kvm->world->guests[g];

		if (!guest)
			continue;
		if (guest->root.v != ept_space_root(guest->space).v)
			port_fail(kvm->world,
				  "S6: a guest's vCPUs have a root that is no longer its");
		check_shadow(kvm, guest, shadow_get(kvm, guest->root, EPT_ROOT_LEVEL, true),
			     (struct gpa){0});
		check_tlbs(kvm, guest);
	}
}
