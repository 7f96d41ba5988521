/* SPDX-License-Identifier: MIT */
/*
 * Which pages were written since they were sent: userfaultfd in its
 * asynchronous write-protect mode, where the kernel itself lifts the
 * protection at the first write and PAGEMAP_SCAN tells of it.  Linux 6.7;
 * wants no privilege.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "image/say.h"
#include "image/workspace.h"

/* Newer than this distribution's headers. */
enum { USER_MODE_ONLY = 1, FEATURE_WP_UNPOPULATED = 1 << 13, FEATURE_WP_ASYNC = 1 << 15 };

static void tracking_start(struct workspace *ws)
{
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED };
	int fd;

	if (ws->src->stop_and_copy || ws->no_scan || ms_streq(ws->src->fault, "no-tracking"))
		return;
	fd = (int)ms_sys1(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);
	if (fd < 0)
		return;
	if (ms_ioctl(fd, UFFDIO_API, &api)) {
		ms_close(fd);
		return;
	}
	ws->uffd = fd;
	ws->tracking = true;
}

/*
 * Areas that cannot be had are simply not tracked: PAGEMAP_SCAN says so, and
 * they go in the freeze.  Pages that mremap has moved out of an area that was
 * tracked once may still bear its mark, and would count as not written: marks
 * are wiped first, and what is mapped or moved in later is never covered.
 */
static void tracking_cover(struct workspace *ws)
{
	for (uint32_t i = 0; i < ws->area_count; i++) {
		const struct image_area *a = &ws->areas[i];
		struct uffdio_register r = {
			.range = { a->start, a->end - a->start },
			.mode = UFFDIO_REGISTER_MODE_WP,
		};

		struct uffdio_writeprotect wipe = { .range = r.range };

		if ((a->kind != IMAGE_AREA_ANON && a->kind != IMAGE_AREA_FILE) || (a->flags & IMAGE_AREA_WHOLE))
			continue;
		if (ms_ioctl(ws->uffd, UFFDIO_REGISTER, &r) == 0)
			ms_ioctl(ws->uffd, UFFDIO_WRITEPROTECT, &wipe);
	}
}

void tracking_begin(struct workspace *ws)
{
	tracking_start(ws);
	if (ws->tracking)
		tracking_cover(ws);
}

void tracking_leave(struct workspace *ws, const struct image_area *a)
{
	struct uffdio_range r = { a->start, a->end - a->start };

	ms_ioctl(ws->uffd, UFFDIO_UNREGISTER, &r);
}

/* The protection goes with the descriptor. */
void tracking_stop(struct workspace *ws)
{
	if (ws->uffd >= 0)
		ms_close(ws->uffd);
	ws->uffd = -1;
}
