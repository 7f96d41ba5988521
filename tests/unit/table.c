/* SPDX-License-Identifier: MIT */
/* table.c - the address server's table: newer entries win, thousands fit, the cleaner takes only those that ended. */
#include "msmaster/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static Ms__Serving serving(uint32_t n, uint64_t m, uint32_t port)
{
	static uint8_t cookie[MS_TOKEN];
	Ms__Serving s = MS__SERVING__INIT;

	memset(cookie, (int)n, sizeof(cookie));
	s.member = n;
	s.virtual_ip = 0x64400001 + n;
	s.ip = 0x7f000002;
	s.port = port;
	s.m = m;
	s.cookie = (ProtobufCBinaryData){ sizeof(cookie), cookie };
	return s;
}

static void test_newer_wins(void **state)
{
	struct table *t = table_create();
	Ms__Serving s = serving(1, 0, 1000);

	assert_null(table_find(t, s.virtual_ip));
	assert_true(table_put(t, &s));
	s = serving(1, 3, 1003);
	assert_true(table_put(t, &s));
	s = serving(1, 2, 1002); /* late */
	assert_false(table_put(t, &s));
	assert_int_equal(table_find(t, s.virtual_ip)->port, 1003);
	assert_int_equal(table_find(t, s.virtual_ip)->cookie[0], 1);
	s.virtual_ip = 0;
	assert_false(table_put(t, &s));
	table_destroy(t);
}

static void test_many(void **state)
{
	struct table *t = table_create();

	for (uint32_t n = 0; n < 5000; n++) {
		Ms__Serving s = serving(n, n, n & 0xffff);

		assert_true(table_put(t, &s));
	}
	for (uint32_t n = 0; n < 5000; n++)
		assert_int_equal(table_find(t, 0x64400001 + n)->member, n);
	assert_null(table_find(t, 0x64400001 + 5000));
	table_destroy(t);
}

static void test_cleaner(void **state)
{
	struct table *t = table_create();

	for (uint32_t n = 0; n < 100; n++) {
		Ms__Serving s = serving(n, 0, 1);

		table_put(t, &s);
	}
	for (uint32_t n = 0; n < 50; n++)
		table_member_ended(t, n);
	table_clean(t, 1000);
	assert_true(table_find(t, 0x64400001)->ended); /* still known as ended */
	table_clean(t, -1);
	for (uint32_t n = 0; n < 100; n++)
		assert_int_equal(table_find(t, 0x64400001 + n) != NULL, n >= 50);
	table_destroy(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_newer_wins), cmocka_unit_test(test_many),
					    cmocka_unit_test(test_cleaner) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
