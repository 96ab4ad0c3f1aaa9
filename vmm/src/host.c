// SPDX-License-Identifier: MIT
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* More leaves than any KVM supports. */
#define CPUID_ENTRIES 256

static bool open_error(struct error *error)
{
	switch (errno) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return error_set(error, EXIT_HOST,
				 "no /dev/kvm: load kvm_intel or kvm_amd, and switch virtualization on in the firmware");
	case EACCES:
	case EPERM:
		return error_set(error, EXIT_HOST,
				 "no permission for /dev/kvm: add your user to group kvm, or run as root");
	default:
		return error_set(error, EXIT_HOST, "cannot open /dev/kvm: %s", strerror(errno));
	}
}

/* Nested virtualization and the width of addresses, from the supported CPUID leaves. */
static void read_cpuid(struct host *host)
{
	host->physical_bits = 36; /* What AMD APM Vol. 3 says where leaf 8000_0008h is missing. */
	for (unsigned at = 0; at < host->cpuid->nent; at++) {
		const struct kvm_cpuid_entry2 *leaf = &host->cpuid->entries[at];

		if (leaf->function == 1)
			host->vmx = leaf->ecx >> 5 & 1;
		else if (leaf->function == 0x80000001)
			host->svm = leaf->ecx >> 2 & 1;
		else if (leaf->function == 0x80000008)
			host->physical_bits = leaf->eax & 0xff;
	}
}

static int capability(const struct host *host, long number)
{
	int value = ioctl(host->fd, KVM_CHECK_EXTENSION, number);

	return value < 0 ? 0 : value;
}

static bool check_capabilities(struct host *host, struct error *error)
{
	int needed = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;

	host->max_vcpus = capability(host, KVM_CAP_MAX_VCPUS);
	host->max_memslots = capability(host, KVM_CAP_NR_MEMSLOTS);
	host->sync_regs = capability(host, KVM_CAP_SYNC_REGS);
	host->readonly_memory = capability(host, KVM_CAP_READONLY_MEM);
	host->statistics = capability(host, KVM_CAP_BINARY_STATS_FD);
	host->vcpu_mmap_bytes = ioctl(host->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (!host->readonly_memory)
		return error_set(error, EXIT_HOST,
				 "this KVM has no read-only memory (KVM_CAP_READONLY_MEM), which protects memory files: use a newer kernel");
	if ((host->sync_regs & needed) != needed || !capability(host, KVM_CAP_IMMEDIATE_EXIT))
		return error_set(error, EXIT_HOST,
				 "this KVM lacks KVM_CAP_SYNC_REGS or KVM_CAP_IMMEDIATE_EXIT: use Linux 4.17 or newer");
	return true;
}

static bool get_cpuid(struct host *host, struct error *error)
{
	host->cpuid = calloc(1, sizeof(*host->cpuid) +
					CPUID_ENTRIES * sizeof(host->cpuid->entries[0]));
	if (!host->cpuid)
		return error_set(error, EXIT_FAILED, "out of memory");
	host->cpuid->nent = CPUID_ENTRIES;
	if (ioctl(host->fd, KVM_GET_SUPPORTED_CPUID, host->cpuid) < 0)
		return error_set(error, EXIT_HOST, "KVM_GET_SUPPORTED_CPUID failed: %s",
				 strerror(errno));
	read_cpuid(host);
	return true;
}

bool host_open(struct host *host, struct error *error)
{
	int version;

	*host = (struct host){ .fd = -1 };
	host->fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (host->fd < 0)
		return open_error(error);
	version = ioctl(host->fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		error_set(error, EXIT_HOST, "/dev/kvm speaks version %d of its interface, not %d",
			  version, KVM_API_VERSION);
		goto fail;
	}
	if (!check_capabilities(host, error))
		goto fail;
	if (!get_cpuid(host, error))
		goto fail;
	return true;
fail:
	host_close(host);
	return false;
}

void host_close(struct host *host)
{
	if (host->fd >= 0)
		close(host->fd);
	free(host->cpuid);
	*host = (struct host){ .fd = -1 };
}

/* Linux, Documentation/filesystems/proc.rst, "meminfo". */
uint64_t host_available_bytes(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file))
		found = sscanf(line, "MemAvailable: %llu", &kib) == 1;
	if (file)
		fclose(file);
	return found ? kib << 10 : UINT64_MAX;
}

unsigned host_tsc_khz(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = fd < 0 ? -1 : ioctl(fd, KVM_CREATE_VM, 0);
	int vcpu = vm < 0 ? -1 : ioctl(vm, KVM_CREATE_VCPU, 0);
	int khz = vcpu < 0 ? -1 : ioctl(vcpu, KVM_GET_TSC_KHZ, 0);

	if (vcpu >= 0)
		close(vcpu);
	if (vm >= 0)
		close(vm);
	if (fd >= 0)
		close(fd);
	return khz < 0 ? 0 : (unsigned)khz;
}

/* The first character of a module's parameter, or 0 if there is no such module. */
static char parameter(const char *module, const char *name)
{
	char path[128];
	char value = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s", module, name);
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (fread(&value, 1, 1, file) != 1)
		value = 0;
	fclose(file);
	return value;
}

void host_nested_reason(const char *kind, char *text, size_t bytes)
{
	const char *module = strcmp(kind, "svm") == 0 ? "kvm_amd" : "kvm_intel";
	char nested = parameter(module, "nested");

	if (!nested)
		snprintf(text, bytes, "module %s is not loaded on this host", module);
	else if (nested == 'N' || nested == '0')
		snprintf(text, bytes, "module %s has nested=%c: load it with nested=1", module,
			 nested);
	else
		snprintf(text, bytes, "module %s offers no %s to guests", module, kind);
}

int host_stats_open(int fd)
{
	return ioctl(fd, KVM_GET_STATS_FD, 0);
}

struct host_counter host_counter_find(int stats_fd, const char *name)
{
	struct host_counter counter = { .fd = stats_fd, .offset = -1 };
	struct kvm_stats_header header;
	struct kvm_stats_desc *descriptor;
	size_t bytes;

	if (pread(stats_fd, &header, sizeof(header), 0) != sizeof(header))
		return counter;
	bytes = sizeof(*descriptor) + header.name_size;
	descriptor = calloc(1, bytes + 1);
	if (!descriptor)
		return counter;
	for (uint32_t at = 0; at < header.num_desc && counter.offset < 0; at++) {
		off_t offset = (off_t)(header.desc_offset + at * bytes);

		if (pread(stats_fd, descriptor, bytes, offset) != (ssize_t)bytes)
			break;
		if (strcmp(descriptor->name, name) == 0)
			counter.offset = (long)header.data_offset + descriptor->offset;
	}
	free(descriptor);
	return counter;
}

uint64_t host_counter_read(struct host_counter counter)
{
	uint64_t value;

	if (counter.offset < 0 ||
	    pread(counter.fd, &value, sizeof(value), counter.offset) != sizeof(value))
		return 0;
	return value;
}

uint64_t host_shadow_pages(int stats_fd)
{
	uint64_t made = host_counter_read(host_counter_find(stats_fd, "mmu_cache_miss"));
	uint64_t zapped = host_counter_read(host_counter_find(stats_fd, "mmu_shadow_zapped"));

	return made > zapped ? made - zapped : 0;
}

/* Reading stat_refresh adds up the counters that the kernel keeps for each CPU. */
static void fold_counters(void)
{
	char byte;
	int fd = open("/proc/sys/vm/stat_refresh", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (read(fd, &byte, 1) < 0)
		errno = 0; /* Only root may; without it the figure lags. */
	close(fd);
}

uint64_t host_sec_page_tables(void)
{
	unsigned long kilobytes = 0;
	char line[128];
	FILE *file;

	fold_counters();
	file = fopen("/proc/meminfo", "re");
	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "SecPageTables: %lu", &kilobytes) == 1)
			break;
	fclose(file);
	return kilobytes * 1024ul;
}
