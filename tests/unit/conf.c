/* SPDX-License-Identifier: MIT */
/* conf.c - msock.conf: what holds for which job, and one line that says what is wrong where. */
#include "proto/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/subnet.h"

static struct conf conf;
static char why[256];

static int parse(const char *text, const char *job)
{
	strcpy(why, "nothing");
	return conf_parse("f", text, strlen(text), job, &conf, why, sizeof(why));
}

static void test_usual(void **state)
{
	assert_int_equal(parse("# nothing\n\n  \t\n", "1-a"), 0);
	assert_int_equal(conf.count, 1);
	assert_int_equal(conf.subnets[0].net, SUBNET_DEFAULT_NET);
	assert_int_equal(conf.subnets[0].bits, SUBNET_DEFAULT_BITS);
}

static void test_subnets(void **state)
{
	assert_int_equal(parse("subnet 10.7.0.0/16 # ours\nsubnet\t10.8.0.0/30 master h7\r\nsubnet 10.9.0.0/24", "1-a"),
			 0);
	assert_int_equal(conf.count, 3);
	assert_int_equal(conf.subnets[1].net, 0x0a080000);
	assert_int_equal(conf.subnets[1].bits, 30);
	assert_string_equal(conf.subnets[0].master, "");
	assert_string_equal(conf.subnets[1].master, "h7");
	assert_int_equal(conf.subnets[2].line, 3);
}

static void test_jobs(void **state)
{
	static const char text[] = "subnet 10.1.0.0/16\n[job web*]\nsubnet 10.2.0.0/16\nsubnet 10.3.0.0/16\n"
				   "[job db]\nsubnet 10.1.0.0/16\n[job w?b]\nsubnet 10.4.0.0/16\n";

	assert_int_equal(parse(text, "other"), 0);
	assert_int_equal(conf.count, 1);
	assert_int_equal(conf.subnets[0].net, 0x0a010000);
	assert_int_equal(parse(text, "web7"), 0);
	assert_int_equal(conf.count, 2);
	assert_int_equal(conf.subnets[0].net, 0x0a020000);
	assert_int_equal(parse(text, "web"), 0);
	assert_int_equal(conf.count, 3);
	assert_int_equal(parse(text, "db"), 0);
	assert_int_equal(conf.subnets[0].line, 6);
}

static void test_errors(void **state)
{
	static const struct {
		const char *text, *want;
	} bad[] = {
		{ "\nsubnets 10.0.0.0/8\n", "f:2: subnets is unknown" },
		{ "subnet 10.0.0.0\n", "f:1: 10.0.0.0 is no subnet" },
		{ "subnet 10.0.0/8\n", "f:1: 10.0.0/8 is no subnet" },
		{ "subnet 10.0.0.0/x\n", "f:1: 10.0.0.0/x is no subnet" },
		{ "subnet 10.0.0.0/-1\n", "f:1: 10.0.0.0/-1 is no subnet" },
		{ "subnet 10.0.0.0/31\n", "mask of 8 to 30 bits" },
		{ "subnet 8.0.0.0/7\n", "mask of 8 to 30 bits" },
		{ "subnet 10.0.0.0/99999999999999999999\n", "mask of 8 to 30 bits" },
		{ "subnet 10.0.0.1/8\n", "bits are set behind the mask" },
		{ "subnet 127.0.0.0/8\n", "meaning of their own" },
		{ "subnet 0.0.0.0/8\n", "meaning of their own" },
		{ "subnet 224.0.0.0/8\n", "meaning of their own" },
		{ "subnet 10.0.0.0/8\n#\nsubnet 10.7.0.0/16\n",
		  "f:3: 10.7.0.0/16: has addresses of the subnet in line 1" },
		{ "subnet 10.7.0.0/16\nsubnet 10.0.0.0/8\n", "f:2: 10.0.0.0/8: has addresses of the subnet in line 1" },
		{ "subnet\n", "f:1: subnet NET/BITS [master HOST] is wanted" },
		{ "subnet 10.0.0.0/8 master\n", "is wanted" },
		{ "subnet 10.0.0.0/8 at h7\n", "f:1: at is unknown" },
		{ "[job]\n", "[job PATTERN] is wanted" },
		{ "[job x\n", "[job PATTERN] is wanted" },
		{ "[task x]\n", "[job PATTERN] is wanted" },
		{ "[job other]\nsubnet nonsense\n", "f:2: nonsense is no subnet" },
		{ "a b c d e f g\n", "too many words" },
	};
	char line[2000];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(parse(bad[i].text, "1-a"), -1);
		if (!strstr(why, bad[i].want))
			fail_msg("%s: %s", bad[i].text, why);
		assert_null(strchr(why, '\n'));
	}
	memset(line, 'x', sizeof(line) - 1);
	line[sizeof(line) - 1] = 0;
	assert_int_equal(parse(line, "1-a"), -1);
	assert_non_null(strstr(why, "too long"));
	assert_int_equal(conf_parse("f", "a\0b", 3, "j", &conf, why, sizeof(why)), -1);
	assert_non_null(strstr(why, "not a text file"));
}

static void test_many(void **state)
{
	char text[1024] = "";

	for (int i = 0; i < CONF_SUBNETS; i++)
		sprintf(text + strlen(text), "subnet 10.%d.0.0/16\n", i);
	assert_int_equal(parse(text, "j"), 0);
	assert_int_equal(conf.count, CONF_SUBNETS);
	strcat(text, "subnet 11.0.0.0/8\n");
	assert_int_equal(parse(text, "j"), -1);
	assert_non_null(strstr(why, "f:17: more than 16 subnets"));
}

static void test_load(void **state)
{
	setenv("MSOCK_CONF", "/no/such/file", 1);
	assert_int_equal(conf_load("j", &conf, why, sizeof(why)), -1);
	assert_string_equal(why, "/no/such/file: No such file or directory");
	setenv("MSOCK_CONF", "/", 1);
	assert_int_equal(conf_load("j", &conf, why, sizeof(why)), -1);
	assert_string_equal(why, "/: Is a directory");
}

static void test_is_virtual(void **state)
{
	assert_false(subnet_is_virtual(0x64400001));
	assert_true(subnet_add(0x64400000, 10));
	assert_true(subnet_add(0x0a080004, 30));
	assert_false(subnet_add(0x0a080004, 31));
	assert_true(subnet_is_virtual(0x64400000));
	assert_true(subnet_is_virtual(0x647fffff));
	assert_false(subnet_is_virtual(0x64800000));
	assert_false(subnet_is_virtual(0x643fffff));
	assert_true(subnet_is_virtual(0x0a080007));
	assert_false(subnet_is_virtual(0x0a080008));
	assert_false(subnet_is_virtual(0));
	assert_false(subnet_is_virtual(0x7f000001));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_usual),     cmocka_unit_test(test_subnets),
					    cmocka_unit_test(test_jobs),      cmocka_unit_test(test_errors),
					    cmocka_unit_test(test_many),      cmocka_unit_test(test_load),
					    cmocka_unit_test(test_is_virtual) };

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
