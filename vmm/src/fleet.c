// SPDX-License-Identifier: MIT
#include "fleet.h"
#include "board.h"
#include "ept/trace.h"
#include "moment.h"
#include "listener.h"
#include "platform.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* Each seat takes a few file descriptors. */
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* ---- sizes ---- */

/* Tables that a guest needs if it owns all that translates @bytes at one place. */
static uint64_t tables_for(uint64_t bytes)
{
	uint64_t tables = 0;

	for (unsigned level = 1; level < EPT_ROOT_LEVEL; level++)
		tables += bytes / ept_table_span(level) + 2;
	return tables;
}

static uint64_t tables_for_guest(const struct fleet *fleet)
{
	uint64_t tables = 1;

	for (unsigned i = 0; i < fleet->region_count; i++)
		tables += tables_for(fleet->regions[i].bytes);
	return tables;
}

/*
 * All that every guest could write, but no more than three quarters of the host's memory, nor seven
 * eighths of what it has left: a guest that finds no page ends, one that the host finds none for takes
 * all of them with it.
 */
static uint64_t private_pages_for(const struct fleet_config *config)
{
	uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) / 4 * 3;
	uint64_t left = host_available_bytes() / EPT_PAGE_BYTES / 8 * 7;
	uint64_t host = all < left ? all : left;
	uint64_t spaces = config->guests + config->snapshots;
	uint64_t each = config->program ? config->program->image.pages : 1;

	if (config->mode == EPT_PRIVATE)
		each += config->file->pages;
	return each * spaces < host ? each * spaces : host;
}

/* ---- memory and engine ---- */

static bool enable(const struct fleet *fleet, unsigned capability, uint64_t argument,
		   struct error *error)
{
	struct kvm_enable_cap enable = { .cap = capability, .args = { argument } };

	if (ioctl(fleet->vm, KVM_ENABLE_CAP, &enable) < 0)
		return error_set(error, EXIT_HOST,
				 "this KVM refuses capability %u, which Linux guests need: %s",
				 capability, strerror(errno));
	return true;
}

/* Local APICs in KVM; an I/O APIC would be the whole fleet's, so each guest's board has its own. */
static bool create_apics(const struct fleet *fleet, struct error *error)
{
	return enable(fleet, KVM_CAP_SPLIT_IRQCHIP, PLATFORM_IOAPIC_PINS, error) &&
	       enable(fleet, KVM_CAP_X2APIC_API,
		      KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, error);
}

static bool create_vm(struct fleet *fleet, struct error *error)
{
	fleet->vm = ioctl(fleet->host.fd, KVM_CREATE_VM, 0);
	if (fleet->vm < 0)
		return error_set(error, EXIT_FAILED, "KVM refused a VM: %s", strerror(errno));
	fleet->stats_fd = host_stats_open(fleet->vm);
	return fleet_guests(&fleet->config) != GATE_LINUX || create_apics(fleet, error);
}

/* KVM's default limit makes it drop the oldest shadow pages first, which are the shared ones. */
static bool set_shadow_limit(const struct fleet *fleet, uint64_t tables, struct error *error)
{
	uint64_t pages = 2 * tables + 4096;

	if (ioctl(fleet->vm, KVM_SET_NR_MMU_PAGES, pages) < 0)
		return error_set(error, EXIT_FAILED, "KVM_SET_NR_MMU_PAGES to %llu failed: %s",
				 (unsigned long long)pages, strerror(errno));
	return true;
}

/* From one CPU of a guest to another: where local APICs have said so. */
static void send_command(void *context, unsigned index, enum gate_command command, uint8_t vector)
{
	struct fleet *fleet = context;

	if (command == GATE_INIT)
		seat_reset(&fleet->seats[index]);
	else
		seat_start(&fleet->seats[index], vector);
}

static bool check_cpus(const struct fleet *fleet, struct error *error)
{
	if (fleet->gate.cpus > 1 && !gate_starts_cpus(&fleet->gate))
		return error_set(error, EXIT_HOST,
				 "guests have one CPU each under engine %s: leave --cpus out",
				 engine_name(fleet->config.engine));
	return true;
}

static bool create_memory(struct fleet *fleet, struct error *error)
{
	const struct fleet_config *config = &fleet->config;
	uint64_t spaces = (uint64_t)config->guests + fleet_domain_count(config) + config->snapshots;
	uint64_t wanted = spaces * tables_for_guest(fleet);
	uint64_t tables = wanted < EPT_TABLES_MAX ? wanted : EPT_TABLES_MAX;
	uint64_t vcpus = (uint64_t)config->guests * fleet_cpus(config) + 1;
	uint64_t gate_pages = gate_memory_pages(vcpus, tables * EPT_PAGE_BYTES);

	if (!memory_create(&fleet->memory, &fleet->host, fleet->vm, gate_pages, tables,
			   private_pages_for(config), error))
		return false;
	if (!gate_create(&fleet->gate, config->engine, fleet_guests(config), &fleet->host,
			 &fleet->memory, error))
		return false;
	fleet->gate.cpus = fleet_cpus(config);
	fleet->gate.commands = (struct gate_commands){ send_command, fleet };
	return check_cpus(fleet, error) && set_shadow_limit(fleet, tables, error);
}

static bool create_engine(struct fleet *fleet, struct error *error)
{
	struct ept_config config = {
		.format = gate_format(&fleet->gate),
		.memory = {
			.tables = fleet->memory.tables.mapping,
			.tables_at = fleet->memory.tables.at,
			.table_count = (uint32_t)(fleet->memory.tables.bytes / EPT_PAGE_BYTES),
			.pages_at = fleet->memory.pages.at,
			.page_count = (uint32_t)(fleet->memory.pages.bytes / EPT_PAGE_BYTES),
		},
		.share_levels = EPT_SHARE_ALL & ~fleet->config.private_levels,
		.share_threshold = fleet->config.share_threshold,
		.share_from = fleet->config.share_from,
		.share_until = fleet->config.share_until,
	};

	gate_root_entry(&fleet->gate, &config.root_entry_index, &config.root_entry);
	fleet->ept = ept_create(&config);
	if (!fleet->ept)
		return error_set(error, EXIT_FAILED, "no memory for the engine's descriptors");
	if (fleet->config.trace_capacity &&
	    !ept_trace_start(fleet->ept, fleet->config.trace_capacity))
		return error_set(error, EXIT_FAILED, "no memory to trace %u events",
				 fleet->config.trace_capacity);
	return true;
}

static bool add_file(struct fleet *fleet, const struct memfile *file, int *number,
		     struct error *error)
{
	struct ept_file description = { .pages = file->pages, .writable = file->writable };

	if (!memory_add_file(&fleet->memory, file, &description.window, error))
		return false;
	*number = ept_file_add(fleet->ept, &description);
	if (*number < 0)
		return error_set(error, EXIT_INPUT, "too many memory files");
	return true;
}

/* Addresses where a computer has no memory: its devices. */
static bool add_hole(struct fleet *fleet, struct error *error)
{
	struct ept_file description = {
		.pages = (PLATFORM_RAM_HOLE_END - PLATFORM_RAM_HOLE) / EPT_PAGE_BYTES,
		.writable = true,
	};

	if (!memory_add_hole(&fleet->memory, description.pages, &description.window, error))
		return false;
	fleet->other_number = ept_file_add(fleet->ept, &description);
	if (fleet->other_number < 0)
		return error_set(error, EXIT_INPUT, "too many memory files");
	return true;
}

static bool add_files(struct fleet *fleet, struct error *error)
{
	const struct fleet_config *config = &fleet->config;

	if (!add_file(fleet, config->file, &fleet->file_number, error))
		return false;
	if (fleet_guests(config) == GATE_LINUX)
		return add_hole(fleet, error);
	return add_file(fleet, &config->program->image, &fleet->other_number, error);
}

static bool add_spare(struct fleet *fleet, struct error *error)
{
	struct ept_file description = { .pages = fleet->config.spare_pages, .spare = true };

	if (!description.pages)
		return true;
	if (!memory_add_spare(&fleet->memory, description.pages, error))
		return false;
	description.window = fleet->memory.spare.at;
	fleet->spare_number = ept_file_add(fleet->ept, &description);
	if (fleet->spare_number < 0)
		return error_set(error, EXIT_INPUT, "too many memory files");
	return true;
}

/* ---- spaces ---- */

static bool engine_error(struct error *error, const char *what, enum ept_status status)
{
	return error_set(error, EXIT_FAILED, "cannot %s: %s", what, ept_status_text(status));
}

static bool map_region(struct fleet *fleet, struct ept_space *space,
		       const struct ept_region *region, struct error *error)
{
	enum ept_status status = ept_space_map(space, region, &fleet->change);

	if (status != EPT_OK)
		return engine_error(error, "map a region", status);
	return fleet_commit(fleet, NULL, &fleet->change, error);
}

/* On 4 KiB pages KVM builds its own tables below a 2 MiB entry, so nothing is faster for it. */
static bool large_entries(const struct fleet_config *config)
{
	if (config->entries == ENTRIES_AUTO)
		return config->file->page_bytes >= ept_entry_span(EPT_LARGE_LEVEL);
	return config->entries == ENTRIES_LARGE;
}

struct ept_region fleet_file_region(const struct fleet *fleet)
{
	const struct memfile *file = fleet->config.file;

	return (struct ept_region){
		.start = { S2VM_FILE_BASE },
		.bytes = file->pages * EPT_PAGE_BYTES,
		.first = { .file = (uint32_t)fleet->file_number },
		.rights = EPT_READ | EPT_WRITE,
		.mode = fleet->config.mode,
		.large = large_entries(&fleet->config),
	};
}

static void plan_region(struct fleet *fleet, struct ept_region region)
{
	fleet->regions[fleet->region_count++] = region;
}

static void plan_program(struct fleet *fleet)
{
	const struct program *program = fleet->config.program;

	plan_region(fleet, fleet_file_region(fleet));
	for (unsigned i = 0; i < program->region_count; i++) {
		plan_region(fleet, program->regions[i]);
		fleet->regions[i + 1].first.file = FLEET_OTHER_FILE;
	}
}

/* platform.h: below the hole an address is an offset in the file, and above it the file goes on. */
static void plan_computer(struct fleet *fleet)
{
	uint64_t bytes = fleet->config.file->pages * EPT_PAGE_BYTES;
	struct ept_region region = fleet_file_region(fleet);

	region.rights |= EPT_EXEC;
	region.start.v = 0;
	region.bytes = bytes < PLATFORM_RAM_HOLE ? bytes : PLATFORM_RAM_HOLE;
	plan_region(fleet, region);
	if (bytes > PLATFORM_RAM_HOLE) {
		region.start.v = PLATFORM_RAM_HOLE_END;
		region.first.page = PLATFORM_RAM_HOLE / EPT_PAGE_BYTES;
		region.bytes = bytes - PLATFORM_RAM_HOLE;
		plan_region(fleet, region);
	}
	plan_region(fleet, (struct ept_region){
				   .start = { PLATFORM_RAM_HOLE },
				   .bytes = PLATFORM_RAM_HOLE_END - PLATFORM_RAM_HOLE,
				   .first = { .file = FLEET_OTHER_FILE },
				   .rights = EPT_READ | EPT_WRITE,
				   .mode = EPT_SHARED,
			   });
}

static void plan_regions(struct fleet *fleet)
{
	if (fleet_guests(&fleet->config) == GATE_LINUX)
		plan_computer(fleet);
	else
		plan_program(fleet);
}

static bool map_all(struct fleet *fleet, struct ept_space *space, struct error *error)
{
	const int numbers[] = {
		[FLEET_FILE] = fleet->file_number,
		[FLEET_OTHER_FILE] = fleet->other_number,
	};

	for (unsigned i = 0; i < fleet->region_count; i++) {
		struct ept_region region = fleet->regions[i];

		region.first.file = (uint32_t)numbers[region.first.file];
		if (!map_region(fleet, space, &region, error))
			return false;
	}
	return true;
}

/* Fills in all tables of a region, as its reader would fault by fault. */
static bool populate(struct fleet *fleet, struct ept_space *space, struct gpa start,
		     uint64_t bytes, struct error *error)
{
	struct gpa at = start;

	while (at.v < start.v + bytes) {
		enum ept_status status = ept_space_fault(space, at, EPT_READ, &fleet->change);

		if (status != EPT_OK)
			return engine_error(error, "fill in tables", status);
		if (!fleet_commit(fleet, NULL, &fleet->change, error))
			return false;
		at.v = (at.v | (ept_table_span(1) - 1)) + 1;
	}
	return true;
}

/* A space of its own, with its tables still to be faulted in. */
static bool make_plain_space(struct fleet *fleet, const struct ept_space_options *options,
			     struct ept_space **space, struct error *error)
{
	enum ept_status status = ept_space_create(fleet->ept, options, space);

	if (status != EPT_OK)
		return engine_error(error, "make a space", status);
	if (map_all(fleet, *space, error)) {
		fleet->tables_needed = ept_space_tables(*space);
		return true;
	}
	ept_space_destroy(*space);
	return false;
}

static bool freeze(struct fleet *fleet, struct ept_space *space, struct error *error)
{
	enum ept_status status = ept_space_freeze(space, &fleet->change);

	if (status != EPT_OK)
		return engine_error(error, "freeze the template", status);
	return fleet_commit(fleet, NULL, &fleet->change, error);
}

/* A computer's hole is large and mostly empty; its tables are filled in where every guest looks. */
static bool populate_hole(struct fleet *fleet, struct ept_space *space, struct error *error)
{
	return populate(fleet, space, (struct gpa){ PLATFORM_VIRTIO_BASE },
			PLATFORM_VIRTIO_SLOTS * PLATFORM_VIRTIO_BYTES, error) &&
	       populate(fleet, space, (struct gpa){ PLATFORM_IOAPIC_BASE }, EPT_PAGE_BYTES, error);
}

static bool populate_region(struct fleet *fleet, struct ept_space *space,
			    const struct ept_region *region, struct error *error)
{
	if (region->start.v == PLATFORM_RAM_HOLE && fleet_guests(&fleet->config) == GATE_LINUX)
		return populate_hole(fleet, space, error);
	return populate(fleet, space, region->start, region->bytes, error);
}

/* The frozen parent of all guests of a domain, with all of its tables filled in. */
static bool make_template(struct fleet *fleet, unsigned domain, struct error *error)
{
	const struct ept_space_options options = { .domain = domain, .sharing = true };
	struct ept_space **space = &fleet->templates[domain];

	if (!make_plain_space(fleet, &options, space, error))
		return false;
	for (unsigned i = 0; i < fleet->region_count; i++)
		if (!populate_region(fleet, *space, &fleet->regions[i], error))
			return false;
	return freeze(fleet, *space, error);
}

static bool make_templates(struct fleet *fleet, struct error *error)
{
	for (unsigned domain = 0; domain < fleet_domain_count(&fleet->config); domain++)
		if (!make_template(fleet, domain, error))
			return false;
	return true;
}

static bool guest_shares(const struct fleet_config *config, unsigned id)
{
	return config->sharing && !(config->alone && config->alone[id]);
}

/* What guests of the domain are clones of; NULL if they are none. */
static struct ept_space *parent_for(const struct fleet *fleet, unsigned domain)
{
	if (fleet->launch_from && ept_space_domain(fleet->launch_from) == domain)
		return fleet->launch_from;
	return fleet->templates[domain];
}

/* A space with the fleet's regions for guest @id: a clone, or one of its own. */
static bool make_space(struct fleet *fleet, unsigned id, struct ept_space **space,
		       struct error *error)
{
	const struct ept_space_options options = {
		.domain = fleet_domain(&fleet->config, id),
		.sharing = guest_shares(&fleet->config, id),
	};
	struct ept_space *parent = parent_for(fleet, options.domain);
	enum ept_status status;

	if (!parent || !options.sharing)
		return make_plain_space(fleet, &options, space, error);
	status = ept_space_clone(parent, space, &fleet->change);
	if (status != EPT_OK)
		return engine_error(error, "clone the template", status);
	return fleet_commit(fleet, NULL, &fleet->change, error);
}

/* A clone shares all of its parent's tables; who is to share some only finds them in the index. */
static bool guests_are_clones(const struct fleet_config *config)
{
	return config->sharing && !config->private_levels;
}

/* ---- the fleet ---- */

static bool create_seats(struct fleet *fleet, struct error *error)
{
	unsigned count = fleet->config.guests * fleet->gate.cpus;

	fleet->seats = calloc(count, sizeof(*fleet->seats));
	fleet->guests = calloc(fleet->config.guests, sizeof(*fleet->guests));
	if (!fleet->seats || !fleet->guests)
		return error_set(error, EXIT_FAILED, "no memory for %u guests",
				 fleet->config.guests);
	if (!gate_vcpu_create(&fleet->gate, &fleet->service, fleet->vm, count, error))
		return false;
	if (!gate_start_service(&fleet->service, error))
		return false;
	for (unsigned index = 0; index < count; index++)
		if (!seat_create(fleet, index, error))
			return false;
	return true;
}

static bool check_linux(const struct fleet_config *config, struct error *error)
{
	if (config->engine == ENGINE_DIRECT)
		return error_set(error, EXIT_HOST,
				 "Linux guests need engine vmx or svm, this host runs guests by engine %s",
				 engine_name(config->engine));
	return true;
}

static bool check_config(const struct fleet *fleet, struct error *error)
{
	unsigned vcpus = fleet->host.max_vcpus > 1 ? (unsigned)fleet->host.max_vcpus - 1 : 0;
	unsigned limit = vcpus / fleet_cpus(&fleet->config);

	if (fleet->config.guests > limit)
		return error_set(error, EXIT_INPUT,
				 "%u guests are too many for one fleet: this KVM has %d vCPUs for a VM, and the fleet needs one itself; use at most %u",
				 fleet->config.guests, fleet->host.max_vcpus, limit);
	if (fleet_guests(&fleet->config) == GATE_LINUX)
		return check_linux(&fleet->config, error);
	if (fleet->config.engine != ENGINE_DIRECT && !fleet->config.program->machine_root.v)
		return error_set(error, EXIT_INPUT,
				 "%s brings no page tables of its own, which a machine needs: link it with the guest runtime, or use --engine direct",
				 fleet->config.program->image.name);
	return true;
}

static bool open_host(struct fleet *fleet, struct error *error)
{
	if (!host_open(&fleet->host, error))
		return false;
	gate_prepare_host(&fleet->host, fleet_guests(&fleet->config));
	return true;
}

static bool create_all(struct fleet *fleet, struct error *error)
{
	return open_host(fleet, error) &&
	       engine_choose(&fleet->host, fleet->config.engine, &fleet->config.engine, error) &&
	       check_config(fleet, error) && create_vm(fleet, error) &&
	       create_memory(fleet, error) && create_engine(fleet, error) &&
	       add_files(fleet, error) && add_spare(fleet, error) &&
	       create_seats(fleet, error) && fleet_first_moment(fleet, error) &&
	       (!guests_are_clones(&fleet->config) || make_templates(fleet, error));
}

/* A pause comes to its turn, however many operations there are: readers do not overtake it. */
static void create_operations_lock(struct fleet *fleet)
{
	pthread_rwlockattr_t attributes;

	pthread_rwlockattr_init(&attributes);
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&fleet->operations, &attributes);
	pthread_rwlockattr_destroy(&attributes);
}

bool fleet_create(struct fleet **out, const struct fleet_config *config, struct error *error)
{
	struct fleet *fleet = calloc(1, sizeof(*fleet));

	if (!fleet)
		return error_set(error, EXIT_FAILED, "out of memory");
	fleet->config = *config;
	fleet->host.fd = fleet->vm = fleet->stats_fd = fleet->service.fd = -1;
	fleet->memory.gate.fd = fleet->memory.tables.fd = fleet->memory.pages.fd = -1;
	fleet->memory.spare.fd = -1;
	pthread_rwlock_init(&fleet->memory_lock, NULL);
	pthread_mutex_init(&fleet->lock, NULL);
	pthread_mutex_init(&fleet->service_lock, NULL);
	pthread_mutex_init(&fleet->moments_lock, NULL);
	create_operations_lock(fleet);
	pthread_cond_init(&fleet->ended, NULL);
	plan_regions(fleet);
	seat_install_kick();
	raise_file_limit();
	if (!create_all(fleet, error)) {
		fleet_destroy(fleet);
		return false;
	}
	*out = fleet;
	return true;
}

static void destroy_spaces(struct fleet *fleet)
{
	for (unsigned i = 0; i < fleet->guest_count; i++) {
		ept_space_destroy(fleet->guests[i].space);
		access_destroy_board(&fleet->guests[i]);
	}
	for (unsigned i = 0; i < FLEET_SNAPSHOTS; i++)
		if (fleet->snapshots[i])
			ept_space_destroy(fleet->snapshots[i]);
	for (unsigned i = 0; i < FLEET_DOMAINS; i++)
		if (fleet->templates[i])
			ept_space_destroy(fleet->templates[i]);
	ept_destroy(fleet->ept);
}

static void close_if_open(int fd)
{
	if (fd >= 0)
		close(fd);
}

void fleet_destroy(struct fleet *fleet)
{
	fleet_stop(fleet, GUEST_STOPPED);
	/* It calls seats. */
	listener_close(fleet->listener);
	for (unsigned i = 0; i < fleet->seat_count; i++)
		seat_destroy(&fleet->seats[i]);
	if (fleet->service.run)
		gate_vcpu_destroy(&fleet->service);
	destroy_spaces(fleet);
	fleet_end_moments(fleet);
	ept_change_free(&fleet->change);
	close_if_open(fleet->stats_fd);
	close_if_open(fleet->vm);
	memory_destroy(&fleet->memory);
	host_close(&fleet->host);
	pthread_cond_destroy(&fleet->ended);
	pthread_rwlock_destroy(&fleet->memory_lock);
	pthread_rwlock_destroy(&fleet->operations);
	pthread_mutex_destroy(&fleet->service_lock);
	pthread_mutex_destroy(&fleet->moments_lock);
	pthread_mutex_destroy(&fleet->lock);
	free(fleet->seats);
	free(fleet->guests);
	free(fleet);
}

/* A number that differs from guest to guest; splitmix64's output function. */
static uint64_t seed_of(unsigned id)
{
	uint64_t z = (id + 1) * 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static struct gate_start start_of(const struct fleet_config *config, unsigned id,
				  uint64_t argument)
{
	const struct program *program = config->program;

	if (config->linux_start)
		return (struct gate_start){ .linux_start = config->linux_start };
	return (struct gate_start){
		.entry = program->entry,
		.stack = program->stack_end,
		.machine_root = program->machine_root,
		.arguments = { id, S2VM_FILE_BASE, config->file->bytes, argument, seed_of(id) },
	};
}

/* Writes what only this guest is to find in its memory, before it begins. */
static bool write_own(struct guest *guest, struct error *error)
{
	const struct fleet_computer *computers = guest->fleet->config.computers;

	for (unsigned i = 0; computers && i < FLEET_OWN_BYTES; i++) {
		const struct fleet_bytes *own = &computers[guest->id].own[i];

		if (own->count && !guest_write(guest, own->at, own->bytes, own->count))
			return error_set(error, EXIT_FAILED,
					 "cannot write to the memory of guest %u: no private page is free",
					 guest->id);
	}
	return true;
}

static void take_seats(struct guest *guest, struct fpa root)
{
	for (unsigned cpu = 0; cpu < guest->cpus; cpu++) {
		guest->seat[cpu].owner = guest;
		seat_take(&guest->seat[cpu], guest->space, root);
	}
}

/* From the beginning, or from where it was saved. */
static bool begin(struct guest *guest, struct fpa root, struct error *error)
{
	struct gate_start start;

	take_seats(guest, root);
	if (guest->fleet->launch_moment) {
		if (!fleet_take_moment(guest, error) ||
		    !guest_restore(guest, &guest->origin->state, error))
			return false;
		guest_tell_clone(guest);
		return true;
	}
	start = start_of(&guest->fleet->config, guest->id, guest->argument);
	start.root = root;
	return gate_start(&guest->seat->vcpu, &start, error);
}

/* The next guest's record, with its space and its vCPU's registers set, but not running yet. */
static bool prepare_guest(struct fleet *fleet, uint64_t argument, struct guest *guest,
			  struct error *error)
{
	unsigned id = fleet->guest_count;
	unsigned cpus = fleet->gate.cpus;

	*guest = (struct guest){
		.id = id,
		.fleet = fleet,
		.seat = &fleet->seats[id * cpus],
		.cpus = cpus,
		.argument = argument,
		.seed = seed_of(id),
		.launched = { .ns = now_ns(), .set = true },
	};
	guest->launched.kvm_faults = host_counter_read(guest->seat->faults);
	if (!make_space(fleet, id, &guest->space, error))
		return false;
	if (write_own(guest, error)) {
		if (access_create_board(guest, error) &&
		    begin(guest, ept_space_root(guest->space), error))
			return true;
		access_destroy_board(guest);
	}
	ept_space_destroy(guest->space);
	return false;
}

bool fleet_prepare(struct fleet *fleet, uint64_t argument, struct guest **out, struct error *error)
{
	struct guest *guest = &fleet->guests[fleet->guest_count];

	if (fleet->guest_count == fleet->config.guests)
		return error_set(error, EXIT_INPUT, "no seat is free for another guest");
	if (!prepare_guest(fleet, argument, guest, error))
		return false;
	fleet->guest_count++;
	*out = guest;
	return true;
}

static void let_run(struct fleet *fleet, struct guest *guest)
{
	pthread_mutex_lock(&fleet->lock);
	fleet->running++;
	guest->cpus_running = guest->cpus;
	for (unsigned cpu = 0; cpu < guest->cpus; cpu++) {
		guest->seat[cpu].guest = guest;
		pthread_cond_signal(&guest->seat[cpu].wake);
	}
	pthread_mutex_unlock(&fleet->lock);
}

bool fleet_launch(struct fleet *fleet, uint64_t argument, struct guest **out, struct error *error)
{
	bool prepared;

	pthread_mutex_lock(&fleet->moments_lock);
	pthread_rwlock_wrlock(&fleet->operations);
	prepared = fleet_prepare(fleet, argument, out, error);
	if (prepared)
		let_run(fleet, *out);
	pthread_rwlock_unlock(&fleet->operations);
	pthread_mutex_unlock(&fleet->moments_lock);
	return prepared;
}

/* How often a wait looks at the user's wish to stop. */
#define WAIT_SLICE_NS 50000000u

static void wait_slice(struct fleet *fleet)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += WAIT_SLICE_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_cond_timedwait(&fleet->ended, &fleet->lock, &until);
}

/*
 * Linux that has panicked says why, and stays where it is, unless it was told to reset (panic=),
 * and then does so after a second at least. So that it has been silent for as long is enough.
 */
#define PANIC_PATIENCE_NS UINT64_C(2000000000)

static bool hangs(const struct guest *guest)
{
	uint64_t panicked_ns = guest && guest->board ? board_panicked_ns(guest->board) : 0;

	return panicked_ns && now_ns() > panicked_ns + PANIC_PATIENCE_NS;
}

/* The fleet's lock is held. */
static void end_panicked(struct fleet *fleet)
{
	for (unsigned i = 0; i < fleet->seat_count; i++)
		if (hangs(fleet->seats[i].guest))
			seat_stop(&fleet->seats[i], GUEST_FAILED);
}

bool fleet_wait(struct fleet *fleet, uint64_t deadline_ns, const volatile bool *stop)
{
	bool done;

	pthread_mutex_lock(&fleet->lock);
	while (fleet->running && now_ns() < deadline_ns && !(stop && *stop)) {
		wait_slice(fleet);
		end_panicked(fleet);
	}
	done = !fleet->running;
	pthread_mutex_unlock(&fleet->lock);
	return done;
}

void fleet_stop(struct fleet *fleet, enum guest_status status)
{
	pthread_mutex_lock(&fleet->lock);
	for (unsigned i = 0; i < fleet->seat_count; i++)
		if (fleet->seats[i].guest)
			seat_stop(&fleet->seats[i], status);
	while (fleet->running)
		pthread_cond_wait(&fleet->ended, &fleet->lock);
	pthread_mutex_unlock(&fleet->lock);
}
