// SPDX-License-Identifier: MIT
#include "virtio_blk.h"

#include <linux/virtio_ids.h>
#include <string.h>

#define FEATURE(bit) (UINT64_C(1) << (bit))

/* A request has two descriptors beside its data: the header and the status. */
#define SEGMENTS_MAX (VIRTQUEUE_SIZE - 2)

/* Ranges of one discard or zeroing, and the sectors of each of them. */
#define RANGES_MAX	16
#define DISCARD_SECTORS ((1u << 30) / DISK_SECTOR)
#define ZERO_SECTORS	((16u << 20) / DISK_SECTOR)
#define STATUS_BYTES	1u

/* One request, as far as it has come. */
struct request {
	struct virtio_blk *blk;
	const struct virtqueue *queue;
	struct virtqueue_stream in;  /* behind the header */
	struct virtqueue_stream out; /* before the status */
	uint64_t sector;
	uint32_t written;
	const char *why; /* what no driver can ask for, which ends the request */
};

static const char refused[] = "a buffer is not in memory";

static uint8_t refuse(struct request *request)
{
	request->why = refused;
	return VIRTIO_BLK_S_IOERR;
}

static bool range_good(const struct disk *disk, uint64_t sector, uint64_t sectors)
{
	uint64_t all = disk->bytes / DISK_SECTOR;

	return sector <= all && sectors <= all - sector;
}

/* Data is whole sectors of the disk's (5.2.6.1). */
static bool data_good(const struct request *request, uint64_t bytes)
{
	return bytes % DISK_SECTOR == 0 &&
	       range_good(request->blk->disk, request->sector, bytes / DISK_SECTOR);
}

static size_t next_part(uint64_t left)
{
	return left < VIRTIO_BLK_PART ? (size_t)left : VIRTIO_BLK_PART;
}

static uint8_t do_read(struct request *request)
{
	struct virtio_blk *blk = request->blk;
	uint64_t offset = request->sector * DISK_SECTOR;

	if (!data_good(request, request->out.left))
		return VIRTIO_BLK_S_IOERR;
	while (request->out.left) {
		size_t bytes = next_part(request->out.left);

		if (!disk_read(blk->disk, offset, blk->part, bytes))
			return VIRTIO_BLK_S_IOERR;
		if (!virtqueue_write(request->queue, &request->out, blk->part, bytes))
			return refuse(request);
		request->written += (uint32_t)bytes;
		offset += bytes;
	}
	return VIRTIO_BLK_S_OK;
}

static uint8_t do_write(struct request *request)
{
	struct virtio_blk *blk = request->blk;
	uint64_t offset = request->sector * DISK_SECTOR;

	if (blk->disk->access != DISK_WRITABLE || !data_good(request, request->in.left))
		return VIRTIO_BLK_S_IOERR;
	while (request->in.left) {
		size_t bytes = next_part(request->in.left);

		if (!virtqueue_read(request->queue, &request->in, blk->part, bytes))
			return refuse(request);
		if (!disk_write(blk->disk, offset, blk->part, bytes))
			return VIRTIO_BLK_S_IOERR;
		offset += bytes;
	}
	return VIRTIO_BLK_S_OK;
}

/* What is only read has nothing that could be lost. */
static uint8_t do_flush(struct request *request)
{
	struct disk *disk = request->blk->disk;

	if (disk->access != DISK_WRITABLE || disk_flush(disk))
		return VIRTIO_BLK_S_OK;
	return VIRTIO_BLK_S_IOERR;
}

static uint8_t do_get_id(struct request *request)
{
	struct virtio_blk *blk = request->blk;
	size_t bytes = sizeof(blk->id);

	if (request->out.left < bytes)
		bytes = (size_t)request->out.left;
	if (!virtqueue_write(request->queue, &request->out, blk->id, bytes))
		return refuse(request);
	request->written = (uint32_t)bytes;
	return VIRTIO_BLK_S_OK;
}

/*
 * The ranges of a discard or zeroing. All of them are looked at before the first one is done: a
 * flag that there is not, or that a discard has not, is not supported (5.2.6.2).
 */
static uint8_t take_ranges(struct request *request, struct virtio_blk_discard_write_zeroes *ranges,
			   unsigned *count, uint32_t sectors, uint32_t flags)
{
	const struct disk *disk = request->blk->disk;
	uint64_t bytes = request->in.left;

	if (disk->access != DISK_WRITABLE || !bytes || bytes % sizeof(*ranges) ||
	    bytes / sizeof(*ranges) > RANGES_MAX)
		return VIRTIO_BLK_S_IOERR;
	*count = (unsigned)(bytes / sizeof(*ranges));
	if (!virtqueue_read(request->queue, &request->in, ranges, (size_t)bytes))
		return refuse(request);
	for (unsigned i = 0; i < *count; i++) {
		if (ranges[i].flags & ~flags)
			return VIRTIO_BLK_S_UNSUPP;
		if (ranges[i].num_sectors > sectors ||
		    !range_good(disk, ranges[i].sector, ranges[i].num_sectors))
			return VIRTIO_BLK_S_IOERR;
	}
	return VIRTIO_BLK_S_OK;
}

static uint8_t do_discard(struct request *request)
{
	struct virtio_blk_discard_write_zeroes ranges[RANGES_MAX];
	unsigned count;
	uint8_t status = take_ranges(request, ranges, &count, DISCARD_SECTORS, 0);

	for (unsigned i = 0; status == VIRTIO_BLK_S_OK && i < count; i++)
		if (!disk_discard(request->blk->disk, ranges[i].sector * DISK_SECTOR,
				  (uint64_t)ranges[i].num_sectors * DISK_SECTOR))
			status = VIRTIO_BLK_S_IOERR;
	return status;
}

static uint8_t do_write_zeroes(struct request *request)
{
	struct virtio_blk_discard_write_zeroes ranges[RANGES_MAX];
	unsigned count;
	uint8_t status = take_ranges(request, ranges, &count, ZERO_SECTORS,
				     VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);

	for (unsigned i = 0; status == VIRTIO_BLK_S_OK && i < count; i++)
		if (!disk_zero(request->blk->disk, ranges[i].sector * DISK_SECTOR,
			       (uint64_t)ranges[i].num_sectors * DISK_SECTOR,
			       ranges[i].flags ? DISK_FREE_SPACE : DISK_KEEP_SPACE))
			status = VIRTIO_BLK_S_IOERR;
	return status;
}

static const struct {
	uint32_t type;
	uint8_t (*serve)(struct request *request);
} requests[] = {
	{ VIRTIO_BLK_T_IN, do_read },
	{ VIRTIO_BLK_T_OUT, do_write },
	{ VIRTIO_BLK_T_FLUSH, do_flush },
	{ VIRTIO_BLK_T_GET_ID, do_get_id },
	{ VIRTIO_BLK_T_DISCARD, do_discard },
	{ VIRTIO_BLK_T_WRITE_ZEROES, do_write_zeroes },
};

static uint8_t serve_request(struct request *request, uint32_t type)
{
	for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
		if (requests[i].type == type)
			return requests[i].serve(request);
	return VIRTIO_BLK_S_UNSUPP;
}

/* How the driver divides a request into descriptors is its own choice (2.7.4.1). */
static const char *virtio_blk_serve(void *device, const struct virtqueue *queue,
				    struct virtqueue_chain *chain, uint32_t *written)
{
	struct request request = { .blk = device, .queue = queue, .in = chain->in };
	struct virtqueue_stream status_at;
	struct virtio_blk_outhdr header;
	uint8_t status;

	if (chain->in.left < sizeof(header) || chain->out.left < STATUS_BYTES)
		return "a request has no header, or no place for its status";
	if (!virtqueue_read(queue, &request.in, &header, sizeof(header)))
		return refused;
	request.sector = header.sector;
	request.out = chain->out;
	status_at = virtqueue_cut(&request.out, STATUS_BYTES);
	status = serve_request(&request, header.type);
	if (!request.why && !virtqueue_write(queue, &status_at, &status, sizeof(status)))
		request.why = refused;
	*written = request.written + STATUS_BYTES;
	return request.why;
}

static const struct virtio_kind virtio_blk_kind = {
	.name = "virtio-blk",
	.id = VIRTIO_ID_BLOCK,
	.queues = 1,
	.serve = virtio_blk_serve,
};

static uint64_t features_of(const struct disk *disk)
{
	uint64_t features = FEATURE(VIRTIO_BLK_F_SEG_MAX) | FEATURE(VIRTIO_BLK_F_BLK_SIZE);

	if (disk->access == DISK_READ_ONLY)
		return features | FEATURE(VIRTIO_BLK_F_RO);
	return features | FEATURE(VIRTIO_BLK_F_FLUSH) | FEATURE(VIRTIO_BLK_F_DISCARD) |
	       FEATURE(VIRTIO_BLK_F_WRITE_ZEROES);
}

static struct virtio_blk_config configuration_of(const struct disk *disk)
{
	struct virtio_blk_config configuration = {
		.capacity = disk->bytes / DISK_SECTOR,
		.seg_max = SEGMENTS_MAX,
		.blk_size = DISK_SECTOR,
	};

	if (disk->access == DISK_READ_ONLY)
		return configuration;
	configuration.max_discard_sectors = DISCARD_SECTORS;
	configuration.max_discard_seg = RANGES_MAX;
	configuration.discard_sector_alignment = DISK_CLUSTER / DISK_SECTOR;
	configuration.max_write_zeroes_sectors = ZERO_SECTORS;
	configuration.max_write_zeroes_seg = RANGES_MAX;
	configuration.write_zeroes_may_unmap = 1;
	return configuration;
}

void virtio_blk_init(struct virtio_blk *blk, struct disk *disk, const char *id,
		     struct device_memory memory, struct device_line line)
{
	size_t bytes = strnlen(id, sizeof(blk->id));

	memset(blk->id, 0, sizeof(blk->id));
	memcpy(blk->id, id, bytes);
	blk->disk = disk;
	blk->configuration = configuration_of(disk);
	virtio_mmio_init(&blk->virtio, &virtio_blk_kind, blk, features_of(disk),
			 &blk->configuration, sizeof(blk->configuration), memory, line);
}
