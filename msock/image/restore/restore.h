/* SPDX-License-Identifier: MIT */
/*
 * restore.h - msrestore: the process that becomes the member.
 *
 * No libc, linked into IMAGE_ZONE, single-threaded until the thread table
 * comes.  doc/restore.md has the order of steps and its reasons.
 */
#ifndef MSOCK_IMAGE_RESTORE_H
#define MSOCK_IMAGE_RESTORE_H

#include <linux/sched.h>

#include "image/image_entry.h"
#include "image/image_format.h"
#include "image/say.h"
#include "image/sum.h"
#include "proto/steps.h"
#include "lib/sys.h"

enum { RESTORE_RUNS_MAX = 1 << 18 };

struct restore_area {
	struct image_area a;
	uint64_t touched; /* pages that were announced */
	bool absent;      /* its file is not there now: memory stands in for it until the final list */
	bool opened;      /* writable for the restorer's sake: to be closed at the end */
};

struct restore_list {
	struct restore_area *area;
	uint32_t count;
	char *paths; /* pool */
	size_t path_used;
};

struct restore_run {
	uint64_t start, pages;
};

struct restore_thread {
	int tid;
	struct image_slot *slot;
};

struct restore_span {
	uint64_t start, size, parked; /* parked: where it waits, in the zone */
	bool vdso;
};

struct restore {
	enum image_mode mode;
	bool user_ns; /* capabilities are ours by the namespace only: given up at the end */
	char why[IMAGE_WHY];

	/* MS_D_RESTORE */
	uint64_t m, hash_key;
	uint32_t real_ip;
	uint16_t port_low, port_high;
	char fault[64];
	int control_fd, image_fd, listener_fd, channel_fd[4];

	struct restore_span span[8]; /* the kernel's own mappings, in order of address */
	int spans;
	uint64_t vdso_hash, vdso_bytes;
	bool vdso_other; /* the member's is not this kernel's */
	uint8_t old_vdso[IMAGE_VDSO_MAX];
	uint64_t old_vdso_bytes;

	uint64_t object_size[IMAGE_OBJECTS_MAX]; /* of those in arrival.object */

	struct restore_list now, next; /* what is mapped; what the source says at the freeze */
	struct restore_run *runs;
	uint32_t run_count;
	uint64_t reached; /* pages of the first round have come up to this address */

	uint64_t stamp[2];
	int (*prepare)(struct image_arrival *);
	void (*thread)(struct image_slot *, struct image_arrival *);
	struct restore_thread threads[IMAGE_THREADS_MAX];
	uint32_t thread_count;
	bool ids_kept;
	uint32_t gate; /* futex word: 1 when the image is complete */

	uint64_t mark[IMAGE_MARKS];
	char exe[IMAGE_PATH_MAX];
	uint8_t auxv[4096];
	uint32_t auxv_bytes;
	int dumpable;

	struct image_sum sum;
	uint64_t page_bytes, all_bytes, zero_pages;
	uint64_t compared; /* pages, in debug mode */
	long faults;       /* page faults of this process at the freeze */
	uint64_t keep_at;  /* all below has been looked at */
	bool tracked;      /* pages came before the freeze */
	uint32_t page_frames;

	struct image_arrival arrival;
	uint8_t message[65536]; /* MS_D_RESUME; must stay until the member has read it */
};

extern struct restore restore;

/* restore_zone.c: memory in the zone; the program's own place in anonymous memory. */
void zone_move_self(void);
void *zone_alloc(size_t bytes); /* address space only, pages come when used; never NULL */
int zone_clear_rest(void);      /* unmap all that is not in the zone; the vdso moves there */

/* restore_libc.c: memory of the thread for code that was compiled to have one. The member's takes its place. */
void libc_stand_in(void);

/* restore_place.c: namespaces */
__attribute__((noreturn)) void place_spawn(enum image_mode mode, int tid);
int place_clock(const int64_t offset[2]);
void place_drop_rights(void);

/* restore_control.c: the daemon */
int control_restore(void);
int control_ready(void);
int control_image_ok(void);
void control_failed(void);
/* Says a step that is done; then the fault that was asked for here. */
void control_step(enum ms_step step, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
int control_wait_resume(void);
int control_listen(void);

/* restore_stream.c: the image */
int stream_receive(void);

/* restore_memory.c: all return 0, or -1 with restore.why */
int memory_map_early(void);
void memory_touch(void);
int memory_map_final(void);
struct restore_area *memory_area_of(uint64_t start, uint64_t end);
int memory_open(struct restore_area *area);
int memory_close(void);
int memory_advise(void); /* after memory_close: what the member has told the kernel of its memory */
void memory_drop(uint64_t start, uint64_t end); /* private pages in this range are as if never touched */
int memory_place_spans(void);
int memory_program(void);

/* restore_populate.c: a second thread makes the pages that were announced (memory_touch has made them writable); its end */
void populate_start(void);
void populate_end(void);

/* restore_compare.c: does memory hold what it holds at the source? 0, or -1 with restore.why */
int compare_hashes(struct ms_codec *c);
int compare_end(void);

/* restore_vdso.c: the member's old vdso at its place, each function a jump to this kernel's. 0, or -1 with restore.why */
int vdso_replace(uint64_t old_at);
int vdso_redirect(uint8_t *old, uint64_t size, const void *new_image, uint64_t new_size, uint64_t new_at);

/* restore_thread.c */
long thread_clone(struct clone_args *args, size_t size, void (*fn)(void *), void *arg);
int threads_create(void);
void threads_dress(void); /* all but the main one, once the image is complete */
__attribute__((noreturn)) void threads_go(void);

#endif
