/* SPDX-License-Identifier: MIT */
/*
 * The look for an urgent byte, when the leg is taken from the program, with something coming in before each of its system
 * calls: what the program gets then, by the code that gives it, is what the peer sent, in order, each byte once.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/sys.h"

static int peer;
static const char *coming;
static unsigned steps, when;

/* Lower case letters are ordinary bytes, others urgent ones. */
static void say(const char *text)
{
	for (; *text; text++)
		assert_int_equal(send(peer, text, 1, *text >= 'a' ? 0 : MSG_OOB), 1);
}

static void step(void)
{
	if (++steps == when)
		say(coming);
}

#define ms_ioctl(...) (step(), ms_ioctl(__VA_ARGS__))
#define ms_recv(...) (step(), ms_recv(__VA_ARGS__))
#define ms_poll(...) (step(), ms_poll(__VA_ARGS__))
#define ms_getsockopt(...) (step(), ms_getsockopt(__VA_ARGS__))
#define ms_setsockopt(...) (step(), ms_setsockopt(__VA_ARGS__))
#include "lib/leg_counts.c"
#include "lib/sock_urgent.c"

static const struct start {
	const char *ahead, *urgent, *behind;
	bool had; /* the program has read the urgent byte, and nothing else */
} starts[] = {
	{ "", "", "", false },    { "ab", "", "", false },    { "", "A", "", false }, { "", "A", "cd", false },
	{ "ab", "A", "", false }, { "ab", "A", "cd", false }, { "", "A", "", true },  { "", "A", "cd", true },
	{ "ab", "A", "", true },  { "ab", "A", "cd", true },
};

/* What the library does with a leg: it is taken, or before it is given the program is told by a signal. */
enum use { TAKEN, INLINE_TAKEN, INLINE_TOLD, USES };

/* room: of the leg, for what is not read; 0: enough */
static void connect_two(int *leg, int room)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(at);
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (room)
		assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)), 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &size), 0);
	peer = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(peer, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
	*leg = accept(listener, NULL, NULL);
	assert_true(*leg >= 0);
	close(listener);
}

/* All that has been sent is there. */
static void arrived(int leg, size_t sent)
{
	for (int i = 0; leg_received(leg) < sent; i++) {
		assert_true(i < 10000);
		usleep(1000);
	}
}

/* What the library makes of a look.  Whether something came in before a call of it. */
static bool look_at(struct sock *s, int leg, enum use use, bool *waits)
{
	struct sock_urgent u = { 0 };
	int unread = 0;
	bool within;

	steps = 0;
	if (use == INLINE_TOLD)
		*waits = sock_urgent_waits(leg);
	else
		sock_urgent_look(leg, &u);
	within = steps >= when;
	when = 0;
	assert_int_equal(ioctl(leg, FIONREAD, &unread), 0);
	s->given = s->conn->s.taken = leg_received(leg) - (uint64_t)unread;
	sock_urgent_keep(s, &u);
	return within;
}

/* As the library reads the leg and gives what it read; urgent bytes in brackets. Where the text ends. */
static char *give_all(struct sock *s, int leg, char *text)
{
	char byte[64];

	for (;;) {
		long n;

		sock_note_mark(s, leg);
		n = ms_recv(leg, byte, sizeof(byte), MSG_DONTWAIT);
		if (n <= 0)
			return text;
		s->conn->s.taken += (uint64_t)n;
		for (long i = 0; i < n; i++, s->given++) {
			if (sock_until_urgent(s, 1)) {
				text += sprintf(text, "%c", byte[i]);
				continue;
			}
			if (s->urgent == SOCK_URGENT_WAITS)
				text += sprintf(text, "[%c]", byte[i]);
			s->urgent = SOCK_URGENT_NONE;
		}
	}
}

/*
 * What the program may get; TCP knows only the last urgent byte: the one before is then ordinary, or, without SO_OOBINLINE, lost
 * if it is the next.  One that was had may come again in line.
 */
static bool right(const struct start *at, enum use use, const char *got)
{
	static const char *const older[] = { "[A]", "A", "" };
	bool another = strchr(coming, 'B'), in_line = use != TAKEN;
	const bool may[] = { !at->had || in_line, another && (!at->had || *at->ahead || in_line),
			     at->had || (another && !*at->ahead && !in_line) };
	char end[8] = "";

	for (const char *c = coming; *c; c++)
		sprintf(end + strlen(end), *c >= 'a' ? "%c" : "[%c]", *c);
	for (int i = 0; i < 3; i++) {
		char want[64];

		snprintf(want, sizeof(want), "%s%s%s%s", at->ahead, *at->urgent ? older[i] : "", at->behind, end);
		if (may[i] && !strcmp(got, want))
			return true;
	}
	return false;
}

/* Something comes before the look's system call `number`; false: the look has fewer. */
static bool one(const struct start *at, enum use use, unsigned number)
{
	size_t before = strlen(at->ahead) + strlen(at->urgent) + strlen(at->behind);
	struct conn c = { 0 };
	struct sock s = { .conn = &c };
	bool within, waits = *at->urgent && !at->had;
	char text[256] = "", byte;
	int leg;

	connect_two(&leg, 0);
	say(at->ahead);
	say(at->urgent);
	say(at->behind);
	arrived(leg, before);
	if (at->had)
		assert_int_equal(recv(leg, &byte, 1, MSG_OOB), 1);
	sock_inline(leg, use != TAKEN);
	when = number;
	within = look_at(&s, leg, use, &waits);
	if (!strchr(coming, 'B') || (*at->urgent && !at->had))
		assert_int_equal(waits, *at->urgent && !at->had);
	if (!within)
		say(coming);
	arrived(leg, before + strlen(coming));
	give_all(&s, leg, text);
	if (!right(at, use, text))
		fail_msg("\"%s\" \"%s\" \"%s\"%s, use %d, \"%s\" before call %u: \"%s\"", at->ahead, at->urgent,
			 at->behind, at->had ? " had" : "", use, coming, number, text);
	assert_int_equal(c.s.taken, before + strlen(coming));
	close(leg);
	close(peer);
	return within;
}

static void each_call(const struct start *at, enum use use)
{
	static const char *const what[] = { "q", "B", "qB", "Bq" };

	for (size_t i = 0; i < sizeof(what) / sizeof(*what); i++) {
		unsigned number = 1;

		coming = what[i];
		while (one(at, use, number))
			assert_true(++number < 100);
		assert_true(number > (use == TAKEN ? 5 : 1));
	}
}

static void look(void **state)
{
	for (enum use use = TAKEN; use < USES; use++)
		for (size_t k = 0; k < sizeof(starts) / sizeof(*starts); k++)
			each_call(&starts[k], use);
}

/* The leg is full, and of an urgent byte only the word has come. */
static void word(void **state)
{
	enum { AHEAD = 16384 };
	static char ahead[AHEAD], text[2 * AHEAD], *end = text;
	struct conn c = { 0 };
	struct sock s = { .conn = &c };
	int leg;

	connect_two(&leg, 4096);
	memset(ahead, 'x', AHEAD);
	assert_int_equal(send(peer, ahead, AHEAD, 0), AHEAD);
	say("Acd");
	for (int i = 0; !urgent_is_there(leg); i++) {
		assert_true(i < 10000);
		usleep(1000);
	}
	look_at(&s, leg, TAKEN, NULL);
	assert_true(leg_received(leg) < AHEAD);
	for (int i = 0; c.s.taken < AHEAD + 3; i++) {
		assert_true(i < 10000);
		usleep(1000);
		end = give_all(&s, leg, end);
	}
	assert_memory_equal(text, ahead, AHEAD);
	assert_string_equal(text + AHEAD, "[A]cd");
	close(leg);
	close(peer);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(look), cmocka_unit_test(word) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
