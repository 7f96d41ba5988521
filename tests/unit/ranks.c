/* SPDX-License-Identifier: MIT */
/* ranks.c - lists of ranks as people write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/wire.h"
#include "ranks.h"

static void check_list(const char *text, const uint32_t *want, size_t count)
{
	struct ranks r;

	assert_int_equal(ranks_parse(text, &r), 0);
	assert_int_equal(r.count, count);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(r.members[i], want[i]);
	ranks_clear(&r);
}

static void test_good(void **state)
{
	check_list("2", (uint32_t[]){ MS_MEMBER(0, 2) }, 1);
	check_list("0.2", (uint32_t[]){ MS_MEMBER(0, 2) }, 1);
	check_list("1.0-3", (uint32_t[]){ MS_MEMBER(1, 0), MS_MEMBER(1, 1), MS_MEMBER(1, 2), MS_MEMBER(1, 3) }, 4);
	check_list("0,2-3", (uint32_t[]){ 0, 2, 3 }, 3);
	check_list("3,1023.4194303", (uint32_t[]){ 3, 0xffffffff }, 2);
}

static void test_bad(void **state)
{
	static const char *const bad[] = { "",        "x",   "-1",         "1-",    "3-2", "1.",
					   ".1",      "1,",  ",1",         "1.2.3", "1 2", "1024.0",
					   "4194304", "0x1", "0-99999999", "1,2x",  "+1",  "0-4194303" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct ranks r;

		assert_int_equal(ranks_parse(bad[i], &r), -1);
		assert_null(r.members);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_good), cmocka_unit_test(test_bad) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
