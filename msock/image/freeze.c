/* SPDX-License-Identifier: MIT */
/*
 * Stopping the threads, and letting them go on, here or at the target.
 *
 * A thread that parks has its registers in the kernel's signal frame on its own
 * stack, vector state included.  It saves its place in image_park too; at the
 * target it comes back to that place and returns from the handler.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <linux/futex.h>
#include <linux/prctl.h>
#include <ucontext.h>

#include "image/baggage.h"
#include "image/image_entry.h"
#include "image/mem.h"
#include "image/proc.h"
#include "image/say.h"
#include "image/special.h"

struct image_state image__state;

/* What the C library tells about its registration; absent before 2.35. */
extern const ptrdiff_t __rseq_offset __attribute__((weak, visibility("default")));
extern const unsigned int __rseq_size __attribute__((weak, visibility("default")));

enum { RSEQ_SIGNATURE = 0x53053053, RSEQ_SIZE_MIN = 32 };

/* Saves the callee's registers; returns 0, and once more, with 1, when somebody loads the context. */
int image_context_save(struct image_context *c) __attribute__((returns_twice, visibility("hidden")));
void image_context_load(const struct image_context *c) __attribute__((noreturn, visibility("hidden")));

__asm__(".pushsection .text\n"
	".hidden image_context_save, image_context_load\n"
	".globl image_context_save, image_context_load\n"
	".type image_context_save, @function\n"
	".type image_context_load, @function\n"
	"image_context_save:\n"
	"	movq %rbx, 0(%rdi)\n"
	"	movq %rbp, 8(%rdi)\n"
	"	movq %r12, 16(%rdi)\n"
	"	movq %r13, 24(%rdi)\n"
	"	movq %r14, 32(%rdi)\n"
	"	movq %r15, 40(%rdi)\n"
	"	leaq 8(%rsp), %rax\n"
	"	movq %rax, 48(%rdi)\n"
	"	movq (%rsp), %rax\n"
	"	movq %rax, 56(%rdi)\n"
	"	xorl %eax, %eax\n"
	"	ret\n"
	"image_context_load:\n"
	"	movq 0(%rdi), %rbx\n"
	"	movq 8(%rdi), %rbp\n"
	"	movq 16(%rdi), %r12\n"
	"	movq 24(%rdi), %r13\n"
	"	movq 32(%rdi), %r14\n"
	"	movq 40(%rdi), %r15\n"
	"	movq 48(%rdi), %rsp\n"
	"	movl $1, %eax\n"
	"	jmpq *56(%rdi)\n"
	".popsection\n");

#define ASLEEP_NS (10 * 1000000000ull)

/*
 * The C library's own helper threads (timers that call functions, asynchronous
 * I/O) block all signals but the one by which it changes user ids in all
 * threads.  Who does not stop by the kick gets that one, for which the kick's
 * handler stands in so long.  Queued, not sent as the library does it: what is
 * left of it later means nothing to the library's handler.
 */
enum { SECOND_SIGNAL = 33, SECOND_AFTER_NS = 30000000 };

static uint32_t load(const uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void store_and_wake(uint32_t *p, uint32_t v)
{
	__atomic_store_n(p, v, __ATOMIC_SEQ_CST);
	ms_futex(p, FUTEX_WAKE, 1 << 30, NULL);
}

static void add_and_wake(uint32_t *p)
{
	__atomic_fetch_add(p, 1, __ATOMIC_SEQ_CST);
	ms_futex(p, FUTEX_WAKE, 1 << 30, NULL);
}

bool image_freezing(void)
{
	return load(&image__state.freezing);
}

static void slot_fill(struct image_slot *s, void *frame)
{
	s->frame = frame;
	s->tid = ms_gettid();
	s->main = s->tid == ms_getpid();
	ms_arch_prctl(ARCH_GET_FS, (unsigned long)&s->fs);
	ms_arch_prctl(ARCH_GET_GS, (unsigned long)&s->gs);
	s->clear_tid = NULL;
	ms_prctl(PR_GET_TID_ADDRESS, (long)&s->clear_tid, 0, 0, 0);
	s->robust = NULL;
	ms_sys3(SYS_get_robust_list, 0, (long)&s->robust, (long)&s->robust_size);
	s->slack_ns = (uint64_t)ms_prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
	ms_prctl(PR_GET_NAME, (long)s->name, 0, 0, 0);
	settings_note(&s->settings);
	s->rseq = NULL;
	if (&__rseq_size && __rseq_size && s->fs) {
		uint32_t *area = (uint32_t *)(s->fs + (uint64_t)__rseq_offset);

		if ((int)area[1] >= 0) { /* cpu_id: negative if this thread is not registered */
			s->rseq = area;
			s->rseq_size = __rseq_size < RSEQ_SIZE_MIN ? RSEQ_SIZE_MIN : __rseq_size;
		}
	}
}

/* The last to go takes away what only the freeze needed. */
static void slot_leave(struct image_slot *s)
{
	struct image_state *st = &image__state;
	struct image_arrival *arrived = st->arrival;
	struct baggage *c = st->baggage;
	uint32_t of = load(&st->parked);

	if (c) {
		baggage_signals_return(c, s->tid);
		if (s->main)
			baggage_signals_return(c, 0);
	}
	if (__atomic_add_fetch(&st->left, 1, __ATOMIC_SEQ_CST) == of && arrived) {
		st->arrival = NULL;
		st->baggage = NULL;
		baggage_destroy(c);
		ms_munmap((void *)IMAGE_ZONE, IMAGE_ZONE_SIZE);
	}
}

static void slot_wait(struct image_slot *s)
{
	for (;;) {
		uint32_t state = load(&s->state);

		if (state == SLOT_LEAVE)
			return;
		if (state == SLOT_DRAIN) {
			baggage_signal_drain(image__state.baggage, s->tid);
			store_and_wake(&s->state, SLOT_PARKED);
			continue;
		}
		ms_futex(&s->state, FUTEX_WAIT, state, NULL);
	}
}

void image_park(void *ucontext)
{
	struct image_state *st = &image__state;
	ucontext_t *uc = ucontext;
	uint64_t pc = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
	uint32_t taken = SLOT_TAKEN;
	struct image_slot *s;
	uint32_t n;

	if (!image_freezing())
		return;
	if (pc >= st->vdso && pc < st->vdso_end) {
		/* What it has read of the kernel's clock data means nothing elsewhere. */
		add_and_wake(&st->bounced);
		return;
	}
	n = __atomic_fetch_add(&st->claimed, 1, __ATOMIC_SEQ_CST);
	if (n >= IMAGE_THREADS_MAX)
		return;
	s = &st->slot[n];
	slot_fill(s, ucontext);
	if (image_context_save(&s->context)) {
		slot_wait(s);
		slot_leave(s);
		return; /* at the target */
	}
	/* Given up between the look at `freezing` and the claim: nobody will say leave. */
	if (!image_freezing())
		__atomic_store_n(&s->state, SLOT_LEAVE, __ATOMIC_SEQ_CST);
	__atomic_compare_exchange_n(&s->state, &taken, SLOT_PARKED, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	add_and_wake(&st->parked);
	slot_wait(s);
	slot_leave(s);
}

static void thread_dress(const struct image_slot *s)
{
	ms_arch_prctl(ARCH_SET_FS, s->fs);
	ms_arch_prctl(ARCH_SET_GS, s->gs);
	ms_sys1(SYS_set_tid_address, (long)s->clear_tid);
	if (s->robust)
		ms_sys2(SYS_set_robust_list, (long)s->robust, (long)s->robust_size);
	if (s->rseq) {
		s->rseq[0] = 0;
		s->rseq[1] = (uint32_t)-1;
		s->rseq[2] = s->rseq[3] = 0; /* no critical section: the kernel has left it before the handler ran */
		ms_sys4(SYS_rseq, (long)s->rseq, s->rseq_size, 0, RSEQ_SIGNATURE);
	}
	ms_prctl(PR_SET_NAME, (long)s->name, 0, 0, 0);
	ms_prctl(PR_SET_TIMERSLACK, (long)s->slack_ns, 0, 0, 0);
	settings_return(&s->settings, image__state.baggage);
}

bool image_pair(int pair[2], uint64_t *ino)
{
	struct image_arrival *a = image__state.arrival;

	if (!image__state.arriving || a->pairs >= a->pairs_end)
		return false;
	*ino = *a->pair_ino++;
	pair[0] = a->pairs++;
	pair[1] = a->pairs++;
	return true;
}

bool image_pairs_lent(int *first, int *end)
{
	struct image_state *st = &image__state;

	*first = st->pairs;
	*end = st->pairs_end;
	st->pairs = st->pairs_end = 0;
	return *first < *end;
}

/* The main thread at the target, still on the restorer's stack: the others wait until the library knows. */
static void arrive_main(struct image_arrival *a)
{
	struct image_state *st = &image__state;

	st->arriving = true;
	special_locks_return(st->baggage);
	st->pairs = a->pairs;
	st->pairs_end = a->pairs_end;
	st->baggage->resume(a->msg, a->msg_bytes);
	baggage_timers_return(st->baggage);
	st->frozen_ns = image_frozen_ns();
	st->arriving = false;
	__atomic_store_n(&st->freezing, 0, __ATOMIC_SEQ_CST);
	for (uint32_t i = 0; i < load(&st->claimed); i++)
		__atomic_store_n(&st->slot[i].state, SLOT_LEAVE, __ATOMIC_SEQ_CST);
}

void image_thread(struct image_slot *s, struct image_arrival *a)
{
	uint32_t others = load(&image__state.claimed) - 1;
	uint32_t ready;

	thread_dress(s);
	if (!s->main) {
		add_and_wake(&a->ready);
		while (!load(&a->go))
			ms_futex(&a->go, FUTEX_WAIT, 0, NULL);
	} else {
		while ((ready = load(&a->ready)) < others)
			ms_futex(&a->ready, FUTEX_WAIT, ready, NULL);
		arrive_main(a);
		store_and_wake(&a->go, 1);
	}
	image_context_load(&s->context);
}

static struct image_slot *slot_of(int tid)
{
	struct image_state *st = &image__state;

	for (uint32_t i = 0; i < load(&st->claimed) && i < IMAGE_THREADS_MAX; i++)
		if (st->slot[i].tid == tid && load(&st->slot[i].state) == SLOT_PARKED)
			return &st->slot[i];
	return NULL;
}

/* The number that a thread has in our namespace, from the one that the outer /proc shows. */
static int thread_inner(int outer)
{
	char path[64], text[4096];
	const char *s;
	int inner = 0;

	image_print(path, sizeof(path), "/proc/self/task/%d/status", outer);
	if (proc_read(path, text, sizeof(text)) <= 0)
		return 0;
	s = proc_field(text, "NSpid");
	while (s && *s >= '0' && *s <= '9') {
		inner = (int)proc_number(&s, 10);
		while (*s == '\t' || *s == ' ')
			s++;
	}
	return inner;
}

static int thread_list(int tids[IMAGE_THREADS_MAX], char why[IMAGE_WHY])
{
	int n = proc_numbers("/proc/self/task", tids, IMAGE_THREADS_MAX);

	if (n < 0)
		return image_say(why, "cannot list the threads in /proc/self/task: %e", n);
	if (n > IMAGE_THREADS_MAX)
		return image_say(why, "more than %d threads", IMAGE_THREADS_MAX);
	if (proc_is_foreign())
		for (int i = 0; i < n; i++)
			tids[i] = thread_inner(tids[i]);
	return n;
}

static void second_borrow(void)
{
	struct image_state *st = &image__state;
	struct ms_ksigaction kick;

	/* Without a handler of the library there are no such threads, and what is left of it would end the process. */
	if (ms_sigaction(SECOND_SIGNAL, NULL, &st->second) || (uintptr_t)st->second.handler <= 1 ||
	    ms_sigaction(st->kick, NULL, &kick))
		return;
	ms_sigaction(SECOND_SIGNAL, &kick, NULL);
	st->second_on = true;
}

static int second_give_back(int result)
{
	struct image_state *st = &image__state;

	if (st->second_on)
		ms_sigaction(SECOND_SIGNAL, &st->second, NULL);
	st->second_on = false;
	return result;
}

static void second_send(int pid, int tid)
{
	siginfo_t info = { .si_signo = SECOND_SIGNAL, .si_code = SI_QUEUE };

	info.si_pid = pid;
	ms_tgsigqueueinfo(pid, tid, SECOND_SIGNAL, &info);
}

/* Kick those that have not parked; returns how many, the last one in *late. */
static int kick_rest(const int *tids, int n, bool (*ours)(int tid), bool kick, int *late)
{
	int pid = ms_getpid();
	int rest = 0;

	for (int i = 0; i < n; i++) {
		if (tids[i] <= 0 || ours(tids[i]) || slot_of(tids[i]))
			continue;
		if (kick && ms_tgkill(pid, tids[i], image__state.kick) == -ESRCH)
			continue;
		if (kick && image__state.second_on)
			second_send(pid, tids[i]);
		*late = tids[i];
		rest++;
	}
	return rest;
}

static int find_vdso(char why[IMAGE_WHY])
{
	enum { SIZE = 1 << 20 };
	struct image_state *st = &image__state;
	char *text = ms_mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct proc_map map;
	const char *at = text;

	if (ms_is_error(text))
		return image_say(why, "no memory for the list of mappings");
	proc_read("/proc/self/maps", text, SIZE);
	st->vdso = st->vdso_end = 0;
	while (proc_map_next(&at, &map))
		if (proc_map_is(&map, "[vdso]")) {
			st->vdso = map.start;
			st->vdso_end = map.end;
		}
	ms_munmap(text, SIZE);
	return 0;
}

static void freeze_begin(int signal)
{
	struct image_state *st = &image__state;
	struct timespec t = { 0, 100000 };

	/* Threads of a freeze that was given up may still be on their way out of their slots. */
	for (int i = 0; load(&st->left) < load(&st->parked) && i < 10000; i++)
		ms_nanosleep(&t);
	for (uint32_t i = 0; i < st->claimed && i < IMAGE_THREADS_MAX; i++) {
		st->slot[i].state = SLOT_TAKEN;
		st->slot[i].tid = 0;
	}
	st->claimed = st->parked = st->left = st->bounced = 0;
	st->kick = signal;
	st->freeze_start_ns = ms_clock_ns(CLOCK_MONOTONIC);
	__atomic_store_n(&st->freezing, 1, __ATOMIC_SEQ_CST);
}

static int freeze_threads(int signal, bool (*ours)(int tid), uint64_t timeout_ns, char why[IMAGE_WHY])
{
	const struct timespec slice = { 0, 500000 };
	struct image_state *st = &image__state;
	static int tids[IMAGE_THREADS_MAX];
	bool settled = false;
	uint32_t bounced = 0;
	int late = 0, seen = 0;

	for (unsigned round = 0;; round++) {
		uint32_t parked = load(&st->parked);
		int n = thread_list(tids, why);
		int rest;

		if (n < 0)
			return second_give_back(-1);
		rest = kick_rest(tids, n, ours, round % 200 == 0 || load(&st->bounced) != bounced || n != seen, &late);
		bounced = load(&st->bounced);
		seen = n;
		if (rest == 0) {
			/* Whoever was made by a thread before that parked is in the list of a second look. */
			if (settled)
				return second_give_back(0);
			settled = true;
			seen = 0;
			continue;
		}
		settled = false;
		if (ms_clock_ns(CLOCK_MONOTONIC) - st->freeze_start_ns > timeout_ns) {
			image_say(why, "thread %d does not stop: it blocks signal %d or is in a long system call", late,
				  signal);
			return second_give_back(-1);
		}
		if (!st->second_on && ms_clock_ns(CLOCK_MONOTONIC) - st->freeze_start_ns > SECOND_AFTER_NS) {
			second_borrow();
			seen = 0; /* kick */
		}
		if (load(&st->parked) == parked)
			ms_futex(&st->parked, FUTEX_WAIT, parked, &slice);
	}
}

static int freezer; /* the thread that freezes; nobody else of the library runs then */

static bool is_freezer(int tid)
{
	return tid == freezer;
}

int image_freeze(int signal, int agent_tid, uint64_t timeout_ns, char why[IMAGE_WHY])
{
	if (find_vdso(why))
		return -1;
	freezer = agent_tid;
	freeze_begin(signal);
	return freeze_threads(signal, is_freezer, timeout_ns, why);
}

int image_pause(int signal, bool (*ours)(int tid), uint64_t timeout_ns, char why[IMAGE_WHY])
{
	image__state.vdso = image__state.vdso_end = 0; /* nobody goes elsewhere */
	freeze_begin(signal);
	return freeze_threads(signal, ours, timeout_ns, why);
}

static void freeze_end(void)
{
	struct image_state *st = &image__state;

	__atomic_store_n(&st->freezing, 0, __ATOMIC_SEQ_CST);
	for (uint32_t i = 0; i < load(&st->claimed) && i < IMAGE_THREADS_MAX; i++)
		store_and_wake(&st->slot[i].state, SLOT_LEAVE);
}

void image_unpause(void)
{
	freeze_end();
}

void image_forked(void)
{
	struct image_state *st = &image__state;

	second_give_back(0);
	st->freezing = st->claimed = st->parked = st->left = st->bounced = 0;
}

void image_drain_threads(struct baggage *c)
{
	struct image_state *st = &image__state;
	char path[64], text[4096];

	(void)c;
	for (uint32_t i = 0; i < load(&st->claimed); i++) {
		struct image_slot *s = &st->slot[i];
		const char *pending;

		image_print(path, sizeof(path), "/proc/self/task/%d/status", s->tid);
		if (proc_is_foreign() || proc_read(path, text, sizeof(text)) <= 0)
			pending = NULL; /* cannot tell: ask it */
		else
			pending = proc_field(text, "SigPnd");
		if (pending && !(proc_number(&pending, 16) & ~MS_SIGBIT(st->kick)))
			continue;
		store_and_wake(&s->state, SLOT_DRAIN);
		while (load(&s->state) == SLOT_DRAIN)
			ms_futex(&s->state, FUTEX_WAIT, SLOT_DRAIN, NULL);
	}
}

/*
 * A thread that has parked still runs some instructions before it sleeps, and
 * each time it comes back from a preemption the kernel writes to its rseq area.
 * Pages read meanwhile would be torn, or taken for clean.  Whoever is in the
 * queue of its word does neither until it is woken; FUTEX_CMP_REQUEUE onto the
 * same word counts who is.
 */
int image_await_asleep(char why[IMAGE_WHY])
{
	const struct timespec t = { 0, 20000 };
	struct image_state *st = &image__state;
	uint64_t end = ms_clock_ns(CLOCK_MONOTONIC) + ASLEEP_NS;

	for (uint32_t i = 0; i < load(&st->claimed); i++) {
		uint32_t *word = &st->slot[i].state;

		while (ms_sys6(SYS_futex, (long)word, FUTEX_CMP_REQUEUE, 0, 1, (long)word, SLOT_PARKED) < 1) {
			if (ms_clock_ns(CLOCK_MONOTONIC) > end)
				return image_say(why, "thread %d has parked but does not sleep", st->slot[i].tid);
			ms_nanosleep(&t);
		}
	}
	return 0;
}

void image_thaw(void)
{
	struct image_state *st = &image__state;
	struct timespec t = { 0, 20000 };
	struct baggage *c = st->baggage;

	image_cancel();
	if (c)
		baggage_timers_return(c);
	freeze_end();
	if (!c)
		return;
	while (load(&st->left) < load(&st->parked))
		ms_nanosleep(&t);
	st->baggage = NULL;
	baggage_destroy(c);
}

uint64_t image_frozen_ns(void)
{
	const struct image_state *st = &image__state;

	return st->arriving ? ms_clock_ns(CLOCK_MONOTONIC) - st->freeze_start_ns : st->frozen_ns;
}
