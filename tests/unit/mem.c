/* SPDX-License-Identifier: MIT */
/* image/mem.c - the memory functions that have no C library below them, against the C library's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What is tested, under other names. */
#define memcpy mem_copy
#define memset mem_set
#define memmove mem_move
#define memcmp mem_compare
#include "image/mem.c"
#undef memcpy
#undef memset
#undef memmove
#undef memcmp

enum { SIZE = 640, LONGEST = 300, SHIFT = 40 };

static uint8_t want[SIZE], have[SIZE], from[SIZE];

static void scramble(void)
{
	for (int i = 0; i < SIZE; i++) {
		from[i] = (uint8_t)rand();
		want[i] = have[i] = (uint8_t)rand();
	}
}

static void test_copy(void **state)
{
	(void)state;
	for (size_t n = 0; n <= LONGEST; n++)
		for (size_t at = 0; at < 9; at++) {
			scramble();
			memcpy(want + 32 + at, from + 3 * at, n);
			assert_ptr_equal(mem_copy(have + 32 + at, from + 3 * at, n), have + 32 + at);
			assert_memory_equal(have, want, SIZE);
		}
}

static void test_set(void **state)
{
	(void)state;
	for (size_t n = 0; n <= LONGEST; n++)
		for (size_t at = 0; at < 9; at++) {
			scramble();
			memset(want + 32 + at, (int)(n + at + 200), n);
			assert_ptr_equal(mem_set(have + 32 + at, (int)(n + at + 200), n), have + 32 + at);
			assert_memory_equal(have, want, SIZE);
		}
}

/* Every distance at which the two overlap, in both directions. */
static void test_move(void **state)
{
	(void)state;
	for (size_t n = 0; n <= LONGEST; n++)
		for (int shift = -SHIFT; shift <= SHIFT; shift++) {
			scramble();
			memmove(want + SHIFT + shift, want + SHIFT, n);
			assert_ptr_equal(mem_move(have + SHIFT + shift, have + SHIFT, n), have + SHIFT + shift);
			assert_memory_equal(have, want, SIZE);
		}
}

static int sign(int n)
{
	return (n > 0) - (n < 0);
}

static void test_compare(void **state)
{
	(void)state;
	for (size_t n = 0; n <= 64; n++) {
		scramble();
		memcpy(have, want, SIZE);
		assert_int_equal(mem_compare(have + 1, want + 1, n), 0);
		for (size_t i = 0; i < n; i++) {
			have[1 + i] ^= 0x80;
			assert_int_equal(sign(mem_compare(have + 1, want + 1, n)), sign(memcmp(have + 1, want + 1, n)));
			have[1 + i] ^= 0x80;
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_move),
		cmocka_unit_test(test_compare),
	};

	srand(4711);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
