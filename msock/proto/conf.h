/* SPDX-License-Identifier: MIT */
/*
 * conf.h - reads msock.conf(5): the virtual subnets of a job and where their address servers run.
 */
#ifndef MSOCK_PROTO_CONF_H
#define MSOCK_PROTO_CONF_H

#include <stddef.h>
#include <stdint.h>

enum { CONF_SUBNETS = 16, CONF_HOST = 256 }; /* the first is SUBNET_MAX of lib/subnet.h */

struct conf_subnet {
	uint32_t net; /* host order */
	unsigned bits;
	char master[CONF_HOST]; /* host of its address server; "": the launch host */
	unsigned line;
};

struct conf {
	struct conf_subnet subnets[CONF_SUBNETS]; /* no two have an address in common */
	size_t count;                             /* at least 1 after a success */
};

/*
 * What holds for the job: of $MSOCK_CONF, else of the installed file, else
 * (there is none) the usual subnet.  0, or -1 with one line in why.
 */
int conf_load(const char *job, struct conf *out, char *why, size_t why_size);

/* The same of a text of that many bytes; name stands in the messages. */
int conf_parse(const char *name, const char *text, size_t bytes, const char *job, struct conf *out, char *why,
	       size_t why_size);

#endif
