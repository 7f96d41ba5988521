/* SPDX-License-Identifier: MIT */
/* codec.c - bounds of the codec; leg frames there and back, cut short, and made of noise. */
#include "proto/codec.h"

#include "lib/conn.h"
#include "lib/leg.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static void test_numbers_and_strings(void **state)
{
	uint8_t buf[64];
	char text[8];
	struct ms_codec c;

	ms_codec_init(&c, buf, sizeof(buf));
	ms_put_u8(&c, 0xfe);
	ms_put_u16(&c, 0x1234);
	ms_put_u32(&c, 0xdeadbeef);
	ms_put_u64(&c, 0x0123456789abcdefull);
	ms_put_str(&c, "word");
	assert_false(c.bad);
	assert_int_equal(buf[1], 0x34);
	ms_codec_init(&c, buf, (size_t)(c.at - buf));
	assert_int_equal(ms_get_u8(&c), 0xfe);
	assert_int_equal(ms_get_u16(&c), 0x1234);
	assert_int_equal(ms_get_u32(&c), 0xdeadbeef);
	assert_true(ms_get_u64(&c) == 0x0123456789abcdefull);
	ms_get_str(&c, text, sizeof(text));
	assert_string_equal(text, "word");
	assert_false(c.bad);
	assert_ptr_equal(c.at, c.end);
	assert_int_equal(ms_get_u8(&c), 0);
	assert_true(c.bad);
}

static void test_bounds(void **state)
{
	uint8_t buf[4] = { 0 };
	char text[3] = "xx";
	struct ms_codec c;

	ms_codec_init(&c, buf, sizeof(buf));
	ms_put_u16(&c, 9);
	ms_put_u32(&c, 1);
	assert_true(c.bad);
	ms_put_u8(&c, 1);
	assert_true(c.bad);
	assert_int_equal(buf[2], 0);
	ms_codec_init(&c, buf, sizeof(buf));
	ms_get_str(&c, text, sizeof(text));
	assert_true(c.bad);
	assert_string_equal(text, "");
}

static struct leg_frame example(uint8_t type)
{
	struct leg_frame f = { .type = type, .stream = 0x1122334455667788ull };

	if (type == MS_LEG_CONNECT) {
		f.from_member = 7;
		f.m = 3;
		f.from_ip = 0x64400001;
		f.to_ip = 0x64400002;
		f.from_port = 40000;
		f.to_port = 1025;
		memset(f.token, 0xa5, MS_TOKEN);
	} else if (type != MS_LEG_CONFIRM) {
		f.leg = 9;
		f.m = 4;
		if (type == MS_LEG_HELLO)
			memset(f.token, 0x5a, MS_TOKEN);
		if (type == MS_LEG_REFUSE)
			f.reason = MS_REFUSE_BACKLOG;
		else
			f.cut = 1ull << 40, f.app_fin = 1;
	}
	return f;
}

static void test_leg_frames(void **state)
{
	for (uint8_t type = MS_LEG_CONNECT; type <= MS_LEG_REFUSE; type++) {
		uint8_t buf[LEG_FRAME_MAX];
		struct leg_frame f = example(type), back;
		size_t n = leg_encode(buf, &f);

		assert_true(leg_decode(buf, n, &back));
		assert_memory_equal(&f, &back, sizeof(f));
		for (size_t cut = 0; cut < n; cut++)
			assert_false(leg_decode(buf, cut, &back));
		if (type == MS_LEG_CONFIRM)
			assert_int_equal(n, LEG_CONFIRM_SIZE);
	}
}

static void test_leg_read_stops_at_the_frame(void **state)
{
	uint8_t buf[LEG_FRAME_MAX + 4];
	struct leg_frame f = example(MS_LEG_CONFIRM), back;
	struct leg_reader r = { .have = 0 };
	size_t n = leg_encode(buf, &f);
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	memcpy(buf + n, "data", 4);
	for (size_t i = 0; i + 1 < n; i++) {
		assert_int_equal(write(pair[0], buf + i, 1), 1);
		assert_int_equal(leg_read(pair[1], &r, &back), 0);
	}
	assert_int_equal(write(pair[0], buf + n - 1, 5), 5);
	assert_int_equal(leg_read(pair[1], &r, &back), 1);
	assert_int_equal(read(pair[1], buf, sizeof(buf)), 4);
	assert_memory_equal(buf, "data", 4);
	close(pair[0]);
	assert_int_equal(leg_read(pair[1], &r, &back), -ECONNRESET);
	close(pair[1]);
}

static void test_noise(void **state)
{
	srand(11);
	for (int i = 0; i < 200000; i++) {
		uint8_t buf[LEG_FRAME_MAX];
		struct leg_frame f;
		struct stream_msg msg;
		size_t n = (size_t)rand() % sizeof(buf);

		for (size_t k = 0; k < n; k++)
			buf[k] = (uint8_t)rand();
		if (rand() % 2 && n >= LEG_HEAD)
			memcpy(buf, "MMSL\1", 5), buf[6] = (uint8_t)(n - LEG_HEAD), buf[7] = 0;
		if (leg_decode(buf, n, &f))
			assert_in_range(f.type, MS_LEG_CONNECT, MS_LEG_REFUSE);
		if (n)
			buf[0] = MS_WIRE_VERSION;
		if (relink_decode(buf, n, &msg))
			assert_in_range(msg.type, MS_RL_PREPARE, MS_RL_BOUND_OK);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers_and_strings),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_leg_frames),
		cmocka_unit_test(test_leg_read_stops_at_the_frame),
		cmocka_unit_test(test_noise),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
