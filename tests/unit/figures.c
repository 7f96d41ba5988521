/* SPDX-License-Identifier: MIT */
/* What a host tells of itself, from made-up /proc and /sys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "msdaemon/figures.h"

static char root[] = "/tmp/msock-figures-XXXXXX";

/* Writes ROOT/PATH, with its directories. */
static void put(const char *path, const char *text)
{
	char name[512];
	FILE *f;

	snprintf(name, sizeof(name), "%s%s", root, path);
	for (char *at = name + strlen(root) + 1; (at = strchr(at, '/')); *at++ = '/') {
		*at = 0;
		mkdir(name, 0755);
	}
	f = fopen(name, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int set_up(void **state)
{
	strcpy(root + strlen(root) - 6, "XXXXXX");
	if (!mkdtemp(root))
		return -1;
	put("/proc/sys/kernel/random/boot_id", "0f-boot\n");
	put("/proc/stat", "cpu  100 0 100 5000 0 0 0 0\nprocs_running 3\n");
	put("/proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n");
	return 0;
}

static int tear_down(void **state)
{
	char line[600];

	snprintf(line, sizeof(line), "rm -rf '%s'", root);
	return system(line);
}

static void whole_machine(void **state)
{
	struct figures f;

	put("/proc/self/cgroup", "2:cpuacct:/\n1:cpu:/\n0::/\n");
	put("/proc/pressure/cpu", "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=1.00\n");
	figures_open(&f, root);
	figures_update(&f, root);
	assert_string_equal(f.machine, "0f-boot");
	assert_true(f.busy < 0);
	assert_int_equal(f.runnable, 3);
	assert_true(f.pressure == 12.5);
	assert_int_equal(f.memory_bytes, 1000 * 1024);
	assert_int_equal(f.free_bytes, 400 * 1024);
	assert_true(f.cores >= 1);
	usleep(20000);
	put("/proc/stat", "cpu  101 0 101 5000 0 0 0 0\nprocs_running 1\n");
	figures_update(&f, root);
	assert_true(f.busy > 0 && f.busy <= 0.02 / 0.02);
	assert_int_equal(f.runnable, 1);
}

static void without_pressure(void **state)
{
	struct figures f;

	figures_open(&f, root);
	figures_update(&f, root);
	assert_true(f.pressure < 0);
}

static void group_version_2(void **state)
{
	struct figures f;

	put("/proc/self/cgroup", "0::/job/h1\n");
	put("/sys/fs/cgroup/job/h1/cpu.max", "2500 10000\n");
	put("/sys/fs/cgroup/job/h1/cpu.stat", "usage_usec 1000000\nuser_usec 1\n");
	put("/sys/fs/cgroup/job/h1/cpu.pressure", "some avg10=50.00 avg60=0 avg300=0 total=0\n");
	put("/sys/fs/cgroup/job/h1/memory.max", "204800\n");
	put("/sys/fs/cgroup/job/h1/memory.current", "102400\n");
	figures_open(&f, root);
	figures_update(&f, root);
	assert_string_equal(f.machine, "0f-boot/sys/fs/cgroup/job/h1");
	assert_true(f.cores == 0.25);
	assert_true(f.pressure == 50);
	assert_int_equal(f.memory_bytes, 204800);
	assert_int_equal(f.free_bytes, 102400);
	usleep(20000);
	put("/sys/fs/cgroup/job/h1/cpu.stat", "usage_usec 1005000\nuser_usec 1\n");
	figures_update(&f, root);
	assert_true(f.busy > 0 && f.busy <= 0.25);
	put("/sys/fs/cgroup/job/h1/cpu.max", "max 10000\n");
	figures_update(&f, root);
	assert_true(f.cores >= 1);
}

static void group_version_1(void **state)
{
	struct figures f;

	put("/proc/self/cgroup", "4:memory:/j\n2:cpu,cpuacct:/h2\n0::/x\n");
	put("/sys/fs/cgroup/cpu,cpuacct/h2/cpu.cfs_quota_us", "5000\n");
	put("/sys/fs/cgroup/cpu,cpuacct/h2/cpu.cfs_period_us", "10000\n");
	put("/sys/fs/cgroup/cpu,cpuacct/h2/cpuacct.usage", "1000000000\n");
	put("/sys/fs/cgroup/memory/j/memory.limit_in_bytes", "9223372036854771712\n");
	figures_open(&f, root);
	figures_update(&f, root);
	assert_true(f.cores == 0.5);
	assert_int_equal(f.memory_bytes, 1000 * 1024);
}

/* The two controllers may be mounted apart. */
static void group_version_1_apart(void **state)
{
	struct figures f;

	put("/proc/self/cgroup", "9:cpuacct:/h3\n4:memory:/\n2:cpu:/h3\n0::/\n");
	put("/sys/fs/cgroup/cpu/h3/cpu.cfs_quota_us", "5000\n");
	put("/sys/fs/cgroup/cpu/h3/cpu.cfs_period_us", "10000\n");
	put("/sys/fs/cgroup/cpuacct/h3/cpuacct.usage", "1000000000\n");
	figures_open(&f, root);
	figures_update(&f, root);
	usleep(20000);
	put("/sys/fs/cgroup/cpuacct/h3/cpuacct.usage", "1005000000\n");
	figures_update(&f, root);
	assert_true(f.cores == 0.5);
	assert_true(f.busy > 0 && f.busy <= 0.25);
}

/* A group without a limit competes with all others for the machine: the machine's figures count. */
static void group_without_limit(void **state)
{
	struct figures f;

	put("/proc/self/cgroup", "0::/user.slice\n");
	put("/sys/fs/cgroup/user.slice/cpu.max", "max 100000\n");
	figures_open(&f, root);
	assert_string_equal(f.machine, "0f-boot");
}

/* Nothing can be read at all: zeros and unknowns. */
static void nothing(void **state)
{
	struct figures f;

	figures_open(&f, "/nonexistent");
	figures_update(&f, "/nonexistent");
	assert_string_equal(f.machine, "");
	assert_int_equal(f.memory_bytes, 0);
	assert_true(f.pressure < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(whole_machine, set_up, tear_down),
		cmocka_unit_test_setup_teardown(without_pressure, set_up, tear_down),
		cmocka_unit_test_setup_teardown(group_version_2, set_up, tear_down),
		cmocka_unit_test_setup_teardown(group_version_1, set_up, tear_down),
		cmocka_unit_test_setup_teardown(group_version_1_apart, set_up, tear_down),
		cmocka_unit_test_setup_teardown(group_without_limit, set_up, tear_down),
		cmocka_unit_test(nothing),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
