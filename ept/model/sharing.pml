/* SPDX-License-Identifier: MIT */
/*
 * How tables are published, shared, copied, dropped and used again while CPUs run guests.
 *
 * Three guests, whose memory is one page, on two CPUs. Guest 1 has a vCPU on each CPU, guest 2 one
 * on CPU 1, guest 3 one on CPU 0; the two guests of a CPU take turns, and what a vCPU has cached
 * stays in the CPU's TLB, with the vCPU's tag, while the other runs. Above the page stand a leaf
 * table and a root. Guests 1 and 2 map the same file; guest 3 is a clone of guest 1. Numbers begin
 * with 1, 0 is "none" or an absent entry. docs/model.md says what is left out; scripts/model runs
 * it.
 *
 * Asserted is, whenever a CPU fills or uses a translation: the page is one that the guest's own
 * tables show, or showed before the operation that is under way; a page that can be written to is
 * no other guest's; tables on the path are alive and the guest's. Whenever no operation is under
 * way, all counts are right. And no process waits for ever.
 *
 *	here			in the code
 *	Thread, to the fault	vmm/src/guest.c: guest_run, run_once, enter
 *	enter, leave, mark,	vmm/src/seat.c: seat_enter, seat_leave, seat_recall;
 *	recall			vmm/src/commit.c: fleet_recall
 *	pass			vmm/src/gate.c: gate_pass
 *	begin, end		ept/src/change.c: ept_change_begin, end
 *	own_root		ept/src/own.c: ept_own_root
 *	child, keep,		ept/src/own.c: ept_own_child, unshare_child, keep, sanitize,
 *	own_child_again		replace, copy_table
 *	own_page		ept/src/fault.c: write_private_leaf, copy_page
 *	link			ept/src/change.c: ept_change_link, store_fresh
 *	cancel			ept/src/change.c: ept_change_abort
 *	fill			ept/src/fault.c: fault_read, hold_for_fill, add_child, make_child;
 *				ept/src/index.c: ept_index_get, ept_index_add
 *	unmap			ept/src/map.c: own_border, edit_step, of a whole span
 *	clone			ept/src/clone.c: clone_into, protect_root, ept_space_freeze
 *	reset			ept/src/clone.c: ept_space_reset, reset_root
 *	move, visit		ept/src/sweep.c: ept_file_move, ept_sweep_step, edit_one, visit
 *	take_*			ept/src/table.c: ept_table_take; ept/src/page.c: ept_page_take
 *	drop, put_leaf		ept/src/change.c: drop_old; ept/src/table.c: ept_table_put,
 *				put_reference, retire
 *	put_page		ept/src/page.c: ept_page_put
 *	store, store_*		vmm/src/commit.c: store_edits, store_plain;
 *				vmm/src/gate.c: gate_commit
 *	settle			ept/src/change.c: ept_change_finish, settle_held
 *	scrub			ept/src/scrub.c: ept_scrub, ept_scrub_finish;
 *				vmm/src/commit.c: fleet_scrub
 *	kvm_*, walk		KVM, arch/x86/kvm/mmu/, as in ept/tests/kvm_model.c; the processor
 *
 * scripts/model reads the following lists. First in a line stand what the guests begin with, how
 * many operations follow, and what else the search is of. EMPTY: nothing is mapped. JOINED: guests
 * 1 and 2 share a leaf table that shows the file. CLONED: guest 1 has written to its page, and
 * guest 3 is made. MOVES: the file's page is moved to another place. DEADLOCKS: without TLBs and
 * shadows, but with CPUs and guests that do nothing for ever. With FULL nothing may be found. A
 * GUARD is left out by -DNO_..., whereupon something must be found. What is to be REACHed must be
 * found, too.
 *
 * FULL	EMPTY,4
 * FULL	JOINED,3
 * FULL	CLONED,3
 * FULL	EMPTY,3,MOVES
 * FULL	JOINED,3,MOVES
 * FULL	EMPTY,5,DEADLOCKS
 * FULL	CLONED,4,DEADLOCKS
 * FULL	JOINED,3,MOVES,DEADLOCKS
 *
 * GUARD EMPTY,3 STORE_FIRST: entries are stored before what they referred to is dropped
 * GUARD CLONED,2 EDITS_IN_ORDER: they are stored in the order in which the engine lists them
 * GUARD EMPTY,3 EDIT_BY_GATE: present entries are stored by a gate
 * GUARD EMPTY,3 INVALIDATE_FIRST: vCPUs are recalled before anything is dropped (a4a118f2eead)
 * GUARD EMPTY,3 INVALIDATE_LEAF: leaf stores are followed by a recall
 * GUARD EMPTY,3 INVALIDATE_UPPER: so are upper stores
 * GUARD EMPTY,3 ALL_VCPUS: all vCPUs of a guest are recalled, and not the first only (F22)
 * GUARD EMPTY,3,DEADLOCKS KICK: a vCPU that is in its guest is called out
 * GUARD EMPTY,3,DEADLOCKS KICK_BEFORE_RUN: a kick counts that comes before KVM_RUN (immediate_exit)
 * GUARD EMPTY,3 WAIT: the recall waits until the vCPU is out
 * GUARD EMPTY,3,DEADLOCKS OUT_IS_ENOUGH: and no longer: not until it has passed its gate
 * GUARD EMPTY,3,DEADLOCKS PASSED_IS_ENOUGH: nor where it has passed and is in its guest again
 * GUARD EMPTY,3 ENTER_UNDER_LOCK: the mark is looked at, and "in its guest" set, in one hold
 * GUARD EMPTY,3 MARK_CLEARED_FIRST: the mark goes before the vCPU passes its gate, not after
 * GUARD EMPTY,3 FLUSH_AT_GATE: at its gate the vCPU forgets its translations
 * GUARD CLONED,2 ROOT_AT_GATE: and takes the root of the recall
 * GUARD CLONED,2 COMMITTED_ROOT: which was committed, and is not one that is being prepared
 * GUARD CLONED,3 QUARANTINE: dead tables are not free
 * GUARD CLONED,3 SCRUB_BY_GATE: until a gate has wiped them
 * GUARD CLONED,2 REFERENCE_IN_COPY: a copy takes references on what it refers to (F6)
 * GUARD CLONED,2 READ_ONLY_COPY: and does not let it be written to (F3)
 * GUARD EMPTY,3 READ_ONLY_ENTRY: entries of a root lose the right to write when it is shared (F18)
 * GUARD CLONED,2 SANITIZE: rights that it kept while shared go before a table is written through
 * GUARD JOINED,2 COUNT_UNDER_LOCK: a use count goes down under the table's lock (F11)
 * GUARD JOINED,2 ZERO_ONCE: only who made it 0 lets the table go (F23)
 * GUARD EMPTY,3 LOOK_UNDER_LOCK: a use count of 1 is seen under the table's lock
 * GUARD JOINED,2 SECOND_LOOK: one above 1 is looked at again after the lock was given up (F5)
 * GUARD EMPTY,4 FILL_UNDER_LOCK: an absent entry is looked at again under its table's lock
 * GUARD EMPTY,4 FROZEN_UNDER_LOCK: whether a space is frozen is looked at under its lock (B2)
 * GUARD EMPTY,4 LEAVE_INDEX: a table leaves the index in the hold that changes it (CVE-2025-38084)
 * GUARD EMPTY,3,DEADLOCKS INDEX_TRIES: who has the index's lock only tries a table's
 * GUARD EMPTY,3,MOVES TELL_FIRST: a fault tells the reverse map before it asks where the page lies
 * GUARD JOINED,2,MOVES KNOW_COPIED: which knows of a page that is copied for as long as that lasts
 * GUARD EMPTY,3,MOVES WAIT_FOR_FRESH: a pass waits for tables that are being made
 * GUARD JOINED,3,MOVES LOOK_AGAIN: it looks again at what the reverse map said (CVE-2025-38085)
 * GUARD JOINED,2,MOVES DROP_PAGES: then translations to the page go
 * GUARD JOINED,2,MOVES ALL_SHARERS: of all guests, and not of the first only (F22)
 * GUARD CLONED,3 KVM_SYNC_AT_LINK: KVM looks again at a stored leaf table when it links its shadow
 * GUARD CLONED,2 KVM_SYNC_AT_ROOT: and when a vCPU takes a root
 *
 * REACH EMPTY,2 FOUND: a guest finds a table in the index
 * REACH JOINED,2 KEPT: a table whose count fell to 1 before the second look
 * REACH EMPTY,4 FILLED: an entry that another guest filled first
 * REACH CLONED,2 SANITIZED: a right that is taken away before a write
 * REACH CLONED,3 REUSED: a table that was another guest's, and scrubbed
 * REACH CLONED,2 STALE: a CPU that writes by a translation that memory no longer grants
 * REACH CLONED,2 CALLED_OUT: a vCPU with such a translation that is called out
 * REACH JOINED,2,MOVES MOVED_FOR_ALL: an entry that is moved for several guests at once
 * REACH EMPTY,2,MOVES NOT_PUBLISHED: a table that is being made while a pass waits for it
 */

#define EMPTY 0
#define JOINED 1
#define CLONED 2
#ifndef START
#define START EMPTY
#endif
#ifndef OPERATIONS
#define OPERATIONS 3
#endif

#define GUESTS 3
#define CPUS 2
#define HOST CPUS
#define ROOTS 3
#define LEAVES 3
#define PRIVATE 2		/* private pages; the file's page comes behind them, */
#define FILE (PRIVATE + 1)
#define SPARE (PRIVATE + 2)	/* and where it lies when it was moved */
#define IS_PRIVATE(page) ((page) && (page) < FILE)

#define FREE 0
#define LIVE 1
#define QUARANTINED 2

/* Seats: one for each vCPU. Guest 1 has one on each CPU, guest 2 on CPU 1, guest 3 on CPU 0. */
#define SEATS 4
#define SEAT(cpu, guest) (guest == 1 -> cpu : guest)
#define HAS_SEAT(cpu, guest) (guest == 1 || guest == 3 - cpu)

/* Shadows of a leaf table: below entries that grant write, and below others. */
#define ROLES ((LEAVES + 1) * 2)
#define ROLE(leaf, writable) ((leaf) * 2 + (writable))

#define WHEN(condition, statements) if :: condition -> statements :: else fi

/* What has been come to: asked for with -DREACH=, it is what is to be found. */
#define NOTHING 0
#define FOUND 1
#define KEPT 2
#define FILLED 3
#define SANITIZED 4
#define REUSED 5
#define STALE 6
#define CALLED_OUT 7
#define MOVED_FOR_ALL 8
#define NOT_PUBLISHED 9
#ifndef REACH
#define REACH NOTHING
#endif
#define REACHED(what) assert(REACH != what)

/* Roots: an entry, which points at a leaf table; a use count. */
byte root_to[ROOTS + 1];
bit root_write[ROOTS + 1];
byte root_count[ROOTS + 1];
byte root_state[ROOTS + 1];
bit root_lock[ROOTS + 1];

/* Leaf tables: the same, pointing at a page. */
byte leaf_to[LEAVES + 1];
bit leaf_write[LEAVES + 1];
byte leaf_count[LEAVES + 1];
byte leaf_state[LEAVES + 1];
bit leaf_tainted[LEAVES + 1];
bit leaf_lock[LEAVES + 1];
#if REACH == REUSED
byte leaf_was[LEAVES + 1];
#endif

byte page_count[PRIVATE + 1];
byte page_state[PRIVATE + 1];

/* The share index. All keys are equal: a leaf table that shows the file. */
byte indexed;
bit index_lock;

#ifdef MOVES
byte place = FILE;
byte leaving;		     /* by the pass that is under way */
bit leaf_known[LEAVES + 1];  /* to the reverse map, for the file's page */
bit leaf_published[LEAVES + 1];
#define KNOW(leaf, known) leaf_known[leaf] = known
#define PUBLISH(leaf) leaf_published[leaf] = 1
#else
#define place FILE
#define leaving 0
#define KNOW(leaf, known) skip
#define PUBLISH(leaf) skip
#endif

byte space_root[GUESTS + 1];
bit space_lock[GUESTS + 1];
bit frozen; /* guest 1, the parent of guest 3 */

/* For assertions: what the operation that is under way replaces. */
byte old_root[GUESTS + 1];
byte old_leaf[GUESTS + 1];
byte old_page[GUESTS + 1];

/* Operations that may still begin. */
byte budget = OPERATIONS;

/* Doors; roots that vCPUs have; guests that CPUs are in, or are about to enter. */
bit must_pass[SEATS];
byte door_root[GUESTS + 1];
byte vcpu_root[SEATS];
byte in_guest[CPUS + 1];
bit kicked[CPUS];
#ifdef NO_KICK_BEFORE_RUN
bit running[CPUS];
#endif

#ifndef DEADLOCKS
byte tlb_page[SEATS];
bit tlb_write[SEATS];
byte shadow_leaf[ROOTS + 1];
bit shadow_role[ROOTS + 1];
byte shadow_page[ROLES];
bit shadow_write[ROLES];
bit shadow_unsync[ROLES];
#endif

byte at; /* of a loop within a step */

/* ---- KVM ---- */

#ifdef DEADLOCKS
#define IF_KVM(statements) skip
#else
#define IF_KVM(statements) statements

inline tlb_drop(seat)
{
	tlb_page[seat] = 0;
	tlb_write[seat] = 0
}

inline shadow_drop(role)
{
	shadow_page[role] = 0;
	shadow_write[role] = 0;
	shadow_unsync[role] = 0
}

/* A gate's store to a root, which KVM write-protects: its shadow's entry goes. */
inline kvm_stored_upper(root)
{
	shadow_leaf[root] = 0;
	shadow_role[root] = 0
}

/* A gate's store to a leaf table: its shadows go out of sync, and nobody notices. */
inline kvm_stored_leaf(leaf)
{
	shadow_unsync[ROLE(leaf, 0)] = shadow_page[ROLE(leaf, 0)] != 0;
	shadow_unsync[ROLE(leaf, 1)] = shadow_page[ROLE(leaf, 1)] != 0
}

/* Looks again at a leaf table that a gate has stored to: what memory no longer says goes. */
inline kvm_sync(leaf, role)
{
	WHEN(shadow_unsync[role] && (shadow_page[role] != leaf_to[leaf] ||
				     shadow_write[role] != leaf_write[leaf]), shadow_drop(role));
	shadow_unsync[role] = 0
}

/* The host takes a page's memory back: all translations to it go. */
inline kvm_drop(page)
{
	for (at : 2 .. ROLES - 1) {
		WHEN(shadow_page[at] == page, shadow_drop(at))
	}
	for (at : 0 .. SEATS - 1) {
		WHEN(tlb_page[at] == page, tlb_drop(at))
#ifdef NO_ALL_SHARERS
		;
		WHEN(at == 1, break)
#endif
	}
	at = 0
}

#define SHADOW(root) ROLE(shadow_leaf[root], shadow_role[root])

/* Links the shadow of a leaf table anew, for the page or for another one of the table's. */
inline kvm_link(root)
{
	shadow_leaf[root] = root_to[root];
	shadow_role[root] = root_write[root];
#ifndef NO_KVM_SYNC_AT_LINK
	kvm_sync(shadow_leaf[root], SHADOW(root))
#endif
}

/* Fills in what is missing of a path that the tables in memory grant. */
inline kvm_fetch(root)
{
	if
	:: !shadow_leaf[root] -> kvm_link(root)
	:: else
	fi;
	shadow_page[SHADOW(root)] = leaf_to[shadow_leaf[root]];
	shadow_write[SHADOW(root)] = leaf_write[shadow_leaf[root]]
}

/* ---- what is asserted of translations ---- */

#define SHOWS(root, page) (leaf_to[root_to[root]] == page)
#define SEES_PAGE(guest, page) \
	(SHOWS(space_root[guest], page) || SHOWS(old_root[guest], page) || old_page[guest] == page)
#define SEES(guest, page) \
	(SEES_PAGE(guest, page) || (page >= FILE && SEES_PAGE(guest, (FILE + SPARE - page))))

inline check_page(guest, page, write)
{
	assert(SEES(guest, page));
	assert(page == place || page == leaving ||
	       (IS_PRIVATE(page) && page_state[page] == LIVE && page_count[page] > 0));
	assert(!write || IS_PRIVATE(page));
	assert(!write || guest == 1 || !SEES(1, page));
	assert(!write || guest == 2 || !SEES(2, page));
	assert(!write || guest == 3 || !SEES(3, page))
}

inline check_tables(guest, root, leaf)
{
	assert(root_state[root] == LIVE && (root == space_root[guest] || root == old_root[guest]));
	assert(leaf_state[leaf] == LIVE);
	assert(leaf == root_to[space_root[guest]] || leaf == root_to[old_root[guest]] ||
	       leaf == old_leaf[guest])
}

/* The processor's walk, of shadows only. */
inline walk(guest, seat, root)
{
	check_tables(guest, root, shadow_leaf[root]);
	tlb_page[seat] = shadow_page[SHADOW(root)];
	tlb_write[seat] = shadow_write[SHADOW(root)] && shadow_role[root];
	check_page(guest, tlb_page[seat], tlb_write[seat])
}
#endif /* not DEADLOCKS */

/* ---- and of counts, when no operation is under way (S1, S3, S4) ---- */

#define POINTS_AT(root, leaf) (root_state[root] == LIVE && root_to[root] == leaf)
#define MAPS(leaf, page) (leaf_state[leaf] == LIVE && leaf_to[leaf] == page)

inline check_counts()
{
	for (at : 1 .. ROOTS) {
		assert(root_count[at] == (space_root[1] == at) + (space_root[2] == at) +
					 (space_root[3] == at));
		assert((root_state[at] == LIVE) == (root_count[at] > 0))
	}
	for (at : 1 .. LEAVES) {
		assert(leaf_count[at] == POINTS_AT(1, at) + POINTS_AT(2, at) + POINTS_AT(3, at));
		assert((leaf_state[at] == LIVE) == (leaf_count[at] > 0))
	}
	for (at : 1 .. PRIVATE) {
		assert(page_count[at] == MAPS(1, at) + MAPS(2, at) + MAPS(3, at));
		assert((page_state[at] == LIVE) == (page_count[at] > 0))
	}
	at = 0;
	assert(!indexed || (leaf_state[indexed] == LIVE && !IS_PRIVATE(leaf_to[indexed])))
}

/* ---- pools and counts ---- */

inline take_root(out)
{
	out = 1;
	do
	:: out <= ROOTS && root_state[out] != FREE -> out++
	:: else -> break
	od;
	if
	:: out > ROOTS -> out = 0
	:: else -> root_state[out] = LIVE; root_count[out] = 1
	fi
}

inline take_leaf(out)
{
	out = 1;
	do
	:: out <= LEAVES && leaf_state[out] != FREE -> out++
	:: else -> break
	od;
	if
	:: out > LEAVES -> out = 0
	:: else ->
		assert(indexed != out);
#if REACH == REUSED
		assert(!leaf_was[out] || leaf_was[out] == guest);
#endif
		leaf_state[out] = LIVE;
		leaf_count[out] = 1;
		leaf_tainted[out] = 0
	fi
}

inline take_page(out)
{
	out = 1;
	do
	:: out <= PRIVATE && page_state[out] != FREE -> out++
	:: else -> break
	od;
	if
	:: out > PRIVATE -> out = 0
	:: else -> page_state[out] = LIVE; page_count[out] = 1
	fi
}

/* What hardware could never reach is wiped by hand, and free. */
inline free_root(root)
{
	root_state[root] = FREE;
	root_count[root] = 0;
	root_to[root] = 0;
	root_write[root] = 0
}

inline free_leaf(leaf)
{
	leaf_state[leaf] = FREE;
	leaf_count[leaf] = 0;
	leaf_tainted[leaf] = 0;
	leaf_to[leaf] = 0;
	leaf_write[leaf] = 0;
#ifdef MOVES
	leaf_published[leaf] = 0;
#endif
	KNOW(leaf, 0)
}

inline free_page(page)
{
	page_state[page] = FREE;
	page_count[page] = 0
}

inline put_page(page)
{
	if
	:: IS_PRIVATE(page) ->
		assert(page_state[page] == LIVE && page_count[page] > 0);
		page_count[page]--;
		WHEN(page_count[page] == 0, page_state[page] = QUARANTINED)
	:: else
	fi
}

inline leave_index(leaf)
{
	WHEN(indexed == leaf, indexed = 0)
}

inline retire_leaf(leaf)
{
	assert(leaf_state[leaf] == LIVE);
	put_page(leaf_to[leaf]);
#if REACH == REUSED
	leaf_was[leaf] = guest;
#endif
	KNOW(leaf, 0);
#ifdef NO_QUARANTINE
	free_leaf(leaf)
#else
	leaf_state[leaf] = QUARANTINED
#endif
}

/* A reference on a table that is not the last one, because a table that points at it was copied. */
inline unget_leaf(leaf)
{
	!leaf_lock[leaf];
	assert(leaf_state[leaf] == LIVE && leaf_count[leaf] > 1);
	leaf_count[leaf]--
}

inline put_leaf(leaf)
{
#ifdef NO_COUNT_UNDER_LOCK
	n = leaf_count[leaf];
#endif
	atomic {
#ifndef NO_COUNT_UNDER_LOCK
		!leaf_lock[leaf];
#ifdef NO_INDEX_TRIES
		leaf_lock[leaf] = 1;
		!index_lock;
		leaf_lock[leaf] = 0;
#endif
		n = leaf_count[leaf];
#endif
		!index_lock;
		assert(n > 0 && leaf_state[leaf] == LIVE);
		n--;
		leaf_count[leaf] = n;
		WHEN(n == 0, leave_index(leaf))
#ifdef NO_ZERO_ONCE
	};
	atomic {
		n = leaf_count[leaf];
#else
		;
#endif
		WHEN(n == 0, retire_leaf(leaf));
		n = 0
	}
}

inline scrub()
{
	for (at : 1 .. ROOTS) {
		if
		:: root_state[at] == QUARANTINED ->
#ifndef NO_SCRUB_BY_GATE
			IF_KVM(kvm_stored_upper(at));
#endif
			free_root(at)
		:: else
		fi
	}
	for (at : 1 .. LEAVES) {
		if
		:: leaf_state[at] == QUARANTINED ->
#ifndef NO_SCRUB_BY_GATE
			IF_KVM(kvm_stored_leaf(at));
#endif
			free_leaf(at)
		:: else
		fi
	}
	/* Their memory goes too, but no translation to a dead page is left. */
	for (at : 1 .. PRIVATE) {
		WHEN(page_state[at] == QUARANTINED, free_page(at))
	}
	at = 0
}

/* ---- stores ---- */

inline store_upper(root, leaf, write)
{
	/* What is absent is stored by hand, and KVM holds nothing of it. */
#ifndef NO_EDIT_BY_GATE
	WHEN(root_to[root], IF_KVM(kvm_stored_upper(root)));
#endif
	root_to[root] = leaf;
	root_write[root] = write
}

inline store_leaf(leaf, page, write)
{
#ifndef NO_EDIT_BY_GATE
	IF_KVM(kvm_stored_leaf(leaf));
#endif
	leaf_to[leaf] = page;
	leaf_write[leaf] = write
}

/* ---- doors ---- */

inline mark(cpu, guest)
{
	must_pass[SEAT(cpu, guest)] = 1;
	door_root[guest] = space_root[guest];
	was_in = in_guest[cpu] == guest;
#if defined(NO_KICK)
	skip
#elif defined(NO_KICK_BEFORE_RUN)
	WHEN(was_in && running[cpu], kicked[cpu] = 1)
#else
	WHEN(was_in, kicked[cpu] = 1)
#endif
}

#if defined(NO_WAIT)
#define IS_OUT(cpu, guest) true
#elif defined(NO_OUT_IS_ENOUGH)
#define IS_OUT(cpu, guest) !must_pass[SEAT(cpu, guest)]
#elif defined(NO_PASSED_IS_ENOUGH)
#define IS_OUT(cpu, guest) (in_guest[cpu] != guest || !was_in)
#else
#define IS_OUT(cpu, guest) (in_guest[cpu] != guest || !must_pass[SEAT(cpu, guest)])
#endif

#if defined(NO_INVALIDATE_LEAF)
#define RECALLS (flush && (was_root || flush_upper))
#elif defined(NO_INVALIDATE_UPPER)
#define RECALLS (flush && !flush_upper)
#else
#define RECALLS flush
#endif
#ifdef NO_ALL_VCPUS
#define RECALLS_ON(cpu) (RECALLS && HAS_SEAT(cpu, guest) && (cpu == 0 || guest != 1))
#else
#define RECALLS_ON(cpu) (RECALLS && HAS_SEAT(cpu, guest))
#endif

/* Afterwards each vCPU of the space is out, or was and has passed its gate since. */
inline recall()
{
	atomic {
		if
		:: RECALLS_ON(0) -> mark(0, guest); IS_OUT(0, guest); was_in = 0
		:: else
		fi;
		if
		:: RECALLS_ON(1) -> mark(1, guest); IS_OUT(1, guest); was_in = 0
		:: else
		fi
	}
}

/* ---- what operations prepare ---- */

#ifdef NO_FROZEN_UNDER_LOCK
#define IS_FROZEN false
#else
#define IS_FROZEN (guest == 1 && frozen)
#endif

inline remember_old()
{
	old_root[guest] = root;
	old_leaf[guest] = root_to[root];
	old_page[guest] = leaf_to[root_to[root]]
}

inline forget_old()
{
	old_root[guest] = 0;
	old_leaf[guest] = 0;
	old_page[guest] = 0
}

inline begin()
{
	!space_lock[guest];
	space_lock[guest] = 1;
	d_step {
		/* As early as can be, so that as much as can be is used again. */
		scrub();
		root = space_root[guest];
		remember_old()
	}
}

inline end()
{
	d_step {
		forget_old();
		space_lock[guest] = 0;
		WHEN(!space_lock[1] && !space_lock[2] && !space_lock[3], check_counts());
		op = 0; guest = 0; mine = 0; root = 0; leaf = 0; new_leaf = 0; new_page = 0; n = 0;
		upper_leaf = 0; upper_write = 0; writes = 0; holds = 0; flush = 0; flush_upper = 0
	}
}

#ifdef NO_REFERENCE_IN_COPY
#define GET_LEAF(leaf) skip
#define GET_PAGE(page) skip
#else
#define GET_LEAF(leaf) WHEN(leaf, leaf_count[leaf]++; leaf_tainted[leaf] = 1)
#define GET_PAGE(page) WHEN(IS_PRIVATE(page), page_count[page]++)
#endif

/* The root becomes the space's own. */
inline own_root()
{
	if
	:: root_count[root] > 1 ->
		d_step { take_root(n) };
		if
		:: !n -> goto cancel
		:: else
		fi;
		!root_lock[root];
		if
		:: root_count[root] > 1 ->
			root_to[n] = root_to[root];
#ifdef NO_READ_ONLY_COPY
			root_write[n] = root_write[root];
#endif
			GET_LEAF(root_to[n]);
			was_root = root;
			root = n;
			space_root[guest] = n;
			flush = 1
		:: else -> free_root(n)
		fi;
		n = 0
	:: else
	fi
}

/* The root's entry is to point at @new_leaf: at once, where nobody knows the root yet. */
inline link()
{
	if
	:: was_root ->
		n = root_to[root];
		root_to[root] = new_leaf;
		root_write[root] = writes;
		if
		:: n -> unget_leaf(n)
		:: else
		fi;
		n = 0
	:: else ->
		drop_leaf = root_to[root];
		edit_upper = 1;
		upper_leaf = new_leaf;
		upper_write = writes
	fi
}

inline keep()
{
	leaf_lock[leaf] = 1;
	holds = 1;
	if
	:: writes && (!root_write[root] || leaf_tainted[leaf]) ->
#ifndef NO_SANITIZE
		edit_sanitize = leaf_tainted[leaf] && leaf_write[leaf] &&
				IS_PRIVATE(leaf_to[leaf]) && page_count[leaf_to[leaf]] > 1;
#endif
		edit_upper = 1;
		upper_leaf = leaf;
		upper_write = 1
	:: else
	fi
}

/* The table was taken without the lock of the one that it is to be a copy of. */
inline own_child_again()
{
	!leaf_lock[leaf];
	if
#ifndef NO_SECOND_LOOK
	:: leaf_count[leaf] == 1 ->
		REACHED(KEPT);
		d_step { free_leaf(new_leaf); new_leaf = 0; keep() }
#endif
	:: else ->
		assert(leaf_count[leaf] > 1); /* Whoever has a table alone need not copy it. */
		leaf_to[new_leaf] = leaf_to[leaf];
#ifdef NO_READ_ONLY_COPY
		leaf_write[new_leaf] = leaf_write[leaf];
#endif
		GET_PAGE(leaf_to[leaf]);
		KNOW(new_leaf, leaf_known[leaf]);
		flush = 1;
		flush_upper = !was_root;
		link()
	fi
}

/* The guest is to write to its own page, or to a new one. */
inline own_page()
{
	n = leaf_to[(new_leaf -> new_leaf : leaf)];
	if
	:: IS_PRIVATE(n) && page_count[n] == 1 ->
		free_page(new_page);
		new_page = n;
		if
		:: new_leaf -> leaf_write[new_leaf] = 1
		:: else -> edit_leaf = !leaf_write[leaf]
		fi
	:: else ->
		copy_from = n;
		if
		:: new_leaf ->
			leaf_to[new_leaf] = new_page;
			leaf_write[new_leaf] = 1;
#ifdef NO_KNOW_COPIED
			KNOW(new_leaf, 0);
#endif
			put_page(n)
		:: else ->
			drop_page = n;
			edit_leaf = 1;
			flush = 1;
			flush_upper = 0
		fi
	fi;
	n = 0
}

/* ---- and how that is done ---- */

#ifdef NO_EDITS_IN_ORDER
#define SANITIZE_NEXT (edit_sanitize && !edit_upper)
#define UPPER_NEXT edit_upper
#else
#define SANITIZE_NEXT edit_sanitize
#define UPPER_NEXT (edit_upper && !edit_sanitize)
#endif
#define LEAF_NEXT (edit_leaf && !edit_upper && !edit_sanitize)

inline store()
{
	do
	:: d_step { SANITIZE_NEXT ->
			REACHED(SANITIZED);
			store_leaf(leaf, leaf_to[leaf], 0);
			edit_sanitize = 0
	   }
	:: d_step { UPPER_NEXT -> store_upper(root, upper_leaf, upper_write); edit_upper = 0 }
	:: d_step { LEAF_NEXT -> store_leaf(leaf, new_page, 1); edit_leaf = 0 }
	:: d_step { !edit_sanitize && !edit_upper && !edit_leaf ->
			/* The copy is made, and what it was made of is still that. */
			assert(!copy_from || copy_from == place || copy_from == leaving ||
			       (IS_PRIVATE(copy_from) && page_state[copy_from] == LIVE));
			copy_from = 0
	   };
		break
	od
}

/* What was held leaves the index and is unlocked. */
inline settle()
{
	atomic {
		!holds || !index_lock;
		d_step {
			forget_old();
			WHEN(new_leaf, PUBLISH(new_leaf);
				       KNOW(new_leaf, !IS_PRIVATE(leaf_to[new_leaf])));
			if
			:: holds ->
#ifndef NO_LEAVE_INDEX
				leave_index(leaf);
#endif
				WHEN(IS_PRIVATE(leaf_to[leaf]), KNOW(leaf, 0));
				WHEN(writes, leaf_tainted[leaf] = 0);
				leaf_lock[leaf] = 0
			:: else
			fi
		}
#ifdef NO_LEAVE_INDEX
		;
		WHEN(holds, skip)
#endif
	}
#ifdef NO_LEAVE_INDEX
	;
	d_step { WHEN(holds, leave_index(leaf)) }
#endif
}

inline drop()
{
	if
	:: was_root ->
		!root_lock[was_root];
		assert(root_count[was_root] > 0 && root_state[was_root] == LIVE);
		root_count[was_root]--;
		if
		:: root_count[was_root] == 0 ->
			drop_leaf = root_to[was_root];
#ifdef NO_QUARANTINE
			free_root(was_root);
#else
			root_state[was_root] = QUARANTINED
#endif
		:: else
		fi;
		was_root = 0
	:: else
	fi;
	if
	:: drop_leaf -> put_leaf(drop_leaf); drop_leaf = 0
	:: else
	fi;
	put_page(drop_page);
	drop_page = 0
}

/* ---- CPUs ---- */

#define ROOT vcpu_root[mine]
#define GRANTS_READ (leaf_to[root_to[ROOT]] != 0)
#define GRANTS_WRITE (GRANTS_READ && root_write[ROOT] && leaf_write[root_to[ROOT]])
#define IN in_guest[cpu]

#ifdef DEADLOCKS
#define TLB_READ false
#define TLB_WRITE false
#else
#define TLB_READ tlb_page[mine]
#define TLB_WRITE tlb_write[mine]
#define OLD_SHADOW(root) shadow_page[ROLE(root_to[root], root_write[root])]
#define SHADOW_READ (shadow_page[SHADOW(ROOT)] != 0 && shadow_leaf[ROOT])
#define SHADOW_WRITE (SHADOW_READ && shadow_role[ROOT] && shadow_write[SHADOW(ROOT)])
#define SHADOW_IS_CACHED \
	(tlb_page[mine] == shadow_page[SHADOW(ROOT)] && tlb_write[mine] == SHADOW_WRITE)
#endif

/* Says that the CPU is in its guest, or sets @n to the root with which to pass the gate before. */
inline enter()
{
#ifdef NO_ENTER_UNDER_LOCK
	n = must_pass[mine];
#endif
	atomic {
#ifndef NO_ENTER_UNDER_LOCK
		n = must_pass[mine];
#endif
		if
		:: n ->
			n = door_root[guest];
#ifndef NO_MARK_CLEARED_FIRST
			must_pass[mine] = 0
#endif
		:: else -> in_guest[cpu] = guest
		fi
	}
}

/* The vCPU takes a root, and has nothing left of what it had cached. */
inline pass()
{
#ifdef NO_COMMITTED_ROOT
	n = space_root[guest];
#endif
#ifdef NO_ROOT_AT_GATE
	WHEN(ROOT, n = ROOT);
#endif
	ROOT = n;
#ifndef NO_KVM_SYNC_AT_ROOT
	IF_KVM(WHEN(shadow_leaf[n], kvm_sync(shadow_leaf[n], SHADOW(n))));
#endif
#ifndef NO_FLUSH_AT_GATE
	IF_KVM(tlb_drop(mine));
#endif
	n = 0
}

inline leave()
{
#if REACH == CALLED_OUT
	assert(!kicked[cpu] || !TLB_WRITE || GRANTS_WRITE);
#endif
	in_guest[cpu] = 0;
	kicked[cpu] = 0
#ifdef NO_KICK_BEFORE_RUN
	;
	running[cpu] = 0
#endif
}

inline leave_idle()
{
	leave();
	guest = 0;
	mine = 0
}

/* ---- a pass over the file's page, by the reverse map ---- */

#ifdef MOVES
#define NAMED(leaf) (leaf_known[leaf] && leaf_published[leaf] && leaf_to[leaf] == leaving)
#define IS_DONE(leaf) (leaf_published[leaf] && leaf_to[leaf] == place)
#ifdef NO_WAIT_FOR_FRESH
#define IS_LEFT(leaf) (leaf_known[leaf] && leaf_published[leaf] && !IS_DONE(leaf))
#else
#define IS_LEFT(leaf) (leaf_known[leaf] && !IS_DONE(leaf))
#endif
#ifdef NO_LOOK_AGAIN
#define IS_AS_NAMED(leaf) true
#else
#define IS_AS_NAMED(leaf) (leaf_state[leaf] == LIVE && NAMED(leaf))
#endif

/* The reverse map has named the table without its lock. */
inline visit()
{
	atomic {
		!leaf_lock[leaf];
		holds = IS_AS_NAMED(leaf);
		WHEN(holds, leaf_lock[leaf] = 1)
	};
	d_step {
#if REACH == MOVED_FOR_ALL
		assert(!holds || leaf_count[leaf] == 1);
#endif
		WHEN(holds, store_leaf(leaf, place, leaf_write[leaf]); leaf_lock[leaf] = 0);
		holds = 0;
		leaf = 0
	}
}
#endif

/* What a thread does for its guest or, as the host, to one. */
mtype = { READ, WRITE, OWN, UNMAP, CLONE, FREEZE, RESET, MOVE };

/*
 * A thread: of a CPU, or the host's. Of its operation:
 *	root, leaf	what it changes; holds: the leaf table, or a root to be filled, is locked
 *	new_leaf	a table of its own making, in place of @leaf
 *	new_page	what the guest is to write to; writes: whether it is to write
 *	was_root	the root that @root is a copy of, or takes the place of
 *	copy_from	the page that is to be copied to @new_page
 *	edit_sanitize	the leaf's entry loses the right to write
 *	edit_upper	the root's entry becomes upper_leaf, upper_write
 *	edit_leaf	the leaf's entry becomes new_page, and grants write
 *	drop_leaf, drop_page	what these replaced
 *	flush		something lost rights; flush_upper: in upper entries only
 */
proctype Thread(byte cpu)
{
	byte op, guest, mine, root, leaf, new_leaf, new_page, was_root, upper_leaf;
	byte drop_leaf, drop_page, copy_from, n;
	bit writes, holds, edit_sanitize, edit_upper, upper_write, edit_leaf, flush, flush_upper;
	bit was_in;

end_idle:
	do
	:: atomic { cpu != HOST && !guest ->
			if
			:: guest = 1
			:: cpu == 1 -> guest = 2
			:: cpu == 0 && space_root[3] -> guest = 3
			fi;
			mine = SEAT(cpu, guest);
			enter()
	   }
#ifdef NO_MARK_CLEARED_FIRST
	:: d_step { n -> pass() }; must_pass[mine] = 0; enter()
#else
	:: d_step { n -> pass() }; enter()
#endif
#ifdef NO_KICK_BEFORE_RUN
	:: atomic { IN && !running[cpu] -> running[cpu] = 1 }
#endif
	/* It is called out, or another guest has its turn. */
	:: d_step { IN && kicked[cpu] -> leave_idle() }
	:: atomic { IN && !kicked[cpu] && (cpu == 1 || space_root[3]) ->
			leave();
			guest = (guest == 1 -> 3 - cpu : 1);
			mine = SEAT(cpu, guest);
			enter()
	   }
#ifdef DEADLOCKS
	/* A guest that does nothing for ever; a CPU that does. */
	:: IN ->
end_spin:
		d_step { kicked[cpu] -> leave_idle() }
	:: cpu != HOST && !guest -> goto halt
#else
	/* It uses what its TLB has; walks; has KVM link the table, or fill in what it may. */
	:: d_step { IN && TLB_READ ->
			check_page(guest, tlb_page[mine], tlb_write[mine]);
#if REACH == STALE
			assert(!TLB_WRITE || GRANTS_WRITE)
#endif
	   }
	:: d_step { IN && SHADOW_READ && !SHADOW_IS_CACHED -> walk(guest, mine, ROOT) }
	:: d_step { IN && OLD_SHADOW(ROOT) && !shadow_leaf[ROOT] && root_to[ROOT] ->
			kvm_link(ROOT)
	   }
	:: d_step { IN && ((GRANTS_READ && !SHADOW_READ) || (GRANTS_WRITE && !SHADOW_WRITE)) ->
			kvm_fetch(ROOT);
			WHEN(SHADOW_READ && !SHADOW_IS_CACHED, walk(guest, mine, ROOT))
	   }
#endif
	:: d_step { IN && budget && !TLB_READ && !GRANTS_READ -> leave(); op = READ; budget-- };
		break
	:: d_step { IN && budget && !TLB_WRITE && !GRANTS_WRITE && (guest != 1 || !frozen) ->
			leave(); op = WRITE; writes = 1; budget--
	   };
		break
	:: atomic { cpu == HOST && budget ->
			if
			:: !frozen && root_to[space_root[1]] -> guest = 1; op = UNMAP
			:: root_to[space_root[2]] -> guest = 2; op = UNMAP
			:: space_root[3] && !frozen -> guest = 1; op = OWN
			:: space_root[3] -> guest = 3; op = OWN
			:: !space_root[3] -> guest = 1; op = CLONE
			:: !space_root[3] -> guest = 1; op = FREEZE
			:: space_root[3] && frozen -> guest = 3; op = RESET
#ifdef MOVES
			:: op = MOVE
#endif
			fi;
			budget--
	   };
		break
	od;
	/* The operation begins. */
#ifdef MOVES
	if
	:: op == MOVE -> goto move
	:: else
	fi;
#endif
	atomic {
		begin();
		if
		:: op == READ -> goto fill
		:: op == CLONE || op == FREEZE -> goto clone
		:: op == RESET -> goto reset
		:: else
		fi;
		if
		:: IS_FROZEN -> goto over
		:: else
		fi;
		if
		:: writes ->
			d_step { take_page(new_page) };
			if
			:: !new_page -> goto over
			:: else
			fi
		:: else
		fi;
		own_root();
		if
		:: op == UNMAP && was_root -> goto commit
		:: op == UNMAP && !was_root -> goto unmap
		:: else
		fi;
		leaf = root_to[root];
		if
		:: leaf -> goto child
		:: !leaf && !writes -> goto commit
		:: else
		fi;
		d_step { take_leaf(new_leaf) };
		if
		:: !new_leaf -> goto cancel
		:: else
		fi;
		leaf_to[new_leaf] = place;
		KNOW(new_leaf, 1);
		link();
		goto page
	};

child:
#ifdef NO_LOOK_UNDER_LOCK
	n = leaf_count[leaf];
#endif
	atomic {
		!leaf_lock[leaf];
#ifndef NO_LOOK_UNDER_LOCK
		n = leaf_count[leaf];
#endif
		if
		:: n == 1 -> n = 0; keep(); goto page
		:: else -> n = 0
		fi;
		d_step { take_leaf(new_leaf) };
		if
		:: !new_leaf -> goto cancel
		:: else
		fi
	};
	atomic {
		own_child_again();
page:
		if
		:: writes -> own_page()
		:: else
		fi
	};
	goto commit;

clone:
	/* Guest 3 gets the root of guest 1, whose entry loses the right to write. */
	atomic {
#ifndef NO_READ_ONLY_ENTRY
		if
		:: root_write[root] ->
			edit_upper = 1;
			upper_leaf = root_to[root];
			flush = 1;
			flush_upper = 1
		:: else
		fi;
#endif
		root_count[root]++
	};
	goto commit;

reset:
	/* Guest 3 has its parent's root again. */
	atomic {
		!space_lock[1];
		if
		:: space_root[1] == root -> goto over
		:: else
		fi;
		was_root = root;
		root = space_root[1];
		root_count[root]++;
		space_root[3] = root;
		flush = 1
	};
	goto commit;

unmap:
	atomic {
		remember_old();
		if
		:: root_to[root] ->
			drop_leaf = root_to[root];
			edit_upper = 1;
			flush = 1;
			flush_upper = 1
		:: else
		fi;
		op = 0
	};

commit:
#if defined(NO_STORE_FIRST)
	drop();
	store();
	recall();
	settle();
#elif defined(NO_INVALIDATE_FIRST)
	store();
	settle();
	drop();
	recall();
#else
	store();
	recall();
	settle();
#endif
#if defined(NO_COUNT_UNDER_LOCK) || defined(NO_ZERO_ONCE)
	drop();
	atomic {
#else
	atomic {
		drop();
#endif
		if
		:: op == UNMAP -> goto unmap
		:: else
		fi;
over:
		if
		:: op == CLONE || op == FREEZE ->
			frozen = op == FREEZE;
			space_root[3] = root;
			door_root[3] = root
		:: else
		fi;
		end();
		goto end_idle
	};

cancel:
	atomic {
		WHEN(new_page, free_page(new_page));
		flush = 0;
		if
		:: was_root ->
			n = root_to[root];
			free_root(root);
			space_root[guest] = was_root;
			was_root = 0;
			if
			:: n -> unget_leaf(n)
			:: else
			fi
		:: else
		fi
	};
	goto over;

fill:
	/* An absent entry of the root: a table that others have, or a new one. */
	atomic {
		n = root_to[root];
		if
		:: n -> goto over
		:: else
		fi;
		if
		:: root_count[root] > 1 -> !root_lock[root]; root_lock[root] = 1; holds = 1
		:: else
		fi;
#ifndef NO_FILL_UNDER_LOCK
		n = root_to[root];
#endif
		if
		:: n -> REACHED(FILLED); goto filled
		:: else
		fi
	};
#ifdef NO_INDEX_TRIES
	atomic { !index_lock; index_lock = 1; leaf = indexed };
	atomic {
		!leaf || !leaf_lock[leaf];
		index_lock = 0;
#else
	atomic {
		!index_lock && (!indexed || !leaf_lock[indexed]);
		leaf = indexed;
#endif
		if
		:: leaf ->
			REACHED(FOUND);
			assert(leaf_state[leaf] == LIVE && leaf_count[leaf] > 0);
			leaf_count[leaf]++;
			leaf_tainted[leaf] = 1;
			PUBLISH(leaf);
			goto filled
		:: else
		fi;
		d_step { take_leaf(leaf) };
		if
		:: !leaf -> goto filled
		:: else
		fi;
#ifndef NO_TELL_FIRST
		KNOW(leaf, 1);
#endif
		n = place;
#ifdef MOVES
	};
	atomic {
#endif
		!index_lock;
		d_step {
			leaf_to[leaf] = n;
			KNOW(leaf, 1);
			WHEN(!indexed, indexed = leaf)
		}
	};
filled:
	atomic {
		/* By hand: KVM may hold nothing of the entry. */
		if
		:: leaf ->
			assert(!root_to[root]);
#if REACH == NOT_PUBLISHED
			assert(!leaving || leaf_published[leaf]);
#endif
			PUBLISH(leaf);
			root_to[root] = leaf
		:: else
		fi;
		WHEN(holds, root_lock[root] = 0);
		end()
	};
	goto end_idle;

#ifdef MOVES
move:
	/* The page's place is another one, and so are all entries that map it. */
	atomic { leaving = place; place = FILE + SPARE - place };
	do
	:: d_step { NAMED(1) -> leaf = 1 }; visit()
	:: d_step { NAMED(2) -> leaf = 2 }; visit()
	:: d_step { NAMED(3) -> leaf = 3 }; visit()
	:: d_step { !IS_LEFT(1) && !IS_LEFT(2) && !IS_LEFT(3) ->
#ifndef NO_DROP_PAGES
			IF_KVM(kvm_drop(leaving));
#endif
			leaving = 0;
			op = 0
	   };
		break
	od;
	goto end_idle;
#endif

halt:
	skip
}

init
{
	d_step {
		root_state[1] = LIVE; root_count[1] = 1; space_root[1] = 1; door_root[1] = 1;
		root_state[2] = LIVE; root_count[2] = 1; space_root[2] = 2; door_root[2] = 2;
		vcpu_root[0] = 1; vcpu_root[1] = 1; vcpu_root[2] = 2; must_pass[3] = 1;
#if START == JOINED
		leaf_state[1] = LIVE; leaf_count[1] = 2; leaf_to[1] = place; leaf_tainted[1] = 1;
		root_to[1] = 1; root_to[2] = 1; indexed = 1;
		KNOW(1, 1); PUBLISH(1)
#elif START == CLONED
		leaf_state[1] = LIVE; leaf_count[1] = 1; leaf_to[1] = 1; leaf_write[1] = 1;
		page_state[1] = LIVE; page_count[1] = 1;
		root_to[1] = 1; root_count[1] = 2; space_root[3] = 1; door_root[3] = 1
#endif
	};
#if START == CLONED
	if
	:: frozen = 0
	:: frozen = 1
	fi;
#endif
	atomic {
		run Thread(0);
		run Thread(1);
		run Thread(HOST)
	}
}
