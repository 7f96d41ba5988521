/* SPDX-License-Identifier: MIT */
/* Sending a process: before the freeze what is known by then, in it the rest. */
#include "image/capture.h"

#include <cpuid.h>
#include <errno.h>
#include <linux/prctl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "image/baggage.h"
#include "image/image_entry.h"
#include "image/proc.h"
#include "image/say.h"
#include "image/workspace.h"
#include "lib/fds.h"

enum {
	PINGS = 4,
	PONG_WAIT_MS = 60000,
};

static struct workspace *workspace; /* from image_send_early to the end of image_send */

/* Calls fn(ws) on the workspace's own stack. */
void capture_on_stack(struct workspace *ws, void (*fn)(struct workspace *), void *top)
	__attribute__((visibility("hidden")));

__asm__(".pushsection .text\n"
	".globl capture_on_stack\n"
	".hidden capture_on_stack\n"
	".type capture_on_stack, @function\n"
	"capture_on_stack:\n"
	"	pushq %rbp\n"
	"	movq %rsp, %rbp\n"
	"	movq %rdx, %rsp\n"
	"	call *%rsi\n"
	"	movq %rbp, %rsp\n"
	"	popq %rbp\n"
	"	ret\n"
	".popsection\n");

/* A process that is not dumpable may not open even its own. */
static void workspace_open(struct workspace *ws)
{
	bool shut = ms_prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0;

	if (shut)
		ms_prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	ws->pagemap_fd = ms_open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
	ws->mem_fd = ms_open("/proc/self/mem", O_RDONLY | O_CLOEXEC, 0);
	if (shut)
		ms_prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static struct workspace *workspace_create(const struct image_source *src, char why[IMAGE_WHY])
{
	/* A guard on each side keeps the kernel from merging it with a neighbour. */
	char *base = ms_mmap(NULL, WORKSPACE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct workspace *ws = (struct workspace *)(base + IMAGE_PAGE);
	size_t used = (sizeof(*ws) + 63) & ~63ul;

	if (ms_is_error(base) || ms_mprotect(ws, WORKSPACE_SIZE - 2 * IMAGE_PAGE, PROT_READ | PROT_WRITE)) {
		image_say(why, "no memory for the capture");
		return NULL;
	}
	ws->base = (uint64_t)base;
	ws->src = src;
	ws->maps = (char *)ws + used;
	ws->areas = (struct image_area *)(ws->maps + WORKSPACE_MAPS);
	ws->advice = (struct advice_run *)(ws->areas + IMAGE_AREAS_MAX);
	ws->uffd = -1;
	workspace_open(ws);
	image_sum_init(&ws->sum, src->hash_key);
	return ws;
}

static void workspace_destroy(struct workspace *ws)
{
	tracking_stop(ws);
	if (ws->pagemap_fd >= 0)
		ms_close(ws->pagemap_fd);
	if (ws->mem_fd >= 0)
		ms_close(ws->mem_fd);
	ms_munmap((void *)ws->base, WORKSPACE_SIZE);
}

void capture_forget(void)
{
	workspace = NULL;
}

/* Runs fn on the workspace's stack and hands its reason on. */
static int workspace_run(struct workspace *ws, void (*fn)(struct workspace *), char why[IMAGE_WHY])
{
	capture_on_stack(ws, fn, ws->stack + sizeof(ws->stack));
	if (ws->result)
		image_say(why, "%s", ws->why);
	return ws->result;
}

/* One that runs, as /proc calls it; 0: that is not told. */
static int running_child(void)
{
	static int tids[IMAGE_THREADS_MAX];
	int n = proc_numbers("/proc/self/task", tids, IMAGE_THREADS_MAX), child = 0;
	char path[64], text[256] = "";
	const char *at;

	for (int i = 0; i < n && i < IMAGE_THREADS_MAX && !child; i++) {
		image_print(path, sizeof(path), "/proc/self/task/%d/children", tids[i]);
		at = text;
		text[0] = 0;
		proc_read(path, text, sizeof(text)); /* it may be more than fits */
		child = (int)proc_number(&at, 10);
	}
	return child;
}

static int refuse_children(struct workspace *ws)
{
	siginfo_t info = { 0 };
	int running;
	long e = ms_sys5(SYS_waitid, P_ALL, 0, (long)&info, WEXITED | WNOHANG | WNOWAIT | __WALL, 0);

	if (e == -ECHILD)
		return 0;
	if (info.si_pid)
		return image_say(ws->why, "it has a child process that nobody has waited for: %d", info.si_pid);
	running = running_child();
	return image_say(ws->why, running ? "it has a running child process: %d" : "it has a running child process",
			 running);
}

static int capture_check(struct workspace *ws)
{
	struct baggage *c;
	int skip[3] = { ws->pagemap_fd, ws->mem_fd, ws->uffd };
	int e;

	if (ws->pagemap_fd < 0 || ws->mem_fd < 0)
		return image_say(ws->why, "cannot open /proc/self/pagemap and mem: %e",
				 ws->pagemap_fd < 0 ? ws->pagemap_fd : ws->mem_fd);
	if (refuse_children(ws) || areas_read(ws))
		return -1;
	c = baggage_create();
	if (!c)
		return image_say(ws->why, "no memory for the list of descriptors");
	e = baggage_process(c, ws->why) || baggage_files(c, ws->src, skip, 3, ws->why) ? -1 : 0;
	baggage_destroy(c);
	return e;
}

static void run_check(struct workspace *ws)
{
	ws->result = capture_check(ws);
}

int image_check(const struct image_source *src, char why[IMAGE_WHY])
{
	struct workspace *ws = workspace_create(src, why);
	int e;

	if (!ws)
		return -1;
	e = workspace_run(ws, run_check, why);
	workspace_destroy(ws);
	return e;
}

uint64_t image_xsave_features(void)
{
	uint32_t a, b, c = 0, d, low, high;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (uint64_t)high << 32 | low;
}

static int send_hello(struct workspace *ws)
{
	uint64_t hash = 0, bytes = 0;
	struct ms_codec c;

	for (uint32_t i = 0; i < ws->area_count; i++)
		if (ws->areas[i].kind == IMAGE_AREA_VDSO) {
			bytes = ws->areas[i].end - ws->areas[i].start;
			hash = XXH3_64bits((void *)ws->areas[i].start, bytes);
		}
	frame_begin(ws, &c);
	ms_put_u64(&c, ws->src->m);
	ms_put_u32(&c, (uint32_t)ms_getpid());
	ms_put_u64(&c, hash);
	ms_put_u64(&c, bytes);
	ms_put_u64(&c, image_xsave_features() | (ms_streq(ws->src->fault, "other-processor") ? 1ull << 19 : 0));
	return frame_end(ws, &c, IMAGE_HELLO);
}

static int send_vdso(struct workspace *ws)
{
	struct ms_codec c;

	frame_begin(ws, &c);
	for (uint32_t i = 0; i < ws->area_count; i++) {
		const struct image_area *a = &ws->areas[i];

		if (a->kind == IMAGE_AREA_VDSO && a->end - a->start <= IMAGE_VDSO_MAX)
			ms_put_bytes(&c, (void *)a->start, a->end - a->start);
	}
	return frame_end(ws, &c, IMAGE_VDSO);
}

static int send_area_batch(struct workspace *ws, uint32_t from, uint32_t to)
{
	struct ms_codec c;

	frame_begin(ws, &c);
	ms_put_u16(&c, (uint16_t)(to - from));
	for (uint32_t i = from; i < to; i++)
		image_area_put(&c, &ws->areas[i]);
	return frame_end(ws, &c, IMAGE_AREAS);
}

static int send_areas(struct workspace *ws, bool final)
{
	struct ms_codec c;
	uint32_t from = 0;
	size_t bytes = 0;

	for (uint32_t i = 0; i < ws->area_count; i++) {
		size_t n = 64 + ms_strlen(ws->areas[i].path);

		if (bytes + n > IMAGE_FRAME_MAX - 64) {
			if (send_area_batch(ws, from, i))
				return -1;
			from = i;
			bytes = 0;
		}
		bytes += n;
	}
	if (send_area_batch(ws, from, ws->area_count))
		return -1;
	frame_begin(ws, &c);
	ms_put_u8(&c, final);
	return frame_end(ws, &c, IMAGE_AREAS_END);
}

static bool area_has_pages(const struct image_area *a)
{
	return a->kind == IMAGE_AREA_ANON || a->kind == IMAGE_AREA_FILE || image_area_is_shared(a);
}

/* TOUCH or KEEP: what is there. */
static int send_list(struct workspace *ws, uint8_t type)
{
	struct ms_codec c;
	uint16_t count = 0;

	for (uint32_t i = 0; i < ws->area_count; i++)
		if (area_has_pages(&ws->areas[i]) && pages_list(ws, &ws->areas[i], type, &c, &count))
			return -1;
	return pages_list_end(ws, type, &c, &count);
}

int capture_memory(struct workspace *ws)
{
	for (uint32_t i = 0; i < ws->area_count; i++) {
		const struct image_area *a = &ws->areas[i];

		if (area_has_pages(a) && pages_send(ws, a))
			return -1;
		if (a->kind == IMAGE_AREA_SHARED_FILE && ws->mode != PAGES_LIVE)
			ws->backed_pages += (a->end - a->start) / IMAGE_PAGE;
	}
	return pages_finish(ws);
}

uint64_t capture_count(struct workspace *ws)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < ws->area_count; i++)
		if (area_has_pages(&ws->areas[i]))
			bytes += pages_count(ws, &ws->areas[i]);
	return bytes;
}

/* Says that the step is done; then the fault that was asked for here. */
void capture_step(struct workspace *ws, enum ms_step step, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	const uint64_t figures[MS_STEP_FIGURES] = { a, b, c, d };
	enum ms_fault act = ms_fault_at(ws->src->fault, step);

	if (ws->src->step)
		ws->src->step(step, figures);
	if (act == MS_FAULT_DIE)
		ms_kill(ms_getpid(), SIGKILL);
	else if (act == MS_FAULT_CUT)
		ms_shutdown(ws->src->sock, SHUT_RDWR);
}

int capture_ping(struct workspace *ws, uint64_t number, uint64_t *best)
{
	uint8_t answer[IMAGE_FRAME_HEAD + 24];
	uint64_t sent, got, bytes, there[2];
	struct ms_codec c;

	frame_begin(ws, &c);
	ms_put_u64(&c, number);
	sent = ms_clock_ns(CLOCK_MONOTONIC);
	if (frame_end(ws, &c, IMAGE_PING) || frame_read(ws, answer, sizeof(answer), PONG_WAIT_MS))
		return -1;
	got = ms_clock_ns(CLOCK_MONOTONIC);
	ms_codec_init(&c, answer, sizeof(answer));
	if (image_frame_get(&c, &bytes) != IMAGE_PONG || bytes != 24 || ms_get_u64(&c) != number)
		return image_say(ws->why, "the restorer answers what was not asked");
	there[0] = ms_get_u64(&c);
	there[1] = ms_get_u64(&c);
	if (got - sent >= *best)
		return 0;
	*best = got - sent;
	ws->clock_offset[0] = sent + (got - sent) / 2 - there[0];
	ws->clock_offset[1] = ms_clock_ns(CLOCK_BOOTTIME) - (got - sent) / 2 - there[1];
	return 0;
}

/* What was announced is there at the target, and all that was sent has been taken. */
int capture_made(struct workspace *ws)
{
	uint64_t rtt = 0; /* no news for the clocks' offset */

	return capture_ping(ws, IMAGE_PING_MADE, &rtt);
}

static int measure_clocks(struct workspace *ws)
{
	uint64_t best = UINT64_MAX;

	for (uint64_t i = 0; i < PINGS; i++)
		if (capture_ping(ws, i, &best))
			return -1;
	return 0;
}

static int look(struct workspace *ws)
{
	if (ws->src->checked ? areas_read(ws) : capture_check(ws))
		return -1;
	capture_step(ws, MS_STEP_LOOKED, ws->area_count, 0, 0, 0);
	return 0;
}

static void fd_highest(int fd, int flags, void *arg)
{
	int *most = arg;

	*most = fd;
}

/* They lie above what the process has now, with room for what it opens until the freeze: a pair each, and more. */
static int send_pairs(struct workspace *ws)
{
	enum { ROOM = 64 };
	uint32_t n = ws->src->pairs < IMAGE_PAIRS_MAX ? ws->src->pairs : IMAGE_PAIRS_MAX;
	struct ms_codec c;
	int most = 0;

	if (!n || fds_each(false, fd_highest, &most) || (uint32_t)most + 4 * n + ROOM > IMAGE_FDS_MAX)
		return 0;
	frame_begin(ws, &c);
	ms_put_u32(&c, n);
	ms_put_u32(&c, (uint32_t)most + 2 * n + ROOM);
	return frame_end(ws, &c, IMAGE_PAIRS);
}

static void run_early(struct workspace *ws)
{
	ws->result = -1;
	if (look(ws))
		return;
	tracking_begin(ws);
	if (areas_read_announced(ws) || send_hello(ws) || send_vdso(ws) || send_areas(ws, false) ||
	    send_list(ws, IMAGE_TOUCH) || send_pairs(ws) || measure_clocks(ws))
		return;
	capture_step(ws, MS_STEP_LAID_OUT, 0, 0, 0, 0);
	ws->result = live_send(ws) || advice_read(ws) ? -1 : 0;
}

static void run_more(struct workspace *ws)
{
	ws->result = live_send_more(ws) || advice_read(ws) ? -1 : 0;
}

int image_send_more(char why[IMAGE_WHY])
{
	return workspace ? workspace_run(workspace, run_more, why) : 0;
}

/* Nothing is announced, so that the target makes no room. */
static void run_forecast(struct workspace *ws)
{
	ws->result = -1;
	if (look(ws) || send_hello(ws) || send_areas(ws, false) || measure_clocks(ws))
		return;
	ws->result = live_forecast(ws, ws->forecast);
}

int image_forecast(const struct image_source *src, struct image_forecast *f, char why[IMAGE_WHY])
{
	struct workspace *ws = workspace_create(src, why);
	int e;

	if (!ws)
		return -1;
	ws->forecast = f;
	e = workspace_run(ws, run_forecast, why);
	workspace_destroy(ws);
	return e;
}

void image_cancel(void)
{
	if (workspace)
		workspace_destroy(workspace);
	workspace = NULL;
}

int image_send_early(const struct image_source *src, char why[IMAGE_WHY])
{
	const int one = 1;

	image_cancel();
	workspace = workspace_create(src, why);
	if (!workspace)
		return -1;
	/* The freeze is a dialogue of small frames. */
	ms_setsockopt(src->sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (workspace_run(workspace, run_early, why) == 0)
		return 0;
	image_cancel();
	return -1;
}

static int send_freeze(struct workspace *ws)
{
	struct image_state *st = &image__state;
	uint32_t main_slot = UINT32_MAX;
	struct ms_codec c;

	for (uint32_t i = 0; i < st->claimed; i++)
		if (st->slot[i].main)
			main_slot = i;
	if (main_slot == UINT32_MAX)
		return image_say(ws->why, "the main thread has ended");
	frame_begin(ws, &c);
	ms_put_u64(&c, ws->clock_offset[0]);
	ms_put_u64(&c, ws->clock_offset[1]);
	ms_put_u64(&c, ms_clock_ns(CLOCK_MONOTONIC));
	ms_put_u64(&c, ms_clock_ns(CLOCK_BOOTTIME));
	ms_put_u64(&c, (uint64_t)image_prepare);
	ms_put_u64(&c, (uint64_t)image_thread);
	ms_put_u32(&c, st->claimed);
	for (uint32_t i = 0; i < st->claimed; i++) {
		uint32_t k = i == 0 ? main_slot : i == main_slot ? 0 : i;

		ms_put_u32(&c, (uint32_t)st->slot[k].tid);
		ms_put_u64(&c, (uint64_t)&st->slot[k]);
	}
	return frame_end(ws, &c, IMAGE_FREEZE);
}

/* /proc/self/stat: field `number` as proc(5) counts them; `after` is the text behind the name. */
static uint64_t stat_field(const char *after, int number)
{
	for (int at = 3; at < number && *after; at++) {
		while (*after && *after != ' ')
			after++;
		after++;
	}
	return proc_number(&after, 10);
}

static int send_program(struct workspace *ws)
{
	static const uint8_t field[IMAGE_MARKS] = { 26, 27, 45, 46, 47, 0, 28, 48, 49, 50, 51, 0 };
	char *text = ws->maps; /* the areas have been sent */
	const char *after = text;
	struct ms_codec c;
	long n = proc_read("/proc/self/stat", text, 4096);

	if (n <= 0)
		return image_say(ws->why, "cannot read /proc/self/stat: %e", (int)n);
	for (const char *s = text; *s; s++)
		if (*s == ')')
			after = s + 2;
	frame_begin(ws, &c);
	for (int i = 0; i < IMAGE_MARKS; i++)
		ms_put_u64(&c, i == IMAGE_BRK ? (uint64_t)ms_sys1(SYS_brk, 0)
			       : field[i]     ? stat_field(after, field[i])
					      : 0);
	n = ms_readlinkat(AT_FDCWD, "/proc/self/exe", text, IMAGE_PATH_MAX - 1);
	text[n > 0 ? n : 0] = 0;
	ms_put_str(&c, text);
	n = proc_read("/proc/self/auxv", text, 4096);
	ms_put_u16(&c, (uint16_t)(n > 0 ? n : 0));
	ms_put_bytes(&c, text, (size_t)(n > 0 ? n : 0));
	ms_put_u8(&c, (uint8_t)image__state.baggage->dumpable);
	return frame_end(ws, &c, IMAGE_PROGRAM);
}

static int collect(struct workspace *ws)
{
	int skip[3] = { ws->pagemap_fd, ws->mem_fd, ws->uffd };
	struct baggage *c = baggage_create();

	image__state.baggage = c;
	if (!c)
		return image_say(ws->why, "no memory for the state of the process");
	c->resume = ws->src->resume;
	c->kick = image__state.kick;
	memcpy(c->home, ws->src->home, sizeof(c->home));
	if (refuse_children(ws) || baggage_process(c, ws->why) || baggage_files(c, ws->src, skip, 3, ws->why))
		return -1;
	return baggage_signals(c, ws->why);
}

/* What was given back since it was sent must go at the target too. */
static int send_keep(struct workspace *ws)
{
	struct ms_codec c;

	if (send_list(ws, IMAGE_KEEP))
		return -1;
	frame_begin(ws, &c);
	return frame_end(ws, &c, IMAGE_KEEP_END);
}

static int send_end(struct workspace *ws)
{
	struct ms_codec c;

	frame_begin(ws, &c);
	ms_put_u64(&c, ms_streq(ws->src->fault, "bad-sum") ? ~ws->sum.value : ws->sum.value);
	ms_put_u64(&c, ws->page_bytes);
	return frame_end(ws, &c, IMAGE_END);
}

/* Page faults of this thread. */
static long faults(void)
{
	struct rusage use = { 0 };

	ms_sys2(SYS_getrusage, RUSAGE_THREAD, (long)&use);
	return use.ru_minflt + use.ru_majflt;
}

static void run_send(struct workspace *ws)
{
	ws->result = -1;
	ws->faults = faults();
	ws->mode = ws->tracking ? PAGES_REST : PAGES_ALL;
	if (send_freeze(ws) || collect(ws))
		return;
	capture_step(ws, MS_STEP_BAGGED, 0, 0, 0, 0);
	if (image_await_asleep(ws->why) || areas_read_final(ws) || send_areas(ws, true))
		return;
	if (ws->tracking && send_keep(ws))
		return;
	ws->forgets = ms_streq(ws->src->fault, "forgets-pages");
	if (capture_memory(ws) || (ws->src->compare && compare_send(ws)) || pages_guards(ws) || send_program(ws) ||
	    send_end(ws))
		return;
	capture_step(ws, MS_STEP_SENT, ws->page_bytes / IMAGE_PAGE, ws->zero_pages, ws->backed_pages,
		     (uint64_t)(faults() - ws->faults));
	ws->result = 0;
}

int image_send(const struct image_source *src, struct image_stats *stats, char why[IMAGE_WHY])
{
	struct workspace *ws = workspace;
	int e;

	if (!ws)
		return image_say(why, "nothing was sent before the freeze");
	ws->src = src;
	e = workspace_run(ws, run_send, why);
	stats->bytes = ws->all_bytes;
	stats->sum = ws->sum.value;
	stats->freeze_start_ns = image__state.freeze_start_ns;
	stats->rounds = ws->rounds + 1;
	stats->pages = ws->page_bytes / IMAGE_PAGE;
	stats->zero_pages = ws->zero_pages;
	stats->backed_pages = ws->backed_pages;
	stats->packed_bytes = ws->pack.packed_bytes;
	stats->saved_bytes = ws->pack.saved_bytes;
	image_cancel();
	return e;
}
