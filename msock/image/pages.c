/* SPDX-License-Identifier: MIT */
/* Which pages hold something of the process's own, and sending them. */
#include <errno.h>
#include <sys/ioctl.h>

#include "image/say.h"
#include "image/workspace.h"

/* PAGEMAP_SCAN of Linux 6.7; not in this distribution's headers. */
struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan_arg)
#define SCAN_WP_ALLOWED (1ull << 0)
#define SCAN_WRITTEN (1ull << 1)
#define SCAN_FILE (1ull << 2)
#define SCAN_PRESENT (1ull << 3)
#define SCAN_SWAPPED (1ull << 4)
#define SCAN_ZERO (1ull << 5)
#define SCAN_GUARD (1ull << 8)   /* Linux 6.15 */
#define SCAN_PROTECT (1ull << 0) /* PM_SCAN_WP_MATCHING, in flags */

/* Bytes of one run in a list of zero pages: the count of its pages has 32 bits. */
#define ZERO_RUN_MAX (1ull << 40)

#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)
#define PAGEMAP_FILE (1ull << 61)

/*
 * How far a scan has come.  Not its walk_end: the kernel goes through a large
 * area in pieces of 512 regions and leaves there where the last but one ended,
 * and who went on from that would get regions twice.  It stops early only when
 * the regions are full.
 */
static uint64_t scan_walked(const struct workspace *ws, const struct scan_arg *arg, long n)
{
	return n == WORKSPACE_REGIONS ? ws->regions[n - 1].end : arg->end;
}

static int guards_send(struct workspace *ws, uint32_t count)
{
	for (uint32_t i = 0; i < count;) {
		uint32_t n = count - i < IMAGE_RUNS_MAX ? count - i : IMAGE_RUNS_MAX;
		struct ms_codec c;

		frame_begin(ws, &c);
		ms_put_u16(&c, (uint16_t)n);
		for (uint32_t end = i + n; i < end; i++) {
			ms_put_u64(&c, ws->regions[i].start);
			ms_put_u64(&c, (ws->regions[i].end - ws->regions[i].start) / IMAGE_PAGE);
		}
		if (frame_end(ws, &c, IMAGE_GUARDS))
			return -1;
	}
	return 0;
}

/*
 * Pages that the process has made guards of without a mapping of their own
 * (MADV_GUARD_INSTALL) look like swapped ones, and must not be read.
 */
int pages_guards(struct workspace *ws)
{
	for (uint32_t i = 0; i < ws->area_count; i++) {
		const struct image_area *area = &ws->areas[i];
		struct scan_arg arg = {
			.size = sizeof(arg),
			.end = area->end,
			.vec = (uint64_t)ws->regions,
			.vec_len = WORKSPACE_REGIONS,
			.category_mask = SCAN_GUARD,
			.return_mask = SCAN_GUARD,
		};
		long n = 0;

		if (area->kind != IMAGE_AREA_ANON && area->kind != IMAGE_AREA_FILE)
			continue;
		for (arg.start = area->start; arg.start < arg.end; arg.start = scan_walked(ws, &arg, n)) {
			n = ms_ioctl(ws->pagemap_fd, SCAN_IOCTL, &arg);
			if (n == -EINVAL || n == -ENOTTY)
				return 0; /* an older kernel: it has none, or does not tell */
			if (n < 0)
				return image_say(ws->why, "cannot list the guard pages: %e", (int)n);
			if (n && guards_send(ws, (uint32_t)n))
				return -1;
		}
	}
	return 0;
}

bool pages_are_tracked(struct workspace *ws, const struct image_area *area)
{
	struct scan_arg arg = {
		.size = sizeof(arg),
		.start = area->start,
		.end = area->end,
		.vec = (uint64_t)ws->regions,
		.vec_len = 1,
		.max_pages = 1,
		.category_mask = SCAN_WP_ALLOWED,
		.return_mask = SCAN_WP_ALLOWED,
	};

	return ms_ioctl(ws->pagemap_fd, SCAN_IOCTL, &arg) > 0;
}

/* One run by one ioctl would be a call for each hole: the regions are fetched many at a time. */
static long scan_regions(struct workspace *ws, const struct image_area *area, uint64_t at, uint64_t *walked)
{
	uint64_t no = area->kind == IMAGE_AREA_FILE ? SCAN_FILE : SCAN_ZERO;
	struct scan_arg arg = {
		.size = sizeof(arg),
		.start = at,
		.end = area->end,
		.vec = (uint64_t)ws->regions,
		.vec_len = WORKSPACE_REGIONS,
		.category_inverted = no,
		.category_mask = no,
		.category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
		.return_mask = SCAN_PRESENT | SCAN_SWAPPED,
	};
	uint64_t guard = ws->no_guards ? 0 : SCAN_GUARD;
	long n;

	arg.category_inverted |= guard;
	arg.category_mask |= guard;
	if (ws->mode == PAGES_LIVE || ws->mode == PAGES_LOOK) {
		arg.flags = ws->mode == PAGES_LIVE ? SCAN_PROTECT : 0;
		arg.category_mask |= ws->tracking ? SCAN_WRITTEN : 0;
	} else if (ws->mode == PAGES_REST) {
		arg.return_mask |= SCAN_WRITTEN | SCAN_WP_ALLOWED;
	}
	n = ms_ioctl(ws->pagemap_fd, SCAN_IOCTL, &arg);
	if (n == -EINVAL && guard) {
		ws->no_guards = true; /* this kernel does not know the word */
		return scan_regions(ws, area, at, walked);
	}
	*walked = n < 0 ? at : scan_walked(ws, &arg, n);
	return n;
}

/* The same from the table of entries, for older kernels. */
static long pagemap_regions(struct workspace *ws, const struct image_area *area, uint64_t at, uint64_t *walked)
{
	uint64_t pages = (area->end - at) / IMAGE_PAGE;
	long have, count = 0;

	if (pages > sizeof(ws->pagemap) / 8)
		pages = sizeof(ws->pagemap) / 8;
	have = ms_pread(ws->pagemap_fd, ws->pagemap, pages * 8, (off_t)(at / IMAGE_PAGE * 8));
	if (have <= 0)
		return have ? have : -EIO;
	for (long i = 0; i < have / 8 && count < WORKSPACE_REGIONS; i++) {
		uint64_t e = ws->pagemap[i], addr = at + (uint64_t)i * IMAGE_PAGE;
		struct pages_region *last = count ? &ws->regions[count - 1] : NULL;

		*walked = addr + IMAGE_PAGE;
		if (!(e & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)))
			continue;
		if (area->kind == IMAGE_AREA_FILE && (e & PAGEMAP_FILE))
			continue;
		if (last && last->end == addr)
			last->end += IMAGE_PAGE;
		else
			ws->regions[count++] = (struct pages_region){ addr, addr + IMAGE_PAGE, 0 };
	}
	return count;
}

/* Fetches the regions from `at`; their number, or -1. */
static long regions_fetch(struct workspace *ws, const struct image_area *area, uint64_t at, uint64_t *walked)
{
	long n;

	if (image_area_is_shared(area) || (area->flags & IMAGE_AREA_WHOLE)) {
		/* What nobody maps at the moment is still there: look at all. */
		ws->regions[0] = (struct pages_region){ at, area->end, 0 };
		*walked = area->end;
		return 1;
	}
	if (!ws->no_scan) {
		n = scan_regions(ws, area, at, walked);
		if (n >= 0)
			return n;
		if (ws->mode == PAGES_LIVE || ws->mode == PAGES_LOOK) {
			*walked = area->end; /* it has gone meanwhile */
			return 0;
		}
		ws->no_scan = true;
	}
	n = pagemap_regions(ws, area, at, walked);
	return n < 0 ? image_say(ws->why, "cannot read /proc/self/pagemap: %e", (int)n) : n;
}

static bool page_is_zero(const void *page)
{
	const uint64_t *w = page;

	for (size_t i = 0; i < IMAGE_PAGE / 8; i += 8)
		if (w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] | w[i + 7])
			return false;
	return true;
}

/* The list of pages that are to be zeros; hashed like others, so that the sum tells when one is not. */
static int zeros_flush(struct workspace *ws)
{
	static const uint8_t zeros[IMAGE_PAGE] __attribute__((aligned(64)));
	struct ms_codec c;

	if (!ws->zero_count)
		return 0;
	frame_begin(ws, &c);
	ms_put_u16(&c, (uint16_t)ws->zero_count);
	for (uint32_t i = 0; i < ws->zero_count; i++) {
		ms_put_u64(&c, ws->zero[i].start);
		ms_put_u32(&c, (uint32_t)((ws->zero[i].end - ws->zero[i].start) / IMAGE_PAGE));
		for (uint64_t at = ws->zero[i].start; at < ws->zero[i].end; at += IMAGE_PAGE)
			image_sum_add(&ws->sum, zeros, at, 1);
	}
	ws->zero_count = 0;
	return frame_end(ws, &c, IMAGE_ZEROS);
}

static int zero_put(struct workspace *ws, const struct image_area *area, uint64_t addr)
{
	struct pages_run *last = ws->zero_count ? &ws->zero[ws->zero_count - 1] : NULL;

	if (last && last->end == addr && addr != area->start && last->end - last->start < ZERO_RUN_MAX) {
		last->end += IMAGE_PAGE;
		return 0;
	}
	if (ws->zero_count == IMAGE_RUNS_MAX && zeros_flush(ws))
		return -1;
	ws->zero[ws->zero_count++] = (struct pages_run){ addr, addr + IMAGE_PAGE };
	return 0;
}

int pages_finish(struct workspace *ws)
{
	return pages_flush(ws) || zeros_flush(ws) ? -1 : 0;
}

int pages_flush(struct workspace *ws)
{
	struct ms_codec c, head;
	size_t data = (size_t)ws->run_pages * IMAGE_PAGE;
	uint8_t type = IMAGE_PAGES;
	size_t front, packed;

	if (!ws->run_count)
		return 0;
	frame_begin(ws, &c);
	ms_put_u16(&c, (uint16_t)ws->run_count);
	for (uint32_t i = 0; i < ws->run_count; i++) {
		uint32_t pages = (uint32_t)((ws->run[i].end - ws->run[i].start) / IMAGE_PAGE);

		ms_put_u64(&c, ws->run[i].start);
		ms_put_u32(&c, pages);
		image_sum_add(&ws->sum, ws->iov[i + 1].iov_base, ws->run[i].start, pages);
	}
	ws->page_bytes += data;
	packed = pack_pays(ws) ? pack_block(ws, ws->iov + 1, ws->run_count, data) : 0;
	if (packed) {
		type = IMAGE_PACK;
		data = packed;
		ws->iov[1] = (struct iovec){ ws->pack_out, packed };
		ws->run_count = 1;
	}
	live_pace(ws, data);
	front = (size_t)(c.at - ws->frame);
	ms_codec_init(&head, ws->frame, IMAGE_FRAME_HEAD);
	image_frame_put(&head, type, front - IMAGE_FRAME_HEAD + data);
	ws->iov[0] = (struct iovec){ ws->frame, front };
	data += front;
	front = ws->run_count + 1;
	ws->run_count = ws->run_pages = 0;
	return frame_write(ws, ws->iov, (int)front, data);
}

/* Puts one page into the frame; `data` is where its content can be read. No run goes beyond one area. */
static int page_put(struct workspace *ws, const struct image_area *area, uint64_t addr, const void *data)
{
	struct pages_run *last = ws->run_count ? &ws->run[ws->run_count - 1] : NULL;
	struct iovec *v = &ws->iov[ws->run_count];

	if (last && last->end == addr && addr != area->start && (char *)v->iov_base + v->iov_len == data) {
		last->end += IMAGE_PAGE;
		v->iov_len += IMAGE_PAGE;
	} else {
		ws->run[ws->run_count] = (struct pages_run){ addr, addr + IMAGE_PAGE };
		ws->iov[++ws->run_count] = (struct iovec){ (void *)data, IMAGE_PAGE };
	}
	if (++ws->run_pages == IMAGE_BATCH_PAGES || ws->run_count == IMAGE_RUNS_MAX)
		return pages_flush(ws);
	return 0;
}

/*
 * Content of up to `pages` pages that may not be read where they are, or may
 * go away any moment.  Sets *got; NULL if the first is not to be had.
 */
static const uint8_t *pages_fetch(struct workspace *ws, uint64_t addr, uint64_t pages, uint64_t *got)
{
	uint64_t room;
	uint8_t *to;
	long n;

	/* What is in the frame may lie in the buffer: it goes before that is used again. */
	*got = 0;
	if (ws->bounce_used == IMAGE_BATCH_PAGES && pages_flush(ws))
		return NULL;
	if (!ws->run_count)
		ws->bounce_used = 0;
	room = IMAGE_BATCH_PAGES - ws->bounce_used;
	to = ws->bounce + (size_t)ws->bounce_used * IMAGE_PAGE;
	if (pages > room)
		pages = room;
	n = ms_pread(ws->mem_fd, to, pages * IMAGE_PAGE, (off_t)addr);
	*got = n > 0 ? (uint64_t)n / IMAGE_PAGE : 0;
	ws->bounce_used += (uint32_t)*got;
	return *got ? to : NULL;
}

static int run_send(struct workspace *ws, const struct image_area *area, uint64_t at, uint64_t end, bool skip_zero)
{
	bool direct = (area->prot & PROT_READ) && ws->mode != PAGES_LIVE && !(area->flags & IMAGE_AREA_WHOLE);

	while (at < end) {
		uint64_t pages = (end - at) / IMAGE_PAGE, got = pages;
		const uint8_t *data = direct ? (const uint8_t *)at : pages_fetch(ws, at, pages, &got);

		if (!data && ws->why[0])
			return -1; /* the flush failed */
		if (!data && ws->mode != PAGES_LIVE && !(area->flags & IMAGE_AREA_WHOLE))
			return image_say(ws->why, "cannot read the page at %x", at);
		if (!data)
			got = 1; /* unmapped meanwhile, or behind the end of a file that was cut */
		for (uint64_t i = 0; data && i < got; i++) {
			const uint8_t *page = data + i * IMAGE_PAGE;

			if (page_is_zero(page)) {
				ws->zero_pages++;
				if (!skip_zero && zero_put(ws, area, at + i * IMAGE_PAGE))
					return -1;
				continue;
			}
			if (page_put(ws, area, at + i * IMAGE_PAGE, page))
				return -1;
		}
		at += got * IMAGE_PAGE;
	}
	return 0;
}

static bool region_is_clean(const struct workspace *ws, const struct pages_region *r)
{
	if (ws->forgets && ws->mode == PAGES_REST && (r->categories & SCAN_WP_ALLOWED))
		return true;
	return ws->mode == PAGES_REST && (r->categories & (SCAN_WP_ALLOWED | SCAN_WRITTEN)) == SCAN_WP_ALLOWED;
}

int pages_send(struct workspace *ws, const struct image_area *area)
{
	/* Where nothing was sent yet the target has zeros by itself; in a file's mapping it has the file. */
	bool skip_zero =
		area->kind != IMAGE_AREA_FILE && (!ws->tracking || ws->rounds == 0 || image_area_is_shared(area));
	uint64_t at = area->start, own = 0;

	/* What cannot be tracked goes once, in the freeze. */
	if (ws->mode == PAGES_LIVE && (image_area_is_shared(area) || (area->flags & IMAGE_AREA_WHOLE)))
		return 0;
	while (at < area->end) {
		uint64_t walked = area->end;
		long n = regions_fetch(ws, area, at, &walked);

		if (n < 0)
			return -1;
		for (long i = 0; i < n; i++) {
			own += ws->regions[i].end - ws->regions[i].start;
			if (!region_is_clean(ws, &ws->regions[i]) &&
			    run_send(ws, area, ws->regions[i].start, ws->regions[i].end, skip_zero))
				return -1;
		}
		at = walked;
	}
	if (area->kind == IMAGE_AREA_FILE && ws->mode != PAGES_LIVE)
		ws->backed_pages += (area->end - area->start - own) / IMAGE_PAGE;
	return 0;
}

int pages_each(struct workspace *ws, const struct image_area *area,
	       int (*fn)(struct workspace *, const struct image_area *, const struct pages_region *))
{
	uint64_t at = area->start;

	while (at < area->end) {
		uint64_t walked = area->end;
		long n = regions_fetch(ws, area, at, &walked);

		for (long i = 0; i < n; i++)
			if (fn(ws, area, &ws->regions[i]))
				return -1;
		if (n < 0)
			return -1;
		at = walked;
	}
	return 0;
}

uint64_t pages_count(struct workspace *ws, const struct image_area *area)
{
	uint64_t at = area->start, bytes = 0;

	while (at < area->end) {
		uint64_t walked = area->end;
		long n = regions_fetch(ws, area, at, &walked);

		for (long i = 0; i < n; i++)
			bytes += ws->regions[i].end - ws->regions[i].start;
		at = n < 0 ? area->end : walked;
	}
	return bytes;
}

int pages_list(struct workspace *ws, const struct image_area *area, uint8_t type, struct ms_codec *c, uint16_t *count)
{
	uint64_t at = area->start;

	if (image_area_is_shared(area))
		return 0;
	while (at < area->end) {
		uint64_t walked = area->end;
		long n = regions_fetch(ws, area, at, &walked);

		if (n < 0)
			return -1;
		for (long i = 0; i < n; i++) {
			if (*count == 2048)
				if (pages_list_end(ws, type, c, count))
					return -1;
			if (!*count) {
				frame_begin(ws, c);
				ms_put_u16(c, 0);
			}
			ms_put_u64(c, ws->regions[i].start);
			ms_put_u64(c, (ws->regions[i].end - ws->regions[i].start) / IMAGE_PAGE);
			++*count;
		}
		at = walked;
	}
	return 0;
}

int pages_list_end(struct workspace *ws, uint8_t type, struct ms_codec *c, uint16_t *count)
{
	struct ms_codec n;

	if (!*count)
		return 0;
	ms_codec_init(&n, ws->frame + IMAGE_FRAME_HEAD, 2);
	ms_put_u16(&n, *count);
	*count = 0;
	return frame_end(ws, c, type);
}
