/* SPDX-License-Identifier: MIT */
/* carry.c - the queue of bytes from an old leg, and the memory below it. */
#include "lib/carry.h"

#include "lib/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TOTAL = 3 << 20, PIECE = 70000 };

static uint8_t byte_at(size_t at)
{
	return (uint8_t)(at * 2654435761u >> 9);
}

static void test_first_in_first_out(void **state)
{
	static uint8_t buf[PIECE];
	struct carry c = { 0 };
	size_t in = 0, out = 0;

	srand(7);
	while (out < TOTAL) {
		size_t n = (size_t)rand() % PIECE;

		if (in < TOTAL && rand() % 3) {
			for (size_t i = 0; i < n; i++)
				buf[i] = byte_at(in + i);
			assert_true(carry_put(&c, buf, n));
			in += n;
		} else {
			struct iovec iov[2] = { { buf, n / 3 }, { buf + n / 3, n - n / 3 } };
			size_t got = carry_take(&c, iov, 2);

			assert_int_equal(got, n < in - out ? n : in - out);
			for (size_t i = 0; i < got; i++)
				assert_int_equal(buf[i], byte_at(out + i));
			out += got;
		}
		assert_int_equal(c.length, in - out);
	}
	carry_clear(&c);
	assert_null(c.first);
}

static void test_peek_and_drop(void **state)
{
	uint8_t buf[16];
	struct iovec iov = { buf, sizeof(buf) };
	struct carry c = { 0 };

	assert_int_equal(carry_peek(&c, &iov), 0);
	assert_true(carry_put(&c, "abcdef", 6));
	assert_int_equal(carry_peek(&c, &iov), 6);
	assert_memory_equal(buf, "abcdef", 6);
	carry_drop(&c, 4);
	assert_int_equal(c.length, 2);
	assert_int_equal(carry_take(&c, &iov, 1), 2);
	assert_memory_equal(buf, "ef", 2);
	assert_null(c.first);
}

static void test_room(void **state)
{
	struct carry c = { 0 };
	size_t room = 0, total = 0;

	for (int i = 0; i < 10; i++) {
		assert_non_null(carry_room(&c, &room));
		assert_true(room > 0 && room <= CARRY_BLOCK);
		carry_add(&c, room);
		total += room;
	}
	assert_int_equal(c.length, total);
	carry_clear(&c);
}

static void test_memory_is_zeroed_and_apart(void **state)
{
	enum { PIECES = 500 };
	static unsigned char *p[PIECES];
	static size_t size[PIECES];

	srand(3);
	for (int i = 0; i < PIECES * 20; i++) {
		int k = rand() % PIECES;

		if (p[k]) {
			for (size_t n = 0; n < size[k]; n++)
				assert_int_equal(p[k][n], k & 255);
			mem_free(p[k], size[k]);
			p[k] = NULL;
			continue;
		}
		size[k] = 1 + (size_t)rand() % (rand() % 10 ? 600 : 20000);
		p[k] = mem_alloc(size[k]);
		assert_non_null(p[k]);
		assert_int_equal((uintptr_t)p[k] % 16, 0);
		for (size_t n = 0; n < size[k]; n++)
			assert_int_equal(p[k][n], 0);
		memset(p[k], k & 255, size[k]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_in_first_out),
		cmocka_unit_test(test_peek_and_drop),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_memory_is_zeroed_and_apart),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
