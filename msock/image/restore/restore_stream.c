/* SPDX-License-Identifier: MIT */
/* The image as it comes; every figure is checked before it is used. */
#include "image/capture.h"
#include "image/mem.h"
#include "image/restore/restore.h"
#include "lib/fds.h"

#include <cpuid.h>
#include <errno.h>
#include <lz4.h>
#include <sys/resource.h>

enum { PATH_POOL = 256 << 20, PACKED_MAX = IMAGE_BATCH_PAGES * IMAGE_PAGE };

/* A clock that is behind by no more than this is waited for, where it cannot be set. */
enum { CLOCK_WAIT_NS = 100000000 };

static uint8_t frame[IMAGE_FRAME_MAX];
static struct iovec page_iov[IMAGE_RUNS_MAX];
static char path_buf[IMAGE_PATH_MAX];
static char *packed_in, *packed_out; /* PACKED_MAX bytes each, from the first frame of them on */

static int bad(const char *what)
{
	return image_say(restore.why, "the image is broken: %s", what);
}

static int bad_run(const char *what, uint64_t start, uint64_t pages, uint64_t least)
{
	return image_say(restore.why, "the image is broken: %u pages %s at %x, behind %x", pages, what, start, least);
}

/* True if the call is to be made again: the socket may be a non-blocking one. */
static bool again(long n)
{
	struct pollfd p = { .fd = restore.image_fd, .events = POLLIN };

	if (n == -EAGAIN)
		ms_poll(&p, 1, -1);
	return n == -EAGAIN || n == -EINTR;
}

static int read_all(void *buf, size_t bytes)
{
	uint8_t *at = buf;

	restore.all_bytes += bytes;
	while (bytes) {
		long n = ms_recv(restore.image_fd, at, bytes, MSG_WAITALL);

		if (again(n))
			continue;
		if (n == 0)
			return image_say(restore.why, "the image ended too early");
		if (n < 0)
			return image_say(restore.why, "the image connection: %e", (int)n);
		at += n;
		bytes -= (size_t)n;
	}
	return 0;
}

static int readv_all(struct iovec *iov, int count, size_t bytes)
{
	restore.all_bytes += bytes;
	while (bytes) {
		long n = ms_readv(restore.image_fd, iov, count);

		if (again(n))
			continue;
		if (n == 0)
			return image_say(restore.why, "the image ended too early");
		if (n < 0)
			return image_say(restore.why, "pages do not arrive: %e", (int)n);
		bytes -= (size_t)n;
		while (n) {
			size_t step = iov->iov_len < (size_t)n ? iov->iov_len : (size_t)n;

			iov->iov_base = (char *)iov->iov_base + step;
			iov->iov_len -= step;
			n -= (long)step;
			if (!iov->iov_len) {
				iov++;
				count--;
			}
		}
	}
	return 0;
}

static uint64_t xsave_features(void)
{
	uint32_t a, b, c = 0, d, low, high;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (uint64_t)high << 32 | low;
}

static int refuse_registers(uint64_t missing)
{
	static const struct {
		uint64_t bits;
		const char name[12];
	} set[] = {
		{ 1ull << 2, "AVX" },  { 7ull << 5, "AVX-512" }, { 1ull << 9, "PKRU" },
		{ 3ull << 17, "AMX" }, { 1ull << 19, "APX" },
	};

	for (size_t i = 0; i < sizeof(set) / sizeof(set[0]); i++)
		if (missing & set[i].bits)
			return image_say(restore.why, "this processor lacks registers that the member uses: %s",
					 set[i].name);
	return image_say(restore.why, "this processor lacks registers that the member uses (XSAVE %x)", missing);
}

static int frame_hello(struct ms_codec *c)
{
	uint64_t m = ms_get_u64(c);
	uint64_t hash, bytes, features;

	ms_get_u32(c);
	hash = ms_get_u64(c);
	bytes = ms_get_u64(c);
	features = ms_get_u64(c);
	if (c->bad || m != restore.m)
		return bad("it is of another move");
	restore.vdso_other =
		hash != restore.vdso_hash || bytes != restore.vdso_bytes || ms_streq(restore.fault, "other-vdso");
	return features & ~xsave_features() ? refuse_registers(features & ~xsave_features()) : 0;
}

static void list_init(struct restore_list *l)
{
	if (!l->area) {
		l->area = zone_alloc(IMAGE_AREAS_MAX * sizeof(*l->area));
		l->paths = zone_alloc(PATH_POOL);
	}
	l->count = 0;
	l->path_used = 0;
}

static int area_check(const struct restore_list *l, const struct image_area *a)
{
	uint64_t below = l->count ? l->area[l->count - 1].a.end : 0;

	if ((a->start | a->end | a->offset) % IMAGE_PAGE || a->start >= a->end || a->end > 1ull << 47)
		return bad("an address that cannot be");
	if (a->start < below)
		return bad("areas out of order");
	if (a->start < IMAGE_ZONE + IMAGE_ZONE_SIZE && a->end > IMAGE_ZONE)
		return image_say(restore.why, "the member has memory where the restorer works, at %x", a->start);
	if (a->prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC) || a->kind < IMAGE_AREA_ANON || a->kind > IMAGE_AREA_OBJECT)
		return bad("an area of unknown kind");
	return 0;
}

static int frame_areas(struct ms_codec *c)
{
	struct restore_list *l = &restore.next;
	uint16_t n = ms_get_u16(c);

	if (!restore.now.area)
		list_init(&restore.now);
	if (!l->area)
		list_init(l);
	for (uint16_t i = 0; i < n; i++) {
		struct image_area a;
		size_t size;
		char *to;

		image_area_get(c, &a, path_buf);
		if (c->bad)
			return bad("a list of areas that ends early");
		size = ms_strlen(path_buf) + 1;
		if (l->count == IMAGE_AREAS_MAX || l->path_used + size > PATH_POOL)
			return bad("too many areas");
		if (area_check(l, &a))
			return -1;
		to = l->paths + l->path_used;
		/* Libraries are mapped in several pieces in a row. */
		if (l->count && ms_streq(l->area[l->count - 1].a.path, path_buf)) {
			a.path = l->area[l->count - 1].a.path;
		} else {
			memcpy(to, path_buf, size);
			l->path_used += size;
			a.path = to;
		}
		l->area[l->count++] = (struct restore_area){ .a = a };
	}
	return 0;
}

static int frame_vdso(struct ms_codec *c, uint64_t bytes)
{
	if (bytes > sizeof(restore.old_vdso))
		return bad("a vdso that is too large");
	restore.old_vdso_bytes = bytes;
	ms_get_bytes(c, restore.old_vdso, bytes);
	return restore.vdso_other && !bytes ? image_say(restore.why, "this host runs another kernel (its vdso differs)")
					    : 0;
}

static int frame_areas_end(struct ms_codec *c)
{
	bool final = ms_get_u8(c);
	struct restore_list list;

	if (final) {
		int e = memory_map_final();

		list_init(&restore.next);
		return e;
	}
	list = restore.now;
	restore.now = restore.next;
	restore.next = list;
	list_init(&restore.next);
	return memory_map_early();
}

static int frame_touch(struct ms_codec *c)
{
	uint16_t n = ms_get_u16(c);

	if (!restore.runs)
		restore.runs = zone_alloc(RESTORE_RUNS_MAX * sizeof(*restore.runs));
	for (uint16_t i = 0; i < n && restore.run_count < RESTORE_RUNS_MAX; i++) {
		struct restore_run *r = &restore.runs[restore.run_count];

		r->start = ms_get_u64(c);
		r->pages = ms_get_u64(c);
		if (c->bad || r->start % IMAGE_PAGE || r->pages > 1ull << 35 || r->start > 1ull << 47)
			return bad_run("announced", r->start, r->pages, 0);
		restore.run_count++;
	}
	return 0;
}

static int frame_keep(struct ms_codec *c)
{
	uint16_t n = ms_get_u16(c);

	for (uint16_t i = 0; i < n; i++) {
		uint64_t start = ms_get_u64(c);
		uint64_t pages = ms_get_u64(c);

		if (c->bad || start % IMAGE_PAGE || start < restore.keep_at || start > 1ull << 47 || pages > 1ull << 35)
			return bad_run("to be kept", start, pages, restore.keep_at);
		memory_drop(restore.keep_at, start);
		restore.keep_at = start + pages * IMAGE_PAGE;
	}
	return 0;
}

/* Last, when no page comes any more. */
static int frame_guards(struct ms_codec *c)
{
	enum { GUARD_INSTALL = 102 };
	uint16_t n = ms_get_u16(c);

	for (uint16_t i = 0; i < n; i++) {
		uint64_t start = ms_get_u64(c), size = ms_get_u64(c) * IMAGE_PAGE;
		int e;

		if (c->bad || start % IMAGE_PAGE || start > 1ull << 47 || size > 1ull << 47 ||
		    !memory_area_of(start, start + size))
			return bad("guard pages where no memory is");
		e = ms_madvise((void *)start, size, GUARD_INSTALL);
		if (e)
			return image_say(restore.why, "the guard pages at %x cannot be made: %e", start, e);
	}
	return 0;
}

static int frame_ping(struct ms_codec *c)
{
	uint8_t out[IMAGE_FRAME_HEAD + 24];
	struct ms_codec o;
	uint64_t number = ms_get_u64(c);

	if (number == 0) {
		memory_touch();
		populate_start();
	} else if (number == IMAGE_PING_MADE) {
		populate_end();
	}
	ms_codec_init(&o, out, sizeof(out));
	image_frame_put(&o, IMAGE_PONG, 24);
	ms_put_u64(&o, number);
	ms_put_u64(&o, ms_clock_ns(CLOCK_MONOTONIC));
	ms_put_u64(&o, ms_clock_ns(CLOCK_BOOTTIME));
	if (ms_send(restore.image_fd, out, sizeof(out), MSG_NOSIGNAL) != (long)sizeof(out))
		return image_say(restore.why, "the source does not listen");
	return 0;
}

/* One more pair under the next two numbers. False: it cannot be had. */
static bool pair_make(struct image_arrival *a)
{
	int low[2], made[2], one = 1;
	struct stat st;

	if (ms_socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, low))
		return false;
	for (int i = 0; i < 2; i++) {
		made[i] = (int)ms_fcntl(low[i], F_DUPFD_CLOEXEC, a->pairs_end + i);
		ms_close(low[i]);
	}
	if (made[0] != a->pairs_end || made[1] != a->pairs_end + 1 || ms_fstat(made[0], &st)) {
		ms_close(made[0]);
		ms_close(made[1]);
		return false;
	}
	ms_setsockopt(made[1], SOL_SOCKET, SO_OOBINLINE, &one, sizeof(one));
	a->pair_ino[(made[0] - a->pairs) / 2] = st.st_ino;
	a->pairs_end += 2;
	return true;
}

/* Ahead of the threads: a table of descriptors that several threads share grows slowly. */
static int frame_pairs(struct ms_codec *c)
{
	struct image_arrival *a = &restore.arrival;
	uint32_t n = ms_get_u32(c), first = ms_get_u32(c);

	if (c->bad || a->pair_ino || !n || n > IMAGE_PAIRS_MAX || first > IMAGE_FDS_MAX)
		return bad("more sockets than can be");
	fds_raise_limit();
	a->pairs = a->pairs_end = (int)first;
	a->pair_ino = zone_alloc(n * sizeof(*a->pair_ino));
	while (n && pair_make(a)) /* the member makes the rest itself */
		n--;
	return 0;
}

static long faults(void)
{
	struct rusage use = { 0 };

	ms_sys2(SYS_getrusage, RUSAGE_SELF, (long)&use);
	return use.ru_minflt + use.ru_majflt;
}

/* The clocks first: a time namespace can be entered by a single thread only. */
static int frame_freeze(struct ms_codec *c)
{
	int64_t offset[2] = { (int64_t)ms_get_u64(c), 0 };

	offset[1] = (int64_t)ms_get_u64(c);
	restore.stamp[0] = ms_get_u64(c);
	restore.stamp[1] = ms_get_u64(c);
	restore.prepare = (int (*)(struct image_arrival *))ms_get_u64(c);
	restore.thread = (void (*)(struct image_slot *, struct image_arrival *))ms_get_u64(c);
	restore.thread_count = ms_get_u32(c);
	restore.tracked = restore.page_frames > 0;
	if (c->bad || !restore.thread_count || restore.thread_count > IMAGE_THREADS_MAX)
		return bad("a thread table that cannot be");
	for (uint32_t i = 0; i < restore.thread_count; i++) {
		restore.threads[i].tid = (int)ms_get_u32(c);
		restore.threads[i].slot = (struct image_slot *)ms_get_u64(c);
	}
	if (c->bad)
		return bad("a thread table that ends early");
	if (restore.mode == IMAGE_MODE_FULL) {
		if (place_clock(offset))
			return -1;
	} else if (offset[0] > CLOCK_WAIT_NS) {
		return image_say(restore.why,
				 "this host's clock is behind the member's, and there is no time namespace to mend it");
	}
	if (threads_create())
		return -1;
	restore.faults = faults();
	control_step(MS_STEP_ENTERED, restore.thread_count, 0, 0, 0);
	return 0;
}

static int frame_program(struct ms_codec *c)
{
	for (int i = 0; i < IMAGE_MARKS; i++)
		restore.mark[i] = ms_get_u64(c);
	ms_get_str(c, restore.exe, sizeof(restore.exe));
	restore.auxv_bytes = ms_get_u16(c);
	if (restore.auxv_bytes > sizeof(restore.auxv))
		return bad("an auxiliary vector that is too long");
	ms_get_bytes(c, restore.auxv, restore.auxv_bytes);
	restore.dumpable = ms_get_u8(c);
	return c->bad ? bad("the program's marks") : 0;
}

/* The list of runs in front of pages, `front` bytes of it behind the count; sets page_iov and the bytes of the pages. */
static int runs_take(uint64_t bytes, uint16_t *count, uint64_t *data)
{
	struct ms_codec c;
	uint16_t n;

	if (bytes < 2 || read_all(frame, 2))
		return bad("a frame of pages");
	ms_codec_init(&c, frame, 2);
	n = ms_get_u16(&c);
	if (!n || n > IMAGE_RUNS_MAX || bytes < 2 + 12ull * n)
		return bad("a frame of pages");
	if (read_all(frame, 12ul * n))
		return -1;
	ms_codec_init(&c, frame, 12ul * n);
	*count = n;
	*data = 0;
	for (uint16_t i = 0; i < n; i++) {
		uint64_t start = ms_get_u64(&c);
		uint64_t size = (uint64_t)ms_get_u32(&c) * IMAGE_PAGE;
		struct restore_area *area;

		if (start % IMAGE_PAGE || start > 1ull << 47 || size > IMAGE_BATCH_PAGES * IMAGE_PAGE)
			return bad_run("to come", start, size / IMAGE_PAGE, 0);
		area = memory_area_of(start, start + size);
		if (!area)
			return bad("pages for memory that is not there");
		if (memory_open(area))
			return -1;
		page_iov[i] = (struct iovec){ (void *)start, size };
		*data += size;
	}
	return 0;
}

/* They are in memory: into the sum with them. `frame` still holds their list. */
static void runs_count(uint16_t n)
{
	struct ms_codec c;

	ms_codec_init(&c, frame, 12ul * n);
	for (uint16_t i = 0; i < n; i++) {
		uint64_t start = ms_get_u64(&c);

		uint32_t pages = ms_get_u32(&c);

		image_sum_add(&restore.sum, (void *)start, start, pages);
		__atomic_store_n(&restore.reached, start + (uint64_t)pages * IMAGE_PAGE, __ATOMIC_RELAXED);
	}
	restore.page_frames++;
	if (ms_streq(restore.fault, "target-dies-mid-image"))
		ms_exit_group(9);
}

static int frame_pages(uint64_t bytes)
{
	uint64_t data;
	uint16_t n;

	if (runs_take(bytes, &n, &data))
		return -1;
	if (data + 2 + 12ull * n != bytes)
		return bad("a frame of pages of another length");
	if (readv_all(page_iov, n, data))
		return -1;
	restore.page_bytes += data;
	runs_count(n);
	return 0;
}

static int frame_pack(uint64_t bytes)
{
	uint64_t data, packed, at = 0;
	uint16_t n;

	if (!packed_in) {
		packed_in = zone_alloc(2 * PACKED_MAX);
		packed_out = packed_in + PACKED_MAX;
	}
	if (runs_take(bytes, &n, &data))
		return -1;
	packed = bytes - 2 - 12ull * n;
	if (!packed || packed > PACKED_MAX || data > PACKED_MAX)
		return bad("a frame of packed pages of another length");
	if (read_all(packed_in, packed))
		return -1;
	if (LZ4_decompress_safe(packed_in, packed_out, (int)packed, (int)data) != (int)data)
		return bad("packed pages that cannot be unpacked");
	for (uint16_t i = 0; i < n; i++) {
		memcpy(page_iov[i].iov_base, packed_out + at, page_iov[i].iov_len);
		at += page_iov[i].iov_len;
	}
	restore.page_bytes += data;
	runs_count(n);
	return 0;
}

/* Pages whose content is known without being sent. Their runs may be longer than those of a frame with content. */
static int frame_zeros(struct ms_codec *c)
{
	uint16_t n = ms_get_u16(c);

	for (uint16_t i = 0; i < n; i++) {
		uint64_t start = ms_get_u64(c);
		uint64_t pages = ms_get_u32(c), size = pages * IMAGE_PAGE;
		struct restore_area *area;

		if (c->bad || start % IMAGE_PAGE || start > 1ull << 47)
			return bad("a list of zero pages");
		area = memory_area_of(start, start + size);
		if (!area)
			return bad("pages for memory that is not there");
		if (memory_open(area))
			return -1;
		memset((void *)start, 0, size);
		image_sum_add(&restore.sum, (void *)start, start, pages);
		restore.zero_pages += pages;
	}
	return 0;
}

static int frame_trial(uint64_t bytes)
{
	if (bytes > IMAGE_BATCH_PAGES * IMAGE_PAGE)
		return bad("a trial that is too large");
	while (bytes) {
		uint64_t n = bytes < sizeof(frame) ? bytes : sizeof(frame);

		if (read_all(frame, n))
			return -1;
		bytes -= n;
	}
	return 0;
}

/* All is there: make a process of it. */
static int frame_end(struct ms_codec *c)
{
	uint64_t sum = ms_get_u64(c);
	uint64_t bytes = ms_get_u64(c);
	struct image_arrival *a = &restore.arrival;
	int e;

	if (ms_streq(restore.fault, "target-bad-sum"))
		sum ^= 1;
	if (c->bad || bytes != restore.page_bytes || sum != restore.sum.value)
		return image_say(restore.why, "the sum of the pages does not match: memory was damaged on the way");
	if (!restore.prepare || !restore.thread_count)
		return bad("it has no threads");
	control_step(MS_STEP_SUMMED, restore.page_bytes / IMAGE_PAGE, restore.zero_pages,
		     (uint64_t)(faults() - restore.faults), restore.compared);
	if (memory_close() || memory_advise() || memory_place_spans() || memory_program() || control_listen())
		return -1;
	ms_close(restore.image_fd);
	restore.image_fd = -1;
	a->version = IMAGE_ENTRY_VERSION;
	a->control_fd = restore.control_fd;
	a->listener_fd = restore.listener_fd;
	memcpy(a->channel_fd, restore.channel_fd, sizeof(a->channel_fd));
	a->ids_kept = restore.ids_kept;
	e = ms_streq(restore.fault, "target-fails-prepare") ? image_say(a->why, "fault point target-fails-prepare")
							    : restore.prepare(a);
	restore.control_fd = a->control_fd;
	if (e)
		return image_say(restore.why, "%s", a->why);
	threads_dress();
	control_step(MS_STEP_PREPARED, 0, 0, 0, 0);
	return control_image_ok() ? -1 : 1;
}

static int frame_take(uint8_t type, struct ms_codec *c, uint64_t bytes)
{
	if (type != IMAGE_TOUCH && type != IMAGE_PING && type != IMAGE_ZEROS)
		populate_end();
	switch (type) {
	case IMAGE_HELLO:
		return frame_hello(c);
	case IMAGE_VDSO:
		return frame_vdso(c, bytes);
	case IMAGE_AREAS:
		return frame_areas(c);
	case IMAGE_AREAS_END:
		return frame_areas_end(c);
	case IMAGE_TOUCH:
		return frame_touch(c);
	case IMAGE_PAIRS:
		return frame_pairs(c);
	case IMAGE_PING:
		return frame_ping(c);
	case IMAGE_FREEZE:
		return frame_freeze(c);
	case IMAGE_KEEP:
		return frame_keep(c);
	case IMAGE_KEEP_END:
		memory_drop(restore.keep_at, UINT64_MAX);
		return 0;
	case IMAGE_ZEROS:
		return frame_zeros(c);
	case IMAGE_GUARDS:
		return frame_guards(c);
	case IMAGE_HASHES:
		return compare_hashes(c);
	case IMAGE_HASHES_END:
		return compare_end();
	case IMAGE_PROGRAM:
		return frame_program(c);
	case IMAGE_END:
		return frame_end(c);
	}
	return bad("a frame of unknown kind");
}

int stream_receive(void)
{
	for (;;) {
		uint8_t head[IMAGE_FRAME_HEAD];
		struct ms_codec c;
		uint64_t bytes;
		uint8_t type;
		int e;

		if (read_all(head, sizeof(head)))
			return -1;
		ms_codec_init(&c, head, sizeof(head));
		type = image_frame_get(&c, &bytes);
		if (type == IMAGE_PAGES) {
			e = frame_pages(bytes);
		} else if (type == IMAGE_PACK) {
			e = frame_pack(bytes);
		} else if (type == IMAGE_TRIAL) {
			e = frame_trial(bytes);
		} else {
			if (!type || bytes > sizeof(frame))
				return bad("not a frame");
			if (read_all(frame, bytes))
				return -1;
			ms_codec_init(&c, frame, bytes);
			e = frame_take(type, &c, bytes);
		}
		if (e)
			return e < 0 ? -1 : 0;
	}
}
