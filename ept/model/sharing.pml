/* SPDX-License-Identifier: MIT */
/*
 * How tables are published, shared, copied, dropped and used again while CPUs run guests.
 *
 * Three guests, whose memory is one page, on two CPUs. Guest 1 has a vCPU on each CPU, guest 2 one on
 * CPU 1, guest 3 one on CPU 0; translations of a vCPU stay in its CPU's TLB while another runs there.
 * Above the page stand a leaf table and a root. Guests 1 and 2 begin with empty roots and map the same
 * file; guest 3 is cloned from guest 1. Numbers begin with 1, 0 is "none" or an absent entry. What is
 * left out stands in docs/model.md; scripts/model runs all of this.
 *
 * Asserted is, whenever a CPU can use a translation: the page is one that the guest's own tables show,
 * or showed before the operation that is under way; a page that can be written to is no other guest's;
 * tables on the path are alive and the guest's. Beside that, no process may wait for ever.
 *
 *	here			in the code
 *	Cpu			vmm/src/guest.c: guest_run, run_once, enter
 *	enter, recall		vmm/src/seat.c: seat_enter, seat_leave, seat_recall
 *	pass			vmm/src/gate.c: gate_pass
 *	begin, end		ept/src/change.c: ept_change_begin, end
 *	own, own_page		ept/src/fault.c: fault_write, write_private_leaf, copy_page; without a
 *				write, ept/src/map.c: own_border, own_middle
 *	own_root, own_child,	ept/src/own.c: ept_own_root, ept_own_child, unshare_child, replace,
 *	own_child_again, keep	copy_table, keep, sanitize
 *	link			ept/src/change.c: ept_change_link, store_fresh
 *	cancel			ept/src/change.c: ept_change_abort
 *	read_fault		ept/src/fault.c: fault_read, hold_for_fill, add_child, make_child
 *	index_get		ept/src/index.c: ept_index_get, try_lookup
 *	unmap			ept/src/map.c: edit_step, of a whole span
 *	clone			ept/src/clone.c: clone_into, protect_root, ept_space_freeze
 *	reset			ept/src/clone.c: ept_space_reset, reset_root
 *	take_*			ept/src/table.c: ept_table_take; ept/src/page.c: ept_page_take
 *	put_leaf, put_root	ept/src/table.c: ept_table_put, put_reference, drop_entries, retire
 *	put_page		ept/src/page.c: ept_page_put
 *	store_upper, store_leaf	vmm/src/commit.c: store_edits, store_plain; vmm/src/gate.c: gate_commit
 *	commit			vmm/src/commit.c: fleet_commit, store_and_flush
 *	settle			ept/src/change.c: ept_change_finish, settle_held
 *	drop			ept/src/change.c: drop_old
 *	scrub			ept/src/scrub.c: ept_scrub, ept_scrub_finish; vmm/src/commit.c: fleet_scrub
 *	kvm_*			KVM, arch/x86/kvm/mmu/, as in ept/tests/kvm_model.c
 *
 * scripts/model reads the following lists. A line that begins with FULL is a set of options with which
 * nothing may be found. One that begins with GUARD names a guard, which -DNO_... leaves out, whereupon
 * something must be found; first come the options for that.
 *
 * KVM_AT_ONCE: a store to an upper entry takes effect for running CPUs at once, as KVM's do. Without it
 * they go on with what they have cached, which is less than KVM promises. DEADLOCKS: without TLBs and
 * shadows, but with CPUs and guests that do nothing for ever.
 *
 * FULL	-DOPERATIONS=4
 * FULL	-DOPERATIONS=4 -DKVM_AT_ONCE
 * FULL	-DOPERATIONS=5 -DDEADLOCKS
 *
 * GUARD - STORE_FIRST: entries are stored before what they referred to is dropped
 * GUARD - EDITS_IN_ORDER: they are stored in the order in which the engine lists them
 * GUARD - EDIT_BY_GATE: present entries are stored by a gate
 * GUARD - INVALIDATE_FIRST: vCPUs are recalled before what was replaced is dropped
 * GUARD -DKVM_AT_ONCE INVALIDATE_LEAF: leaf stores are followed by a recall, they reach no running CPU
 * GUARD - INVALIDATE_UPPER: so are upper stores, as if they reached none either
 * GUARD -DDEADLOCKS KICK: a vCPU that is in its guest is called out
 * GUARD -DDEADLOCKS KICK_BEFORE_RUN: a kick counts that comes before KVM_RUN (immediate_exit)
 * GUARD - WAIT: the recall waits until the vCPU is out
 * GUARD -DDEADLOCKS OUT_IS_ENOUGH: and no longer: not until it has passed its gate
 * GUARD -DDEADLOCKS PASSED_IS_ENOUGH: nor where it has passed its gate and is in its guest again
 * GUARD - ENTER_UNDER_LOCK: the mark is looked at, and "in its guest" set, in one hold of the door's lock
 * GUARD - MARK_CLEARED_FIRST: the mark goes before the vCPU passes its gate, not after
 * GUARD - FLUSH_AT_GATE: at its gate the vCPU forgets its translations
 * GUARD - ROOT_AT_GATE: and takes the root of the recall
 * GUARD - COMMITTED_ROOT: which was committed, and is not one that is being prepared
 * GUARD - QUARANTINE: dead tables are not free
 * GUARD - SCRUB_BY_GATE: until a gate has wiped them
 * GUARD - REFERENCE_IN_COPY: a copy takes references on what it refers to (F6)
 * GUARD - READ_ONLY_COPY: and does not let it be written to (F3)
 * GUARD - READ_ONLY_ENTRY: entries of a root lose the right to write when it becomes shared (F18)
 * GUARD - SANITIZE: rights that a table kept while it was shared go before it is written through (F3)
 * GUARD - COUNT_UNDER_LOCK: a use count goes down under the table's lock (F11)
 * GUARD - ZERO_ONCE: only who made it 0 lets the table go (F23)
 * GUARD - LOOK_UNDER_LOCK: a use count of 1 is seen under the table's lock
 * GUARD - SECOND_LOOK: one above 1 is looked at again, if the lock was given up to take a table (F5)
 * GUARD - FILL_UNDER_LOCK: an absent entry of a shared table is looked at again under its lock (F21)
 * GUARD - FROZEN_UNDER_LOCK: whether a space is frozen is looked at under its lock (B2)
 * GUARD - LEAVE_INDEX: a table leaves the index in the hold of its lock that changes it (CVE-2025-38084)
 * GUARD -DDEADLOCKS INDEX_TRIES: who has the index's lock only tries a table's
 * GUARD - KVM_SYNC_AT_LINK: KVM looks again at a leaf table that was stored to when it links its shadow
 * GUARD - KVM_SYNC_AT_ROOT: and when a vCPU takes a root
 */

#ifndef OPERATIONS
#define OPERATIONS 4
#endif

#define GUESTS 3
#define CPUS 2
#define ROOTS 3
#define LEAVES 3
#define PAGES 3
#define FILE 1 /* the file's page; the others are private ones */

#define FREE 0
#define LIVE 1
#define QUARANTINED 2

/* Seats: one for each vCPU. */
#define SEATS 4
#define SEAT(cpu, guest) (guest == 1 -> cpu : guest)

/* Shadows of a leaf table: below entries that grant write, and below others. */
#define ROLES ((LEAVES + 1) * 2)
#define ROLE(leaf, writable) ((leaf) * 2 + (writable))

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

byte page_count[PAGES + 1];
byte page_state[PAGES + 1];

/* The share index. All keys are equal: a leaf table that shows the file. */
byte indexed;
bit index_lock;

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
bit second; /* CPU 1 runs guest 2, and not guest 1 */
byte vcpu_root[SEATS];
byte in_guest[CPUS];
bit kicked[CPUS];
#ifdef NO_KICK_BEFORE_RUN
bit running[CPUS];
#endif

#ifndef DEADLOCKS
byte tlb_page[SEATS];
bit tlb_write[SEATS];
#ifdef KVM_AT_ONCE
byte tlb_root[SEATS]; /* by way of which the translation came */
#endif
byte shadow_leaf[ROOTS + 1];
bit shadow_role[ROOTS + 1];
byte shadow_page[ROLES];
bit shadow_write[ROLES];
bit shadow_unsync[ROLES];
#endif

#define IS_PRIVATE(page) ((page) > FILE)
#define IS_SHARED(leaf) (leaf_count[leaf] > 1)
#define WHEN(condition, statements) if :: condition -> statements :: else fi

/* ---- KVM ---- */

#ifdef DEADLOCKS
#define IF_KVM(statements) skip
#else
#define IF_KVM(statements) statements

inline tlb_drop(seat)
{
	tlb_page[seat] = 0;
	tlb_write[seat] = 0;
#ifdef KVM_AT_ONCE
	tlb_root[seat] = 0
#endif
}

inline shadow_drop(role)
{
	shadow_page[role] = 0;
	shadow_write[role] = 0;
	shadow_unsync[role] = 0
}

/* Looks again at a leaf table that a gate has stored to: what memory no longer says goes. */
inline kvm_sync(leaf, role)
{
	WHEN(shadow_unsync[role] && (shadow_page[role] != leaf_to[leaf] ||
				     shadow_write[role] != leaf_write[leaf]), shadow_drop(role));
	shadow_unsync[role] = 0
}

/* A gate's store to a root, which KVM write-protects: its shadow's entry goes. */
inline kvm_stored_upper(root)
{
	shadow_leaf[root] = 0;
	shadow_role[root] = 0;
#ifdef KVM_AT_ONCE
	WHEN(tlb_root[0] == root, tlb_drop(0));
	WHEN(tlb_root[1] == root, tlb_drop(1));
	WHEN(tlb_root[2] == root, tlb_drop(2));
	WHEN(tlb_root[3] == root, tlb_drop(3))
#endif
}

/* A gate's store to a leaf table: its shadows go out of sync, and nobody notices. */
inline kvm_stored_leaf(leaf)
{
	shadow_unsync[ROLE(leaf, 0)] = shadow_page[ROLE(leaf, 0)] != 0;
	shadow_unsync[ROLE(leaf, 1)] = shadow_page[ROLE(leaf, 1)] != 0
}

/* The host takes a page's memory back: all translations to it go. */
inline kvm_discard(page)
{
	WHEN(shadow_page[ROLE(1, 0)] == page, shadow_drop(ROLE(1, 0)));
	WHEN(shadow_page[ROLE(1, 1)] == page, shadow_drop(ROLE(1, 1)));
	WHEN(shadow_page[ROLE(2, 0)] == page, shadow_drop(ROLE(2, 0)));
	WHEN(shadow_page[ROLE(2, 1)] == page, shadow_drop(ROLE(2, 1)));
	WHEN(shadow_page[ROLE(3, 0)] == page, shadow_drop(ROLE(3, 0)));
	WHEN(shadow_page[ROLE(3, 1)] == page, shadow_drop(ROLE(3, 1)));
	WHEN(tlb_page[0] == page, tlb_drop(0));
	WHEN(tlb_page[1] == page, tlb_drop(1));
	WHEN(tlb_page[2] == page, tlb_drop(2));
	WHEN(tlb_page[3] == page, tlb_drop(3))
}

#define SHADOW(root) ROLE(shadow_leaf[root], shadow_role[root])

/* Links the shadow of a leaf table anew, for the page or for another one that the table translates. */
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

/* ---- what is asserted ---- */

#define SHOWS(root, page) (root && root_to[root] && leaf_to[root_to[root]] == page)
#define SEES(guest, page) \
	(SHOWS(space_root[guest], page) || SHOWS(old_root[guest], page) || old_page[guest] == page)

inline check_page(guest, page, write)
{
	assert(SEES(guest, page));
	assert(page == FILE || (page_state[page] == LIVE && page_count[page] > 0));
	assert(!write || page != FILE);
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
#ifdef KVM_AT_ONCE
	tlb_root[seat] = root;
#endif
	check_page(guest, tlb_page[seat], tlb_write[seat])
}
#endif /* not DEADLOCKS */

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
		leaf_state[out] = LIVE;
		leaf_count[out] = 1;
		leaf_tainted[out] = 0
	fi
}

inline take_page(out)
{
	out = FILE + 1;
	do
	:: out <= PAGES && page_state[out] != FREE -> out++
	:: else -> break
	od;
	if
	:: out > PAGES -> out = 0
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
	leaf_write[leaf] = 0
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

inline retire_leaf(leaf)
{
	assert(leaf_state[leaf] == LIVE);
	put_page(leaf_to[leaf]);
#ifdef NO_QUARANTINE
	free_leaf(leaf)
#else
	leaf_state[leaf] = QUARANTINED
#endif
}

inline leave_index(leaf)
{
	WHEN(indexed == leaf, indexed = 0)
}

inline put_leaf(leaf)
{
#ifdef NO_COUNT_UNDER_LOCK
	count = leaf_count[leaf];
#endif
	atomic {
#ifndef NO_COUNT_UNDER_LOCK
		!leaf_lock[leaf];
		count = leaf_count[leaf];
#endif
		!index_lock;
		assert(count > 0 && leaf_state[leaf] == LIVE);
		leaf_count[leaf] = count - 1;
		count = leaf_count[leaf];
		WHEN(count == 0, leave_index(leaf))
#ifdef NO_ZERO_ONCE
	};
	atomic {
		count = leaf_count[leaf];
#else
		;
#endif
		WHEN(count == 0, retire_leaf(leaf));
		count = 0
	}
}

/* Drops a reference on a root, and if it dies the one of its entry. */
inline put_root(root, leaf)
{
	!root_lock[root];
	assert(root_count[root] > 0 && root_state[root] == LIVE);
	root_count[root]--;
	if
	:: root_count[root] == 0 ->
		leaf = root_to[root];
		if
		:: leaf -> put_leaf(leaf)
		:: else
		fi;
#ifdef NO_QUARANTINE
		free_root(root);
#else
		root_state[root] = QUARANTINED;
#endif
		leaf = 0
	:: else
	fi
}

inline scrub_root(root)
{
	if
	:: root_state[root] == QUARANTINED ->
#ifndef NO_SCRUB_BY_GATE
		IF_KVM(kvm_stored_upper(root));
#endif
		free_root(root)
	:: else
	fi
}

inline scrub_leaf(leaf)
{
	if
	:: leaf_state[leaf] == QUARANTINED ->
#ifndef NO_SCRUB_BY_GATE
		IF_KVM(kvm_stored_leaf(leaf));
#endif
		free_leaf(leaf)
	:: else
	fi
}

inline scrub_page(page)
{
	if
	:: page_state[page] == QUARANTINED ->
#ifndef NO_DISCARD
		IF_KVM(kvm_discard(page));
#endif
		free_page(page)
	:: else
	fi
}

inline scrub()
{
	d_step {
		scrub_root(1); scrub_root(2); scrub_root(3);
		scrub_leaf(1); scrub_leaf(2); scrub_leaf(3);
		scrub_page(2); scrub_page(3)
	}
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

/* Afterwards each vCPU of the space is out, or was and has passed its gate since. */
inline recall(guest)
{
	if
	:: guest != 2 -> atomic { mark(0, guest) }; atomic { IS_OUT(0, guest); was_in = 0 }
	:: else
	fi;
	if
	:: guest != 3 -> atomic { mark(1, guest) }; atomic { IS_OUT(1, guest); was_in = 0 }
	:: else
	fi
}

/* ---- operations ---- */

#ifdef NO_FROZEN_UNDER_LOCK
#define IS_FROZEN(guest) false
#else
#define IS_FROZEN(guest) (guest == 1 && frozen)
#endif

/*
 * What a process is about to do in its operation.
 *	root, leaf	what it changes; holds: the leaf table, or a root to be filled, is locked
 *	new_leaf	a table of its own making, in place of @leaf
 *	new_page	what the guest is to write to; writes: whether it is to write
 *	was_root	the root that @root is a copy of, or takes the place of
 *	edit_sanitize	the leaf's entry loses the right to write
 *	edit_upper	the root's entry becomes upper_leaf, upper_write
 *	edit_leaf	the leaf's entry becomes new_page, and grants write
 *	drop_leaf, drop_page	what these replaced
 *	flush		something lost rights; flush_upper: in upper entries only
 */
#define OPERATION \
	byte guest, root, leaf, new_leaf, new_page, was_root, upper_leaf, drop_leaf, drop_page; \
	byte n, count; \
	bit writes, holds, edit_sanitize, edit_upper, upper_write, edit_leaf, flush, flush_upper, \
	    again, failed, was_in

inline forget()
{
	root = 0; leaf = 0; new_leaf = 0; new_page = 0; was_root = 0; upper_leaf = 0;
	drop_leaf = 0; drop_page = 0; n = 0; count = 0;
	holds = 0; edit_sanitize = 0; edit_upper = 0; upper_write = 0; edit_leaf = 0;
	flush = 0; flush_upper = 0; again = 0; failed = 0; was_in = 0;
	writes = 0
}

inline begin(guest)
{
	!space_lock[guest];
	space_lock[guest] = 1;
	if
	:: true
	:: root_state[1] == QUARANTINED || root_state[2] == QUARANTINED ||
	   root_state[3] == QUARANTINED || leaf_state[1] == QUARANTINED ||
	   leaf_state[2] == QUARANTINED || leaf_state[3] == QUARANTINED ||
	   page_state[2] == QUARANTINED || page_state[3] == QUARANTINED -> scrub()
	fi;
	root = space_root[guest];
	old_root[guest] = root;
	old_leaf[guest] = root_to[root];
	old_page[guest] = leaf_to[root_to[root]]
}

inline forget_old(guest)
{
	old_root[guest] = 0;
	old_leaf[guest] = 0;
	old_page[guest] = 0
}

inline end(guest)
{
	forget_old(guest);
	space_lock[guest] = 0;
	forget()
}

#ifdef NO_REFERENCE_IN_COPY
#define GET_LEAF(leaf) skip
#define GET_PAGE(page) skip
#else
#define GET_LEAF(leaf) WHEN(leaf, leaf_count[leaf]++; leaf_tainted[leaf] = 1)
#define GET_PAGE(page) WHEN(IS_PRIVATE(page), page_count[page]++)
#endif

inline own_root(guest)
{
	if
	:: root_count[root] > 1 ->
		take_root(n);
		if
		:: n ->
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
		:: else -> failed = 1
		fi
	:: else
	fi
}

/* The root's entry is to point at @to: at once, where nobody knows the root yet. */
inline link(to)
{
	if
	:: was_root ->
		n = root_to[root];
		root_to[root] = to;
		root_write[root] = writes;
		if
		:: n -> put_leaf(n)
		:: else
		fi;
		n = 0
	:: else ->
		drop_leaf = root_to[root];
		edit_upper = 1;
		upper_leaf = to;
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

/* Sets @again where the lock had to be given up. */
inline own_child()
{
#ifdef NO_LOOK_UNDER_LOCK
	n = leaf_count[leaf];
	atomic {
		!leaf_lock[leaf];
#else
	atomic {
		!leaf_lock[leaf];
		n = leaf_count[leaf];
#endif
		if
		:: n == 1 -> keep()
		:: else ->
			take_leaf(new_leaf);
			again = new_leaf != 0;
			failed = !new_leaf
		fi;
		n = 0
	}
}

inline own_child_again()
{
	!leaf_lock[leaf];
	again = 0;
	if
#ifndef NO_SECOND_LOOK
	:: !IS_SHARED(leaf) -> free_leaf(new_leaf); new_leaf = 0; keep()
#endif
	:: else ->
		assert(IS_SHARED(leaf)); /* Whoever has a table alone need not copy it. */
		leaf_to[new_leaf] = leaf_to[leaf];
#ifdef NO_READ_ONLY_COPY
		leaf_write[new_leaf] = leaf_write[leaf];
#endif
		GET_PAGE(leaf_to[leaf]);
		flush = 1;
		flush_upper = !was_root;
		link(new_leaf)
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
		if
		:: new_leaf ->
			leaf_to[new_leaf] = new_page;
			leaf_write[new_leaf] = 1;
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

/* Everything is as before. Only leaf tables can run out when something has been done already. */
inline cancel(guest)
{
	WHEN(new_page, free_page(new_page));
	if
	:: was_root ->
		n = root_to[root];
		free_root(root);
		space_root[guest] = was_root;
		if
		:: n -> put_leaf(n)
		:: else
		fi
	:: else
	fi
}

#if defined(NO_INVALIDATE_LEAF)
#define RECALLS (flush && (was_root || flush_upper))
#elif defined(NO_INVALIDATE_UPPER)
#define RECALLS (flush && !flush_upper)
#else
#define RECALLS flush
#endif

inline store()
{
#ifdef NO_EDITS_IN_ORDER
	d_step { WHEN(edit_upper, store_upper(root, upper_leaf, upper_write)) };
#endif
	d_step { WHEN(edit_sanitize, store_leaf(leaf, leaf_to[leaf], 0)) };
#ifndef NO_EDITS_IN_ORDER
	d_step { WHEN(edit_upper, store_upper(root, upper_leaf, upper_write)) };
#endif
	d_step { WHEN(edit_leaf, store_leaf(leaf, new_page, 1)) }
}

inline invalidate(guest)
{
	if
	:: RECALLS -> recall(guest)
	:: else
	fi
}

/* What was held leaves the index and is unlocked. */
inline settle(guest)
{
	atomic {
		!holds || !index_lock;
		forget_old(guest);
		if
		:: holds ->
#ifndef NO_LEAVE_INDEX
			leave_index(leaf);
#endif
			WHEN(writes, leaf_tainted[leaf] = 0);
			leaf_lock[leaf] = 0
		:: else
		fi
	}
#ifdef NO_LEAVE_INDEX
	;
	if
	:: holds -> leave_index(leaf)
	:: else
	fi
#endif
}

inline drop()
{
	if
	:: drop_leaf -> put_leaf(drop_leaf); drop_leaf = 0
	:: was_root -> atomic { put_root(was_root, n); was_root = 0 }
	:: else -> d_step { put_page(drop_page); drop_page = 0 }
	fi
}

inline commit(guest)
{
#if defined(NO_STORE_FIRST)
	drop();
	store();
	invalidate(guest);
	settle(guest)
#elif defined(NO_INVALIDATE_FIRST)
	store();
	settle(guest);
	drop();
	invalidate(guest)
#else
	store();
	invalidate(guest);
	settle(guest);
	drop()
#endif
}

/* Tables that others use become the guest's own. For a write, so does the page. */
inline own(guest, write)
{
	atomic {
		begin(guest);
		writes = write;
		if
		:: IS_FROZEN(guest) -> failed = 1
		:: !IS_FROZEN(guest) && writes -> take_page(new_page); failed = !new_page
		:: else
		fi;
		if
		:: failed
		:: else -> own_root(guest)
		fi;
		leaf = root_to[root];
		if
		:: failed
		:: !failed && leaf -> own_child()
		:: !failed && !leaf && writes ->
			take_leaf(new_leaf);
			if
			:: new_leaf -> leaf_to[new_leaf] = FILE; link(new_leaf)
			:: else -> failed = 1
			fi
		:: else
		fi
	};
	atomic {
		if
		:: again -> own_child_again()
		:: else
		fi;
		if
		:: failed -> cancel(guest)
		:: !failed && writes -> own_page()
		:: else
		fi
	};
	if
	:: failed
	:: else -> commit(guest)
	fi;
	atomic { end(guest) }
}

/* A table that others have; none, if there is none. */
inline index_get()
{
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
			assert(leaf_state[leaf] == LIVE && leaf_count[leaf] > 0);
			leaf_count[leaf]++;
			leaf_tainted[leaf] = 1
		:: else
		fi
	}
}

inline read_fault(guest)
{
	atomic {
		begin(guest);
		n = root_to[root];
		holds = root_count[root] > 1
	};
	atomic {
		!holds || !root_lock[root];
		WHEN(holds, root_lock[root] = 1);
#ifndef NO_FILL_UNDER_LOCK
		n = root_to[root];
#endif
	};
	if
	:: n
	:: else ->
		index_get();
		atomic {
			if
			:: !leaf ->
				take_leaf(leaf);
				if
				:: leaf ->
					leaf_to[leaf] = FILE;
					!index_lock;
					WHEN(!indexed, indexed = leaf)
				:: else
				fi
			:: else
			fi
		};
		if
		:: leaf ->
			d_step {
				/* By hand: KVM may hold nothing of the entry. */
				assert(!root_to[root]);
				root_to[root] = leaf
			}
		:: else
		fi
	fi;
	atomic {
		WHEN(holds, root_lock[root] = 0);
		end(guest)
	}
}

inline unmap(guest)
{
	atomic {
		begin(guest);
		if
		:: IS_FROZEN(guest) -> failed = 1
		:: else -> own_root(guest)
		fi
	};
	if
	:: was_root -> commit(guest)
	:: else
	fi;
	if
	:: failed || !root_to[root]
	:: else ->
		d_step {
			old_root[guest] = root;
			old_leaf[guest] = root_to[root];
			old_page[guest] = leaf_to[root_to[root]];
			edit_upper = 1;
			drop_leaf = root_to[root];
			flush = 1;
			flush_upper = 1
		};
		commit(guest)
	fi;
	atomic { end(guest) }
}

/* Guest 3 is made; if asked to, guest 1 is frozen. */
inline clone(freeze)
{
	atomic {
		begin(1);
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
	commit(1);
	atomic {
		frozen = freeze;
		space_root[3] = root;
		door_root[3] = root;
		end(1)
	}
}

/* Guest 3 has its parent's root again. */
inline reset()
{
	atomic {
		begin(3);
		!space_lock[1];
		if
		:: space_root[1] != root ->
			was_root = root;
			root = space_root[1];
			root_count[root]++;
			space_root[3] = root;
			flush = 1
		:: else
		fi
	};
	if
	:: flush -> commit(3)
	:: else
	fi;
	atomic { end(3) }
}

/* ---- processes ---- */

#define ROOT vcpu_root[mine]

/* Leaves in_guest set, or in @n the root with which to pass the gate. */
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
	d_step {
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
#ifdef NO_MARK_CLEARED_FIRST
	;
	must_pass[mine] = 0
#endif
}

#define GRANTS_READ (root_to[ROOT] && leaf_to[root_to[ROOT]])
#define GRANTS_WRITE (GRANTS_READ && root_write[ROOT] && leaf_write[root_to[ROOT]])
#define MAY_FAULT(write) (budget && (!(write) || guest != 1 || !frozen))

#ifdef DEADLOCKS
#define TLB_READ false
#define TLB_WRITE false
#else
#define TLB_READ tlb_page[mine]
#define TLB_WRITE tlb_write[mine]
#define SHADOW_READ (shadow_leaf[ROOT] && shadow_page[SHADOW(ROOT)])
#define SHADOW_WRITE (SHADOW_READ && shadow_role[ROOT] && shadow_write[SHADOW(ROOT)])
#define SHADOW_IS_CACHED \
	(tlb_page[mine] == shadow_page[SHADOW(ROOT)] && tlb_write[mine] == SHADOW_WRITE)
#endif

proctype Cpu(byte cpu)
{
	OPERATION;
	byte mine, fault;

end_out:
	do
	:: atomic {
		if
		:: cpu == 0 || !second -> guest = 1
		:: cpu == 1 && second -> guest = 2
		:: cpu == 0 && space_root[3] -> guest = 3
#ifdef DEADLOCKS
		:: break
#endif
		fi;
		mine = SEAT(cpu, guest);
		enter()
	   };
		do
		:: n -> pass(); enter()
		:: else -> break
		od;
#ifdef NO_KICK_BEFORE_RUN
		skip;
		running[cpu] = 1;
#endif
end_in:
		do
		/* It is called out; guests 1 and 3 take turns; or it does nothing for ever. */
		:: kicked[cpu] -> break
		:: cpu == 0 && space_root[3] -> break
#ifdef DEADLOCKS
		:: goto spin
#else
		/* It uses what its TLB has; walks; has KVM link the table, or fill in what memory grants. */
		:: d_step { TLB_READ -> check_page(guest, tlb_page[mine], tlb_write[mine]) }
		:: d_step { SHADOW_READ && !SHADOW_IS_CACHED -> walk(guest, mine, ROOT) }
		:: d_step { root_to[ROOT] && !shadow_leaf[ROOT] -> kvm_link(ROOT) }
		:: d_step {
			(GRANTS_READ && !SHADOW_READ) || (GRANTS_WRITE && !SHADOW_WRITE) ->
			kvm_fetch(ROOT);
			WHEN(SHADOW_READ && !SHADOW_IS_CACHED, walk(guest, mine, ROOT))
		   }
#endif
		:: d_step { MAY_FAULT(0) && !TLB_READ && !GRANTS_READ -> fault = 1; budget-- }; break
		:: d_step { MAY_FAULT(1) && !TLB_WRITE && !GRANTS_WRITE -> fault = 2; budget-- }; break
		od;
		goto out;
spin:
end_spin:
		/* A guest that does nothing for ever. */
		kicked[cpu];
out:
		atomic {
			in_guest[cpu] = 0;
			kicked[cpu] = 0;
#ifdef NO_KICK_BEFORE_RUN
			running[cpu] = 0;
#endif
			WHEN(!fault, guest = 0)
		};
		if
		:: fault == 1 -> fault = 0; read_fault(guest)
		:: fault == 2 -> fault = 0; own(guest, 1)
		:: else
		fi;
		guest = 0;
		mine = 0
	od
}

/* What is asked for from outside. */
proctype Host()
{
	OPERATION;

end_host:
	do
	:: atomic { budget && !frozen && root_to[space_root[1]] -> budget-- }; unmap(1)
	:: atomic { budget && root_to[space_root[2]] -> budget-- }; unmap(2)
	:: atomic { budget && space_root[3] -> budget-- }; own(3, 0)
	:: atomic { budget && !space_root[3] -> budget-- }; clone(0)
	:: atomic { budget && !space_root[3] -> budget-- }; clone(1)
	:: atomic { budget && space_root[3] && frozen -> budget-- }; reset()
	:: break
	od
}

init
{
	atomic {
		root_state[1] = LIVE; root_count[1] = 1; space_root[1] = 1; door_root[1] = 1;
		root_state[2] = LIVE; root_count[2] = 1; space_root[2] = 2; door_root[2] = 2;
		vcpu_root[0] = 1; vcpu_root[1] = 1; vcpu_root[2] = 2; must_pass[3] = 1;
#ifdef CLONED
		leaf_state[1] = LIVE; leaf_count[1] = 1; leaf_to[1] = 2; leaf_write[1] = 1;
		page_state[2] = LIVE; page_count[2] = 1;
		root_to[1] = 1; root_count[1] = 2; space_root[3] = 1; door_root[3] = 1;
		if
		:: frozen = 0
		:: frozen = 1
		fi;
#endif
		if
		:: second = 0
		:: second = 1
		fi;
		run Cpu(0);
		run Cpu(1);
		run Host()
	}
}
