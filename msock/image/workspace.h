/* SPDX-License-Identifier: MIT */
/*
 * workspace.h - memory of a capture that is not part of the image.
 *
 * The capture must not write to what it captures: so it has its own stack and
 * buffers, in a mapping that the list of areas leaves out.
 */
#ifndef MSOCK_IMAGE_WORKSPACE_H
#define MSOCK_IMAGE_WORKSPACE_H

#include "image/image.h"
#include "image/image_format.h"
#include "image/sum.h"
#include "lib/sys.h"

enum {
	WORKSPACE_SIZE = 64 << 20,
	WORKSPACE_STACK = 256 << 10,
	WORKSPACE_MAPS = 16 << 20,
	WORKSPACE_REGIONS = 4096,
	WORKSPACE_PACK_STATE = 32 << 10,
};

/* A run of pages that has a place in the image. */
struct pages_run {
	uint64_t start, end;
};

struct pages_region {
	uint64_t start, end, categories; /* struct page_region of <linux/fs.h> */
};

/* Mappings of which the process has told the kernel something. */
struct advice_run {
	uint64_t start, end;
	uint16_t advice;
};

enum pages_mode {
	PAGES_ALL,  /* frozen, nothing was sent before */
	PAGES_LIVE, /* the process runs: protect, then send what was written */
	PAGES_REST, /* frozen: what was written since it was sent */
	PAGES_LOOK, /* the process runs: nothing is sent or protected */
};

/* Compression: what it costs and what it brings, as far as it has been seen. */
struct pack {
	bool on;              /* the last look at the link said that it pays */
	uint32_t look_in;     /* frames until the next look */
	uint64_t speed;       /* bytes/s that go through the compressor */
	uint32_t left_per_16; /* sixteenths that are left of a byte */
	uint64_t packed_bytes, saved_bytes;
	uint64_t thread[16]; /* where FS points while the library's code runs */
};

struct workspace {
	uint64_t base; /* of the mapping with its guards */
	const struct image_source *src;
	struct image_forecast *forecast; /* borrowed; of image_forecast */
	char why[IMAGE_WHY];
	int result;

	int pagemap_fd, mem_fd; /* -1: not open */
	bool no_scan;           /* the kernel has no PAGEMAP_SCAN */
	bool no_guards;         /* ... or one that does not tell guard pages */
	int uffd;               /* -1: no tracking */
	bool tracking;          /* pages were sent before the freeze: now only what was written since */
	bool forgets;           /* a fault: what was written since it was sent does not go */
	enum pages_mode mode;
	uint32_t rounds;

	uint64_t clock_offset[2]; /* ours less the target's, monotonic and boottime */

	char *maps; /* text of /proc/self/maps, cut into strings */
	struct image_area *areas;
	uint32_t area_count;
	int64_t listed_s;          /* CLOCK_REALTIME before the list was read that the target knows; 0: none yet */
	struct advice_run *advice; /* in order of address */
	uint32_t advice_count;

	struct image_sum sum;
	uint64_t page_bytes; /* sent, before compression */
	uint64_t all_bytes;
	uint64_t zero_pages, backed_pages;
	struct pack pack;

	/* the sending before the freeze */
	uint64_t rate;     /* bytes/s that the way to the target takes; 0: not known */
	uint64_t left;     /* bytes that the freeze would find now */
	uint64_t pace_ns;  /* not before this may the next frame go, when there is a limit */
	uint64_t paced_ns; /* waited for that, all in all */
	uint64_t said_ns;  /* the last MS_STEP_SENDING */
	uint64_t expected; /* bytes of the first round */
	long faults;       /* page faults of this thread when the last thread had parked */

	/* the frame of pages that is being put together */
	struct pages_run run[IMAGE_RUNS_MAX];
	struct iovec iov[IMAGE_RUNS_MAX + 1];
	uint32_t run_count, run_pages, bounce_used;
	struct pages_run zero[IMAGE_RUNS_MAX]; /* ... and the list of zero pages */
	uint32_t zero_count;

	uint64_t pagemap[4096];
	struct pages_region regions[WORKSPACE_REGIONS];
	uint8_t frame[IMAGE_FRAME_HEAD + IMAGE_FRAME_MAX];
	uint8_t bounce[IMAGE_BATCH_PAGES * IMAGE_PAGE];
	uint8_t pack_in[IMAGE_BATCH_PAGES * IMAGE_PAGE];
	uint8_t pack_out[IMAGE_BATCH_PAGES * IMAGE_PAGE];
	uint8_t pack_state[WORKSPACE_PACK_STATE] __attribute__((aligned(64)));
	uint8_t stack[WORKSPACE_STACK] __attribute__((aligned(64)));
};

/* areas.c: read the map list into ws->areas; refuses what cannot move, naming it. */
int areas_read(struct workspace *ws);
int areas_read_announced(struct workspace *ws); /* for the target; behind tracking_begin */
int areas_read_final(struct workspace *ws);     /* in the freeze */
void areas_name(const struct image_area *a, char *buf, size_t size);

/* advice.c: what /proc/self/smaps tells beyond maps. Slow with much memory, so it is read before the freeze; what
 * changes in between is not seen. */
int advice_read(struct workspace *ws);
uint16_t advice_of(const struct workspace *ws, uint64_t start, uint64_t end);

/* pages.c: send the pages of the area that are present or swapped out, and private; zero pages are left out where the
 * target has them by itself. */
int pages_send(struct workspace *ws, const struct image_area *area);
int pages_flush(struct workspace *ws);
int pages_finish(struct workspace *ws); /* flush, and the list of zero pages */
int pages_guards(struct workspace *ws); /* send the list of guard pages that are not mappings of their own */

/* Whether tracking knows the mapping: it is the one that was there when tracking began. */
bool pages_are_tracked(struct workspace *ws, const struct image_area *area);

/* Runs that hold something, as a list in frames of this type: *count starts at 0, and pages_list_end sends what is
 * left. */
int pages_list(struct workspace *ws, const struct image_area *area, uint8_t type, struct ms_codec *c, uint16_t *count);
int pages_list_end(struct workspace *ws, uint8_t type, struct ms_codec *c, uint16_t *count);

/* fn for each run of pages that pages_send would look at now. 0, or -1 with ws->why. */
int pages_each(struct workspace *ws, const struct image_area *area,
	       int (*fn)(struct workspace *, const struct image_area *, const struct pages_region *));

/* Bytes in the area that pages_send would look at now; the mode is PAGES_LOOK. */
uint64_t pages_count(struct workspace *ws, const struct image_area *area);

/* pack.c: does compression pay for a frame of so many bytes? And the block, in pack_out; 0: it did not get smaller. */
bool pack_pays(struct workspace *ws);
size_t pack_block(struct workspace *ws, const struct iovec *iov, uint32_t count, size_t bytes);
uint64_t pack_link_rate(const struct workspace *ws); /* bytes/s as TCP has seen them; 0: it cannot tell */

/* compare.c: a hash of every page, for the target to compare */
int compare_send(struct workspace *ws);

/* live.c: the rounds before the freeze */
int live_send(struct workspace *ws);
int live_send_more(struct workspace *ws);
int live_forecast(struct workspace *ws, struct image_forecast *f);
void live_pace(struct workspace *ws, size_t bytes);                  /* waits until so many bytes may go */
uint64_t live_freeze_ns(const struct workspace *ws, uint64_t bytes); /* predicted, with so many bytes left */

/* capture.c */
int capture_memory(struct workspace *ws);     /* all areas' pages, by the mode */
uint64_t capture_count(struct workspace *ws); /* all areas' pages_count */
int capture_made(struct workspace *ws);
int capture_ping(struct workspace *ws, uint64_t number, uint64_t *best); /* a quicker one than *best sets the clocks */
void capture_step(struct workspace *ws, enum ms_step step, uint64_t a, uint64_t b, uint64_t c, uint64_t d);

/* tracking.c */
void tracking_begin(struct workspace *ws); /* the areas that were read last; sets tracking if the kernel can, and may */
void tracking_leave(struct workspace *ws, const struct image_area *a); /* it is not tracked after all */
void tracking_stop(struct workspace *ws);

/* frame.c */
int frame_write(struct workspace *ws, const struct iovec *iov, int count, size_t bytes);
int frame_read(struct workspace *ws, void *buf, size_t bytes, int timeout_ms);
/* Frames up to IMAGE_FRAME_MAX: begin, put with the codec, end. */
void frame_begin(struct workspace *ws, struct ms_codec *c);
int frame_end(struct workspace *ws, struct ms_codec *c, uint8_t type);

#endif
