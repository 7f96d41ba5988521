/* SPDX-License-Identifier: MIT */
/* lib/engine.c: timers fire in the order of their times, whatever is set again and cleared meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "lib/engine.h"

enum { TIMERS = 3000, SPREAD_NS = 2000000 };

static struct timer timers[TIMERS];
static uint64_t last_ns;
static unsigned fired, out_of_order, again;

static void fire(struct timer *t)
{
	out_of_order += t->at_ns < last_ns || t->set;
	last_ns = t->at_ns;
	fired++;
	if (again && fired % 3 == 0) {
		again--;
		engine_timer_set(t, 0);
	}
}

static void set(struct timer *t)
{
	t->fire = fire;
	engine_timer_set(t, (uint64_t)rand() % SPREAD_NS);
}

/* When all are due. */
static void run(void)
{
	const struct timespec wait = { 0, 2 * SPREAD_NS };

	last_ns = 0;
	fired = out_of_order = 0;
	nanosleep(&wait, NULL);
	engine_run();
}

static void test_order(void **state)
{
	(void)state;
	for (int i = 0; i < TIMERS; i++)
		set(&timers[i]);
	run();
	assert_int_equal(out_of_order, 0);
	assert_int_equal(fired, TIMERS);
	assert_false(engine_is_due());
}

static void test_clear(void **state)
{
	unsigned left = 0;

	(void)state;
	for (int i = 0; i < 10 * TIMERS; i++) {
		struct timer *t = &timers[rand() % TIMERS];

		if (rand() % 2)
			set(t);
		else
			engine_timer_clear(t);
	}
	for (int i = 0; i < TIMERS; i++)
		left += timers[i].set;
	run();
	assert_int_equal(out_of_order, 0);
	assert_int_equal(fired, left);
}

static void test_again(void **state)
{
	(void)state;
	for (int i = 0; i < TIMERS; i++)
		set(&timers[i]);
	again = TIMERS / 4;
	run();
	while (engine_is_due())
		engine_run();
	assert_int_equal(out_of_order, 0);
	assert_int_equal(fired, TIMERS + TIMERS / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_clear),
		cmocka_unit_test(test_again),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	srand(1);
	if (engine_open(false))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
