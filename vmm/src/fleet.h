/* SPDX-License-Identifier: MIT */
/*
 * A fleet: one KVM VM in which each guest is a vCPU, or several. All guests map the same memory file
 * and run the same program; with sharing, they are clones of one template space and share its tables.
 *
 * A seat is a vCPU with its thread, prepared in advance; launching a guest takes a seat, clones a
 * space and sets registers.
 */
#ifndef VMM_FLEET_H
#define VMM_FLEET_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#include "ept/ept.h"
#include "error.h"
#include "gate.h"
#include "host.h"
#include "memory.h"
#include "program.h"
#include "s2vm/guest_abi.h"
#include "serial.h"

/* How large the table entries are that map the memory file. */
enum fleet_entries {
	ENTRIES_AUTO,  /* 2 MiB if the file's own pages are that large */
	ENTRIES_SMALL, /* 4 KiB */
	ENTRIES_LARGE, /* 2 MiB wherever alignment allows */
};

/* Sharing domains of a fleet: guests of two have no table in common (B8). */
#define FLEET_DOMAINS 16

/* Bytes that a guest finds in its memory in place of those that all guests begin with. */
struct fleet_bytes {
	struct gpa at;
	const void *bytes;
	size_t count;
};

/* The seed of its random numbers, and its generation id. */
#define FLEET_OWN_BYTES 2

/* What a Linux guest has of its own. */
struct fleet_computer {
	struct disk *disks; /* which no other guest has */
	unsigned disk_count;
	const struct board_net *nets;
	unsigned net_count;
	struct serial_output output; /* called by one thread at a time */
	struct fleet_bytes own[FLEET_OWN_BYTES]; /* @count 0 for none */
};

struct fleet_config {
	enum engine engine;
	unsigned guests;
	unsigned cpus; /* of each guest, with a seat for each; 0 counts as 1 */
	const struct memfile *file;
	enum ept_mode mode;
	enum fleet_entries entries;
	const struct program *program;
	const struct linux_start *linux_start; /* guests are Linux, and start so; */
	const struct guest_state *state; /* or go on from here; both NULL for @program */
	/* By number of guest, for Linux guests. Each is read when its guest is launched, and outlives it. */
	const struct fleet_computer *computers;
	bool sharing;
	const bool *alone;	  /* by number of guest: not this one, all the same; NULL for none */
	const uint8_t *domains;	  /* by number of guest: its sharing domain; NULL for 0 for all */
	unsigned domain_count;	  /* 0 counts as 1; at most FLEET_DOMAINS */
	bool quiet;		  /* guests' text is not printed */
	unsigned private_levels;  /* of tables that are never shared, bit n for level n */
	unsigned share_threshold; /* of ept_config, as the next two */
	uint64_t share_from;
	uint64_t share_until;
	uint32_t trace_capacity; /* events to keep, a power of two; 0 for none */
	uint64_t spare_pages; /* to which pages of the file can be moved */
	unsigned snapshots;   /* that there is to be room for, each as large as a guest */
};

/* How a guest is, or how it ended. */
enum guest_status {
	GUEST_RUNNING,
	GUEST_OK,	  /* it exited with status 0 */
	GUEST_FAILED,	  /* it exited with another status */
	GUEST_FAULT,	  /* it did what it may not */
	GUEST_TIMEOUT,	  /* it ran longer than allowed */
	GUEST_STOPPED,	  /* the user stopped it */
	GUEST_FILE,	  /* its memory file was cut off under it */
	GUEST_HOST_ERROR, /* KVM or the VMM could not go on with it */
	GUEST_RESET,	  /* it wants to start anew */
};

/* Write faults that were served, and where their time went in the VMM. */
struct guest_fault_times {
	uint64_t count;
	uint64_t engine_ns;
	uint64_t edit_ns;
	uint64_t gate_runs;
};

/* A point in time of a guest, and what had happened to it by then. */
struct guest_mark {
	uint64_t ns;
	uint64_t kvm_faults; /* stage-2 faults that KVM took for its vCPU */
	struct guest_fault_times write_faults;
	bool set;
};

struct guest {
	unsigned id;
	struct fleet *fleet;
	struct seat *seat; /* of its first CPU; those of the others follow */
	unsigned cpus;
	unsigned cpus_running;	/* guarded by the fleet's lock */
	struct seat *ended_by;	/* the same: the first that ended it, which writes the report */
	struct ept_space *space;
	struct board *board; /* its devices; NULL for programs */
	struct fleet_moment *origin; /* what a reset takes it back to; NULL where there is nothing */
	uint64_t argument;
	uint64_t seed;
	enum guest_status status; /* written with the fleet's lock, to be read when it has ended */
	uint64_t exit_value;
	uint8_t result[32];
	unsigned results;
	struct guest_mark launched; /* launch was asked for */
	struct guest_mark first_result;
	struct guest_mark marks[S2VM_MARKS];
	_Atomic uint64_t tables_before_write; /* in use in the whole fleet when its first write faulted */
	char report[512]; /* what it did wrong, where, and its registers */
};

/*
 * Between a seat's thread and whoever wants its vCPU out of its guest. The thread looks here before
 * its vCPU enters the guest, and says so here; others leave here what they want, and take the vCPU
 * out if it is in. Whoever holds engine locks may wait for it to be out, and for nothing more: the
 * thread may next want these locks itself.
 */
struct seat_door {
	pthread_mutex_t lock; /* the last in the order of locks */
	pthread_cond_t out;   /* it has come out once more */
	pthread_cond_t told;  /* it waits, and start or stop has changed */
	uint64_t exits;	      /* how often it has come out */
	bool in_guest;	      /* or about to be: immediate_exit and a signal take it out */
	pthread_t runner;     /* where in_guest: who runs it */
	/* What its guest is translated by; NULL for none. It is set before the guest is entered. */
	_Atomic(const struct ept_space *) space;
	bool called;		/* its guest's devices have work */
	bool must_pass;		/* its gate, before it enters its guest again, */
	struct fpa root;	/* and then have this root, which is its space's */
	bool reset;		/* it is to wait for a start before it enters */
	bool waiting;		/* it does */
	bool start;		/* and is to begin now, */
	uint8_t vector;		/* where this says */
	bool occupied;		/* there is a guest, which has not ended */
	unsigned rests;		/* how many want its thread to rest */
	bool resting;		/* it does: the vCPU has passed its gate, and nobody uses it */
	enum guest_status stop; /* what its guest is to end with; GUEST_RUNNING for no end */
};

struct seat {
	struct fleet *fleet;
	struct gate_vcpu vcpu;
	struct seat_door door;
	pthread_t thread;
	pthread_cond_t wake; /* with the fleet's lock: there is a guest, or the fleet ends */
	struct guest *guest; /* that its thread is to run, or runs */
	struct guest *owner; /* whose vCPU it is, from when that was prepared */
	bool ending;
	struct ept_change change;
	struct guest_fault_times write_faults;
	/* The last fault that changed nothing, to notice one that does not go away. */
	struct gpa idle_gpa;
	unsigned idle_faults;
	struct host_counter faults;
	int stats_fd;
};

/* A write to a watched page of the memory file that is about to happen. */
struct fleet_write {
	struct guest *guest; /* whose; NULL for fleet_write_file() */
	struct gpa gpa;	     /* of the guest's */
	struct file_page page;
};

typedef void fleet_watcher(void *context, const struct fleet_write *write);

#define FLEET_SNAPSHOTS 64

/* Regions that each guest begins with: of a program, or of a computer. */
#define FLEET_REGIONS (PROGRAM_SEGMENTS + 2)

/* Files, as planned regions name them. */
enum { FLEET_FILE, FLEET_OTHER_FILE };

struct fleet {
	struct fleet_config config;
	struct host host;
	int vm;
	int stats_fd;
	struct memory memory;
	struct gate gate;
	struct ept *ept;
	int file_number;
	int other_number; /* the program's image, or where a computer has no memory */
	int spare_number;
	struct ept_region regions[FLEET_REGIONS]; /* with FLEET_FILE or FLEET_OTHER_FILE */
	unsigned region_count;
	struct ept_space *templates[FLEET_DOMAINS]; /* by domain; NULL where guests are no clones */
	struct ept_space *launch_from; /* what new guests of its domain are clones of; NULL for templates */
	uint64_t tables_needed;		  /* by a guest of its own */
	/* Held by who is no seat's thread: for reading to work on guests, for writing to launch or pause. */
	pthread_rwlock_t operations;
	bool *held_doors; /* by seat, while the fleet is paused */
	fleet_watcher *watcher;
	void *watcher_context;

	/*
	 * Held for reading by who reads guest memory for a guest's call, and for writing by who lets
	 * such memory have another use. The first in the order of locks.
	 */
	pthread_rwlock_t memory_lock;

	pthread_mutex_t service_lock; /* guards the service vCPU; taken with engine locks held */
	struct gate_vcpu service;
	struct ept_change change; /* of the thread that made the fleet */

	pthread_mutex_t lock; /* guards seats' and guests' status; not held while guests run */
	pthread_cond_t ended; /* some guest ended */
	struct seat *seats;
	unsigned seat_count;
	struct listener *listener; /* to guests' networks; NULL if none has any yet */
	struct guest *guests;
	unsigned guest_count;
	unsigned running;
	struct ept_space *snapshots[FLEET_SNAPSHOTS]; /* those that exist */

	pthread_mutex_t moments_lock; /* guards these; one guest rests at a time; before all other locks */
	struct fleet_moment *moments;	    /* all of them */
	struct fleet_moment *first_moment;  /* what the first guests go on from; NULL where they begin */
	struct fleet_moment *launch_moment; /* what new guests go on from */
};

/* Nanoseconds of the monotonic clock. */
static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/*
 * Makes a fleet with its seats and, with sharing, its frozen template. The memory file and the
 * program must outlive it. On failure nothing is left.
 */
bool fleet_create(struct fleet **fleet, const struct fleet_config *config, struct error *error);

/* Ends all guests and frees everything. */
void fleet_destroy(struct fleet *fleet);

/*
 * Launches the next guest on the next seat, and returns while it runs. Guests' numbers count from 0. A
 * guest's seat and its space stay its own until the fleet is destroyed.
 */
bool fleet_launch(struct fleet *fleet, uint64_t argument, struct guest **guest,
		  struct error *error);

/* The same up to where the guest would begin to run, for guest_step(). */
bool fleet_prepare(struct fleet *fleet, uint64_t argument, struct guest **guest,
		   struct error *error);

/*
 * Waits until all guests have ended, or @deadline_ns has passed, or *@stop has become true; false if
 * some still run.
 */
bool fleet_wait(struct fleet *fleet, uint64_t deadline_ns, const volatile bool *stop);

/* Ends all guests that still run, with @status, and waits for them. */
void fleet_stop(struct fleet *fleet, enum guest_status status);

/* The region that shows guests of a program the whole memory file. */
struct ept_region fleet_file_region(const struct fleet *fleet);

/*
 * Does a change of the engine's, all of its steps: on the vCPU of @seat, which stopped with a fault in
 * its guest that the change is for, or with NULL on the fleet's service vCPU. When it returns no vCPU
 * can use any more what the change has taken away.
 */
bool fleet_commit(struct fleet *fleet, struct seat *seat, struct ept_change *change,
		  struct error *error);

/*
 * Takes all vCPUs of @space out of their guest, and makes them pass their gates and have @root before
 * they enter it again. The space is locked.
 */
void fleet_recall(struct fleet *fleet, const struct ept_space *space, struct fpa root);

/* Scrubs some quarantined tables and discards dead pages; false if there was nothing to gain. */
bool fleet_scrub(struct fleet *fleet);

/* seat.c: vCPUs with their threads. */
void seat_install_kick(void);
bool seat_create(struct fleet *fleet, unsigned index, struct error *error);
void seat_destroy(struct seat *seat);

/* The seat's next guest is one of @space, with @root. All its CPUs but the first wait for a start. */
void seat_take(struct seat *seat, const struct ept_space *space, struct fpa root);

/* What a seat's thread is to do next. */
struct seat_order {
	enum { SEAT_ENTER, SEAT_PASS, SEAT_RESET, SEAT_REST, SEAT_WORK, SEAT_STOP } what;
	struct fpa root;	/* PASS, RESET, REST: which to have afterwards */
	enum guest_status stop; /* SEAT_STOP: what the guest ends with */
};

/* Before each entry of its guest; the vCPU counts as being in there only with SEAT_ENTER. */
struct seat_order seat_enter(struct seat *seat);
void seat_leave(struct seat *seat);

/*
 * From any thread, without waiting: the seat's CPU is to wait for a start, whatever it does; and it
 * is to begin in real mode where @vector says, if it waits.
 */
void seat_reset(struct seat *seat);
void seat_start(struct seat *seat, uint8_t vector);

/* After SEAT_RESET: waits for the start. False if the guest is to end. */
bool seat_wait_for_start(struct seat *seat, uint8_t *vector, struct fpa *root);

/* Whether somebody has asked the seat's guest to end. */
bool seat_stops(struct seat *seat);

/* By the seat's thread: its guest has ended. */
void seat_clear(struct seat *seat);
/*
 * Gets the seat's thread to do the work of its guest's devices before the guest goes on, and takes
 * the vCPU out of its guest for that. Does not wait for it. From any thread, with no engine lock needed.
 */
void seat_call(struct seat *seat);

/* Asks a seat's guest to end. */
void seat_stop(struct seat *seat, enum guest_status status);

/* If the seat's guest is one of @space: see fleet_recall(). Returns when the vCPU is out. */
void seat_recall(struct seat *seat, const struct ept_space *space, struct fpa root);

/*
 * Calls the seat's vCPU out, and returns when its thread rests: the vCPU has passed its gate, and who
 * called may use it, and the guest's devices, until seat_release(). False, with nothing to release, if the
 * seat's guest ends or has ended. With no engine lock held.
 */
bool seat_call_to_rest(struct seat *seat);
void seat_release(struct seat *seat);

/* Whether the CPU of a seat that rests waits to be started; and for one whose guest was saved so. */
bool seat_waits(struct seat *seat);
void seat_set_waiting(struct seat *seat, bool waits);

/* By the seat's thread, for SEAT_REST and after the vCPU has passed its gate: returns when it is released. */
void seat_rest(struct seat *seat);

/*
 * Whether somebody has called the vCPU out since its guest was entered last: the root that it has may be
 * dead. The space of its guest is locked, so that this stays as it is.
 */
bool seat_must_pass(struct seat *seat);

/* The seat's thread is about to pass the gate with @root, which makes up for what others asked. */
void seat_passes(struct seat *seat, struct fpa root);

/*
 * guest.c: asks all CPUs of a guest to end. Where it rests none of them runs again, and its memory stays as it
 * is when it is released.
 */
void guest_stop(struct guest *guest, enum guest_status status);

/*
 * Runs a CPU of a guest to the guest's end, on its seat. When the first of them has come to
 * its end, the others are stopped.
 */
void guest_run(struct seat *seat);

/*
 * Runs a guest up to its next result, for who looks at guests step by step; false if it ended. The
 * seat's own thread must not be running it.
 */
bool guest_step(struct guest *guest);

/*
 * pause.c: waits until no operation of the engine is under way, and lets none begin until the fleet
 * is resumed; guests go on until they need one. The engine may be looked at meanwhile, not changed.
 */
bool fleet_pause(struct fleet *fleet, struct error *error);
void fleet_resume(struct fleet *fleet);

/* How many sharing domains there are. */
static inline unsigned fleet_domain_count(const struct fleet_config *config)
{
	return config->domain_count ? config->domain_count : 1;
}

/* The sharing domain of guest @id. */
static inline unsigned fleet_domain(const struct fleet_config *config, unsigned id)
{
	return config->domains ? config->domains[id] : 0;
}

/* How many CPUs each guest has. */
static inline unsigned fleet_cpus(const struct fleet_config *config)
{
	return config->cpus ? config->cpus : 1;
}

/* What the fleet's guests are. */
static inline enum gate_guests fleet_guests(const struct fleet_config *config)
{
	return config->linux_start || config->state ? GATE_LINUX : GATE_PROGRAMS;
}

/* Whether the fleet would share, if its guests needed more tables than the threshold. */
static inline bool fleet_below_threshold(const struct fleet *fleet)
{
	return fleet->config.sharing && fleet->tables_needed <= fleet->config.share_threshold;
}

/* Whether a guest ended as it should. */
static inline bool guest_ended_well(const struct guest *guest)
{
	return guest->status == GUEST_OK;
}

const char *guest_status_name(enum guest_status status);

/* fault.c: serves a fault; false if the guest is ended, with its status and report set. */
bool fault_serve(struct seat *seat, const struct gate_exit *exit);

/* guest_memory.c: false if some of it is not memory that the guest may itself access so. */
bool guest_read(struct guest *guest, struct gpa from, void *to, uint64_t bytes);
bool guest_write(struct guest *guest, struct gpa to, const void *from, uint64_t bytes);

/* access.c: serves an access to a device; false if the guest is ended. */
bool access_serve(struct seat *seat, const struct gate_exit *exit);

/* Ends a Linux guest whose kernel has panicked; returns false. */
bool access_end_panicked(struct seat *seat);

/* Does what its guest's devices have left to do, unless somebody wants the guest to end. */
void access_work(struct seat *seat);

/* The same after seat_call(): devices look for what came from outside. */
void access_called(struct seat *seat);

/* Connects the guest's serial port with the terminal; the user's escape key ends it. See console_open(). */
struct console *access_open_console(struct guest *guest);

/* Makes the devices of a Linux guest. */
bool access_create_board(struct guest *guest, struct error *error);
void access_destroy_board(struct guest *guest);

/* call.c: serves a call; false if the guest is ended. */
bool call_serve(struct seat *seat);

/* Ends a seat's guest with a report, unless another of its CPUs has done so; returns false. */
__attribute__((format(printf, 3, 4))) bool guest_end(struct seat *seat, enum guest_status status,
						     const char *format, ...);

/* The same for one that comes to a good end. */
bool guest_done(struct seat *seat);

/* Ends a guest that exits with a status; returns false. */
bool guest_exit(struct seat *seat, uint64_t value);

#endif
