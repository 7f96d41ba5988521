/* SPDX-License-Identifier: MIT */
/* card.c - a job's card as text: what was written is read, and nothing else is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "proto/card.h"

#define KEY "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

static void test_good(void **state)
{
	struct card card = { .job = "4711-deadbeef", .ip = 0x7f000001, .port = 65535 }, got;
	char text[MS_CARD_MAX];

	for (int i = 0; i < SEAL_SECRET; i++)
		card.key[i] = (uint8_t)i;
	card_write(&card, text);
	assert_string_equal(text, "4711-deadbeef@127.0.0.1:65535:" KEY);
	assert_true(card_read(text, &got));
	assert_string_equal(got.job, card.job);
	assert_int_equal(got.ip, card.ip);
	assert_int_equal(got.port, card.port);
	assert_memory_equal(got.key, card.key, SEAL_SECRET);
}

/* The longest that a coordinator makes. */
static void test_long(void **state)
{
	struct card card = { .ip = 0xffffffff, .port = 65535 }, got;
	char text[MS_CARD_MAX];

	memset(card.job, 'j', 63);
	card_write(&card, text);
	assert_true(card_read(text, &got));
	assert_string_equal(got.job, card.job);
}

static void test_bad(void **state)
{
	static const char *const bad[] = {
		"",
		"j",
		"@127.0.0.1:1:" KEY,
		"j@127.0.0.1:1",
		"j@127.0.0.1:1:",
		"j@127.0.0.1:0:" KEY,
		"j@127.0.0.1:65536:" KEY,
		"j@127.0.0.1:1x:" KEY,
		"j@127.0.0.1::" KEY,
		"j@127.0.0:1:" KEY,
		"j@::1:1:" KEY,
		"j@127.0.0.1:1:" KEY "00",
		"j@127.0.0.1:1:0" KEY,
		"j@127.0.0.1:1:zz0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
		"jjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjj@127.0.0.1:1:" KEY,
	};
	struct card got;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (card_read(bad[i], &got))
			fail_msg("taken for a card: %s", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_good), cmocka_unit_test(test_long),
					    cmocka_unit_test(test_bad) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
