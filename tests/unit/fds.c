/* SPDX-License-Identifier: MIT */
/* lib/fds.h: every descriptor is found, in a full table and in an empty one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/fds.h"

enum { MANY = 1500, NUMBERS = 16000 };

struct seen {
	uint8_t times[NUMBERS];
	unsigned count, on_exec;
};

static void see(int fd, int flags, void *arg)
{
	struct seen *s = arg;

	s->count++;
	s->on_exec += flags & FD_CLOEXEC;
	if (fd < NUMBERS)
		s->times[fd]++;
}

static void look(struct seen *s, bool still)
{
	memset(s, 0, sizeof(*s));
	assert_int_equal(fds_each(still, see, s), 0);
}

/* Each once, and no other: what the kernel says of each number. */
static void check(const struct seen *s)
{
	for (int fd = 0; fd < NUMBERS; fd++)
		assert_int_equal(s->times[fd], ms_fcntl(fd, F_GETFD, 0) >= 0);
}

static void both(void)
{
	static struct seen s, still;

	look(&s, false);
	check(&s);
	look(&still, true);
	check(&still);
	assert_int_equal(s.count, still.count);
}

static void test_dense(void **state)
{
	int first = ms_dup(0);

	(void)state;
	assert_true(first >= 0);
	for (int i = 0; i < MANY; i++)
		ms_dup3(0, first + 1 + i, i % 2 ? O_CLOEXEC : 0);
	both();
	for (int i = 0; i < MANY; i += 3)
		ms_close(first + 1 + i);
	both();
	ms_close_range((unsigned)first, (unsigned)first + MANY, 0);
	both();
}

static void test_flags(void **state)
{
	static struct seen before, behind;

	(void)state;
	look(&before, true);
	ms_dup3(0, 1000, O_CLOEXEC);
	ms_dup3(0, 1001, 0);
	look(&behind, true);
	assert_int_equal(behind.count, before.count + 2);
	assert_int_equal(behind.on_exec, before.on_exec + 1);
	ms_close_range(1000, 1001, 0);
}

/* No number is left to look into /proc with. */
static void test_full(void **state)
{
	struct rlimit limit, low;
	int first = ms_dup(0);

	(void)state;
	ms_sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&limit);
	low = (struct rlimit){ .rlim_cur = (rlim_t)first + 100, .rlim_max = limit.rlim_max };
	ms_sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&low, 0);
	while (ms_dup(0) >= 0)
		;
	ms_close(first + 50);
	assert_int_equal(ms_dup(0), first + 50);
	both();
	ms_sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&limit, 0);
	ms_close_range((unsigned)first, (unsigned)first + 100, 0);
	both();
}

/* The table is large now. */
static void test_sparse(void **state)
{
	(void)state;
	assert_int_equal(ms_dup3(0, NUMBERS - 1, 0), NUMBERS - 1);
	assert_true(fds_table_size() >= NUMBERS);
	both();
	ms_close(NUMBERS - 1);
	both();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dense),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_sparse),
	};
	struct rlimit limit;

	cmocka_set_message_output(CM_OUTPUT_TAP);
	fds_raise_limit();
	if (ms_sys4(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&limit) || limit.rlim_cur < NUMBERS) {
		print_message("1..0 # SKIP no more than %lu descriptors\n", (unsigned long)limit.rlim_cur);
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
