/* SPDX-License-Identifier: MIT */
/*
 * Debug mode: is every page what it is at the source?  Those that the source
 * lists have their hash; whatever else is here must hold what a page has that
 * nobody has touched: zeros, or the file.
 */
#include <errno.h>

#include "image/restore/restore.h"

enum { ENTRIES = 1024 };

#define PRESENT (1ull << 63)
#define SWAPPED (1ull << 62)
#define OF_FILE (1ull << 61)

static uint8_t page[IMAGE_PAGE] __attribute__((aligned(64)));
static uint64_t entry[ENTRIES];
static int mem_fd = -1, pagemap_fd = -1;
static uint64_t next; /* all below has been compared */

static int compare_open(void)
{
	if (mem_fd >= 0)
		return 0;
	mem_fd = ms_open("/proc/self/mem", O_RDONLY | O_CLOEXEC, 0);
	pagemap_fd = ms_open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
	return mem_fd < 0 || pagemap_fd < 0
		       ? image_say(restore.why, "memory cannot be compared here: no /proc/self/mem")
		       : 0;
}

static int differs(const struct image_area *a, uint64_t at, const char *what)
{
	return image_say(restore.why, "memory differs at the target: page %x of %s %s", at,
			 a && a->path[0] ? a->path : "memory without a file", what);
}

static bool is_zero(void)
{
	const uint64_t *w = (const uint64_t *)page;
	uint64_t any = 0;

	for (size_t i = 0; i < IMAGE_PAGE / 8; i++)
		any |= w[i];
	return !any;
}

/* One that the source does not have. */
static int untouched(const struct image_area *a, uint64_t at, uint64_t e)
{
	if (!(e & (PRESENT | SWAPPED)) || (a->kind == IMAGE_AREA_FILE && (e & OF_FILE)))
		return 0;
	if (a->kind == IMAGE_AREA_FILE)
		return differs(a, at, "is the file's at the source");
	if (ms_pread(mem_fd, page, IMAGE_PAGE, (off_t)at) != IMAGE_PAGE)
		return differs(a, at, "cannot be read");
	return is_zero() ? 0 : differs(a, at, "holds nothing at the source");
}

static int gap_in(const struct image_area *a, uint64_t from, uint64_t to)
{
	while (from < to) {
		uint64_t n = (to - from) / IMAGE_PAGE;
		long have;

		n = n < ENTRIES ? n : ENTRIES;
		have = ms_pread(pagemap_fd, entry, n * 8, (off_t)(from / IMAGE_PAGE * 8));
		if (have <= 0)
			return image_say(restore.why, "memory cannot be compared here: pagemap: %e", (int)have);
		for (long i = 0; i < have / 8; i++, from += IMAGE_PAGE)
			if (untouched(a, from, entry[i]))
				return -1;
	}
	return 0;
}

/* Between two pages of the list. */
static int gap(uint64_t start, uint64_t end)
{
	for (uint32_t i = 0; i < restore.now.count; i++) {
		const struct image_area *a = &restore.now.area[i].a;
		uint64_t from = a->start > start ? a->start : start, to = a->end < end ? a->end : end;

		if (a->start >= end)
			break;
		if ((a->kind == IMAGE_AREA_ANON || a->kind == IMAGE_AREA_FILE) && from < to && gap_in(a, from, to))
			return -1;
	}
	return 0;
}

int compare_hashes(struct ms_codec *c)
{
	uint64_t at = ms_get_u64(c);
	uint32_t pages = ms_get_u32(c);

	if (c->bad || at % IMAGE_PAGE || at < next || at > 1ull << 47)
		return image_say(restore.why, "a list of hashes that cannot be");
	if (compare_open() || gap(next, at))
		return -1;
	for (uint32_t i = 0; i < pages; i++, at += IMAGE_PAGE) {
		uint64_t want = ms_get_u64(c);
		const struct restore_area *area = memory_area_of(at, at + IMAGE_PAGE);

		if (c->bad || !area)
			return image_say(restore.why, "a list of hashes that cannot be");
		if (ms_pread(mem_fd, page, IMAGE_PAGE, (off_t)at) != IMAGE_PAGE ||
		    XXH3_64bits(page, IMAGE_PAGE) != want)
			return differs(&area->a, at, "is another");
	}
	restore.compared += pages;
	next = at;
	return 0;
}

int compare_end(void)
{
	if (compare_open() || gap(next, 1ull << 47))
		return -1;
	ms_close(mem_fd);
	ms_close(pagemap_fd);
	return 0;
}
