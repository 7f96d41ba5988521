/* SPDX-License-Identifier: MIT */
/*
 * Debug mode: in the freeze, behind the last page, a hash of every page that
 * holds something.  The target compares what it has, page by page: the sum
 * proves what was sent, this that nothing was forgotten.
 */
#include "image/say.h"
#include "image/workspace.h"

enum { COMPARE_BATCH = 1024 }; /* hashes in a frame */

/* Where a page can be read without a fault that writes; NULL: not at all (behind the end of a file that was cut). */
static const uint8_t *compare_page(struct workspace *ws, const struct image_area *area, uint64_t at)
{
	if ((area->prot & PROT_READ) && !(area->flags & IMAGE_AREA_WHOLE))
		return (const uint8_t *)at;
	return ms_pread(ws->mem_fd, ws->bounce, IMAGE_PAGE, (off_t)at) == IMAGE_PAGE ? ws->bounce : NULL;
}

/* Hashes from `at` on, at most one frame of them; sets *at behind the last. */
static int compare_frame(struct workspace *ws, const struct image_area *area, uint64_t *at, uint64_t end)
{
	struct ms_codec c, head;
	uint32_t pages = 0;

	frame_begin(ws, &c);
	ms_put_u64(&c, *at);
	ms_put_u32(&c, 0);
	for (; *at < end && pages < COMPARE_BATCH; *at += IMAGE_PAGE, pages++) {
		const uint8_t *page = compare_page(ws, area, *at);

		if (!page)
			break;
		ms_put_u64(&c, XXH3_64bits(page, IMAGE_PAGE));
	}
	if (!pages) {
		*at += IMAGE_PAGE;
		return 0;
	}
	ms_codec_init(&head, ws->frame + IMAGE_FRAME_HEAD + 8, 4);
	ms_put_u32(&head, pages);
	return frame_end(ws, &c, IMAGE_HASHES);
}

static int compare_region(struct workspace *ws, const struct image_area *area, const struct pages_region *r)
{
	uint64_t at = r->start;

	while (at < r->end)
		if (compare_frame(ws, area, &at, r->end))
			return -1;
	return 0;
}

int compare_send(struct workspace *ws)
{
	struct ms_codec c;

	ws->mode = PAGES_ALL; /* what there is, whether it was sent before or not */
	for (uint32_t i = 0; i < ws->area_count; i++) {
		const struct image_area *area = &ws->areas[i];

		if ((area->kind == IMAGE_AREA_ANON || area->kind == IMAGE_AREA_FILE || image_area_is_shared(area)) &&
		    pages_each(ws, area, compare_region))
			return -1;
	}
	frame_begin(ws, &c);
	return frame_end(ws, &c, IMAGE_HASHES_END);
}
