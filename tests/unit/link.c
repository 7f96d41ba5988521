/* SPDX-License-Identifier: MIT */
/* link.c - sealed links: every message once and in order, a wrong secret and forged bytes are turned away. */
#include "proto/link.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/channel.h"
#include "proto/log.h"
#include "proto/seal.h"

enum { MESSAGES = 200, PATIENCE_S = 20 };

struct end {
	struct event_base *base;
	struct link *link;
	unsigned got;
	bool up, down;
};

static const uint8_t good[SEAL_SECRET] = "a secret of thirty-two bytes ...";
static const uint8_t bad[SEAL_SECRET] = "another one of thirty-two bytes.";

static void on_up(struct link *l, void *user)
{
	((struct end *)user)->up = true;
}

static void on_message(struct link *l, const Ms__Msg *msg, void *user)
{
	struct end *e = user;

	assert_int_equal(msg->body_case, MS__MSG__BODY_DATA);
	assert_int_equal(msg->data->offset, e->got);
	assert_int_equal(msg->data->bytes.len, (size_t)e->got * 997);
	for (size_t i = 0; i < msg->data->bytes.len; i++)
		assert_int_equal(msg->data->bytes.data[i], (uint8_t)(i + e->got));
	if (++e->got == MESSAGES)
		event_base_loopbreak(e->base);
}

static void on_down(struct link *l, const char *why, void *user)
{
	struct end *e = user;

	e->down = true;
	link_destroy(l);
	e->link = NULL;
	event_base_loopbreak(e->base);
}

static const struct link_ops ops = { .on_up = on_up, .on_message = on_message, .on_down = on_down };

static void run(struct event_base *base)
{
	struct timeval limit = { PATIENCE_S, 0 };

	event_base_loopexit(base, &limit);
	event_base_dispatch(base);
}

static void send_all(struct link *l)
{
	uint8_t *block = malloc(MESSAGES * 997);

	for (unsigned n = 0; n < MESSAGES; n++) {
		Ms__Data d = MS__DATA__INIT;

		for (size_t i = 0; i < (size_t)n * 997; i++)
			block[i] = (uint8_t)(i + n);
		d.offset = n;
		d.bytes = (ProtobufCBinaryData){ (size_t)n * 997, block };
		link_send(l, LINK_MSG(DATA, data, &d));
	}
	free(block);
}

static void exchange(const uint8_t *secret)
{
	struct end a = { .base = event_base_new() }, b = { .base = a.base };
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	a.link = link_create(a.base, pair[0], secret, true, &ops, &a);
	b.link = link_create(b.base, pair[1], secret, false, &ops, &b);
	send_all(a.link); /* before the link is up: it waits */
	run(a.base);
	assert_int_equal(b.got, MESSAGES);
	send_all(b.link);
	run(a.base);
	assert_int_equal(a.got, MESSAGES);
	assert_false(a.down || b.down);
	link_destroy(a.link);
	link_destroy(b.link);
	event_base_free(a.base);
}

static void test_sealed(void **state)
{
	exchange(good);
}

static void test_clear(void **state)
{
	exchange(NULL);
}

static void test_wrong_secret(void **state)
{
	struct end a = { .base = event_base_new() }, b = { .base = a.base };
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	a.link = link_create(a.base, pair[0], good, true, &ops, &a);
	b.link = link_create(b.base, pair[1], bad, false, &ops, &b);
	send_all(a.link);
	run(a.base);
	assert_true(a.down); /* the other's proof is wrong: nothing was sent to it */
	assert_false(a.up || b.up);
	assert_int_equal(b.got, 0);
	link_destroy(a.link);
	link_destroy(b.link);
	event_base_free(a.base);
}

/* Whatever comes instead of a greeting, or of a frame, the link goes down and nothing is delivered. */
static void test_noise(void **state)
{
	unsigned seed = 4711;

	for (int round = 0; round < 200; round++) {
		struct end b = { .base = event_base_new() };
		uint8_t noise[4096];
		int pair[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		b.link = link_create(b.base, pair[1], round & 1 ? good : NULL, false, &ops, &b);
		for (size_t i = 0; i < sizeof(noise); i++)
			noise[i] = (uint8_t)rand_r(&seed);
		if (round & 2) /* a length that fits, then nonsense */
			memcpy(noise, (uint8_t[]){ 200, 0, 0, 0 }, 4);
		assert_int_equal(write(pair[0], noise, sizeof(noise)), sizeof(noise));
		close(pair[0]);
		run(b.base);
		assert_true(b.down);
		assert_int_equal(b.got, 0);
		event_base_free(b.base);
	}
}

static void test_seal(void **state)
{
	struct seal *a = seal_create(good, true), *b = seal_create(good, false);
	uint8_t greet_a[SEAL_GREETING], greet_b[SEAL_GREETING], proof_a[SEAL_PROOF], proof_b[SEAL_PROOF];
	uint8_t sealed[100 + SEAL_EXTRA], again[100 + SEAL_EXTRA], plain[100] = "text";

	seal_greeting(a, greet_a);
	seal_greeting(b, greet_b);
	assert_int_equal(seal_take_greeting(b, greet_a), 0);
	assert_int_equal(seal_take_greeting(a, greet_b), 0);
	seal_proof(b, proof_b);
	seal_proof(a, proof_a);
	proof_b[3] ^= 1;
	assert_int_not_equal(seal_take_proof(a, proof_b), 0);
	proof_b[3] ^= 1;
	assert_int_equal(seal_take_proof(a, proof_b), 0);
	assert_int_equal(seal_take_proof(b, proof_a), 0);
	seal_close(a, plain, sizeof(plain), sealed);
	memcpy(again, sealed, sizeof(again));
	again[50] ^= 1;
	assert_int_not_equal(seal_open(b, again, sizeof(again), plain), 0); /* changed */
	memcpy(again, sealed, sizeof(again));
	assert_int_equal(seal_open(b, sealed, sizeof(sealed), plain), 0);
	assert_string_equal((char *)plain, "text");
	assert_int_not_equal(seal_open(b, again, sizeof(again), plain), 0); /* replayed */
	assert_int_not_equal(seal_take_greeting(b, proof_a), 0);
	seal_destroy(a);
	seal_destroy(b);
}

static void test_channel(void **state)
{
	struct channel_out out;
	struct channel_in in;
	Ms__Data d = MS__DATA__INIT;
	uint8_t bytes[10] = "012345678";

	channel_out_init(&out);
	channel_in_init(&in);
	evbuffer_add(out.bytes, bytes, 10);
	out.sent = 10;
	channel_out_ack(&out, 4);
	assert_int_equal(out.base, 4);
	channel_out_ack(&out, 2);  /* old */
	channel_out_ack(&out, 99); /* impossible */
	assert_int_equal(evbuffer_get_length(out.bytes), 6);
	channel_out_rewind(&out);
	assert_int_equal(out.sent, 4);
	assert_int_equal(channel_out_room(&out), CHANNEL_WINDOW - 6);

	d.bytes = (ProtobufCBinaryData){ 10, bytes };
	assert_true(channel_in_take(&in, &d));
	assert_false(channel_in_take(&in, &d)); /* the same again */
	d.offset = 11;
	assert_false(channel_in_take(&in, &d)); /* after a gap */
	d.offset = 5;
	d.eof = true;
	assert_true(channel_in_take(&in, &d)); /* half of it is new */
	assert_int_equal(in.next, 15);
	assert_int_equal(evbuffer_get_length(in.bytes), 15);
	assert_false(channel_in_take(&in, &d)); /* after the end */
	channel_out_clear(&out);
	channel_in_clear(&in);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_sealed),       cmocka_unit_test(test_clear),
					    cmocka_unit_test(test_wrong_secret), cmocka_unit_test(test_noise),
					    cmocka_unit_test(test_seal),         cmocka_unit_test(test_channel) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
