/* SPDX-License-Identifier: MIT */
/*
 * msmirror - holds the connections that a moved member left on its old host.
 *
 * Started by msdaemon, with its control socket as descriptor 3 (wire.h,
 * ms_mirror_ctl).
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "msmirror/mirror.h"
#include "proto/log.h"

enum { CONTROL_FD = 3 };

struct settings {
	size_t window_bytes;
	size_t memory_bytes;
	unsigned limit_s;
};

static const struct option options[] = {
	{ "window", required_argument, NULL, 'w' },
	{ "memory", required_argument, NULL, 'm' },
	{ "timeout", required_argument, NULL, 't' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static const char help[] = "usage: msmirror [--window BYTES] [--memory BYTES] [--timeout S]\n"
			   "started by msdaemon, with its control socket as descriptor 3\n"
			   "  --window BYTES  of one stream that may wait for its member (1048576)\n"
			   "  --memory BYTES  of all streams together, beyond 16 KiB each (268435456)\n"
			   "  --timeout S     break what is left S seconds after the commit (0: never)\n";

static int settings_read(struct settings *s, int argc, char **argv)
{
	int option;

	while ((option = getopt_long(argc, argv, "w:m:t:h", options, NULL)) != -1) {
		char *end = NULL;
		unsigned long long value = optarg ? strtoull(optarg, &end, 10) : 0;

		if (option == 'h') {
			fputs(help, stdout);
			exit(0);
		}
		if (option == '?' || !end || *end || end == optarg)
			return -1;
		if (option == 'w')
			s->window_bytes = value;
		else if (option == 'm')
			s->memory_bytes = value;
		else
			s->limit_s = value;
	}
	return optind == argc && s->window_bytes > 0 ? 0 : -1;
}

/* Room for the legs of a member with many streams. */
static void descriptors_raise(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	struct settings settings = { .window_bytes = 1 << 20, .memory_bytes = (size_t)256 << 20 };
	struct mirror mirror;
	int type = 0, status = 1;
	socklen_t size = sizeof(type);

	log_open("msmirror");
	if (settings_read(&settings, argc, argv) < 0) {
		fputs(help, stderr);
		return 2;
	}
	if (getsockopt(CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_SEQPACKET) {
		log_say(LOG_ERROR, "descriptor %d is not the control socket of an msdaemon", CONTROL_FD);
		return 2;
	}
	if (sodium_init() < 0) {
		log_say(LOG_ERROR, "libsodium cannot be initialised");
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	descriptors_raise();
	ring_pool_set(settings.memory_bytes);
	if (mirror_init(&mirror, CONTROL_FD, settings.window_bytes, settings.limit_s) == 0)
		status = mirror_run(&mirror);
	else
		log_say(LOG_ERROR, "no memory");
	mirror_fini(&mirror);
	return status;
}
