/* SPDX-License-Identifier: MIT */
#include "proto/conf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/subnet.h"

#ifndef MSOCK_INSTALLED_CONF
#define MSOCK_INSTALLED_CONF "/usr/local/etc/msock/msock.conf"
#endif

enum { CONF_LINE = 1024, CONF_BYTES = 1 << 20, CONF_WORDS = 6, CONF_BITS_MIN = 8, CONF_BITS_MAX = 30 };

_Static_assert((int)CONF_SUBNETS == (int)SUBNET_MAX, "a job has as many subnets as the file");

struct parser {
	const char *name; /* of the file */
	const char *job;
	unsigned line;
	bool in_section;         /* between [job ...] and the next */
	bool ours;               /* and that is for this job */
	struct conf common, own; /* outside of sections, and in those for this job */
	char *why;
	size_t why_size;
};

/* Returns -1. */
__attribute__((format(printf, 2, 3))) static int bad(struct parser *p, const char *format, ...)
{
	va_list args;
	int n = snprintf(p->why, p->why_size, "%s:%u: ", p->name, p->line);

	va_start(args, format);
	if (n >= 0 && (size_t)n < p->why_size)
		vsnprintf(p->why + n, p->why_size - (size_t)n, format, args);
	va_end(args);
	return -1;
}

static uint32_t mask_of(unsigned bits)
{
	return ~0u << (32 - bits);
}

/* "100.64.0.0/10" */
static int parse_subnet(struct parser *p, const char *word, struct conf_subnet *s)
{
	const char *slash = strchr(word, '/');
	char ip[INET_ADDRSTRLEN], *end;
	struct in_addr net;
	unsigned long bits;

	if (!slash || (size_t)(slash - word) >= sizeof(ip))
		return bad(p, "%s is no subnet; one is written as 100.64.0.0/10", word);
	memcpy(ip, word, (size_t)(slash - word));
	ip[slash - word] = 0;
	bits = strtoul(slash + 1, &end, 10);
	if (slash[1] < '0' || slash[1] > '9' || *end || inet_pton(AF_INET, ip, &net) != 1)
		return bad(p, "%s is no subnet; one is written as 100.64.0.0/10", word);
	if (bits < CONF_BITS_MIN || bits > CONF_BITS_MAX)
		return bad(p, "%s: a virtual subnet has a mask of %d to %d bits", word, CONF_BITS_MIN, CONF_BITS_MAX);
	s->net = ntohl(net.s_addr);
	s->bits = (unsigned)bits;
	s->line = p->line;
	if (s->net & ~mask_of(s->bits))
		return bad(p, "%s: bits are set behind the mask", word);
	if (s->net >> 24 == 0 || s->net >> 24 == 127 || s->net >> 24 >= 224)
		return bad(p, "%s: programs give these addresses a meaning of their own", word);
	return 0;
}

static int add_subnet(struct parser *p, char **words, size_t count)
{
	struct conf *to = p->in_section ? &p->own : &p->common;
	struct conf_subnet s = { 0 };

	if (count != 2 && count != 4)
		return bad(p, "subnet NET/BITS [master HOST] is wanted");
	if (parse_subnet(p, words[1], &s))
		return -1;
	if (count == 4 && strcmp(words[2], "master"))
		return bad(p, "%s is unknown; master HOST may stand here", words[2]);
	if (count == 4 && (size_t)snprintf(s.master, sizeof(s.master), "%s", words[3]) >= sizeof(s.master))
		return bad(p, "the host's name is too long");
	if (p->in_section && !p->ours)
		return 0;
	for (size_t i = 0; i < to->count; i++) {
		const struct conf_subnet *other = &to->subnets[i];

		if (!((s.net ^ other->net) & mask_of(s.bits < other->bits ? s.bits : other->bits)))
			return bad(p, "%s: has addresses of the subnet in line %u", words[1], other->line);
	}
	if (to->count == CONF_SUBNETS)
		return bad(p, "more than %d subnets", CONF_SUBNETS);
	to->subnets[to->count++] = s;
	return 0;
}

/* [job PATTERN] */
static int begin_section(struct parser *p, char **words, size_t count)
{
	size_t last;

	if (count != 2 || strcmp(words[0], "[job") || (last = strlen(words[1])) < 2 || words[1][last - 1] != ']')
		return bad(p, "[job PATTERN] is wanted");
	words[1][last - 1] = 0;
	p->in_section = true;
	p->ours = !fnmatch(words[1], p->job, 0);
	return 0;
}

static int parse_line(struct parser *p, char *line)
{
	char *words[CONF_WORDS], *rest = NULL;
	size_t count = 0;

	line[strcspn(line, "#")] = 0;
	for (char *w = strtok_r(line, " \t\r", &rest); w; w = strtok_r(NULL, " \t\r", &rest)) {
		if (count == CONF_WORDS)
			return bad(p, "too many words");
		words[count++] = w;
	}
	if (count == 0)
		return 0;
	if (words[0][0] == '[')
		return begin_section(p, words, count);
	if (!strcmp(words[0], "subnet"))
		return add_subnet(p, words, count);
	return bad(p, "%.64s is unknown; subnet and [job PATTERN] are known", words[0]);
}

static void choose(const struct parser *p, struct conf *out)
{
	*out = p->own.count ? p->own : p->common;
	if (out->count)
		return;
	out->count = 1;
	out->subnets[0] = (struct conf_subnet){ .net = SUBNET_DEFAULT_NET, .bits = SUBNET_DEFAULT_BITS };
}

int conf_parse(const char *name, const char *text, size_t bytes, const char *job, struct conf *out, char *why,
	       size_t why_size)
{
	struct parser p = { .name = name, .job = job, .why = why, .why_size = why_size };
	const char *end = text + bytes;

	while (text < end) {
		const char *stop = memchr(text, '\n', (size_t)(end - text));
		size_t n = (size_t)((stop ? stop : end) - text);
		char line[CONF_LINE];

		p.line++;
		if (n >= sizeof(line))
			return bad(&p, "the line is too long");
		if (memchr(text, 0, n))
			return bad(&p, "not a text file");
		memcpy(line, text, n);
		line[n] = 0;
		if (parse_line(&p, line))
			return -1;
		text += n + (stop != NULL);
	}
	choose(&p, out);
	return 0;
}

int conf_load(const char *job, struct conf *out, char *why, size_t why_size)
{
	const char *wish = getenv("MSOCK_CONF"), *name = wish && *wish ? wish : MSOCK_INSTALLED_CONF;
	FILE *f = fopen(name, "re");
	char *text;
	size_t n;
	int rc;

	if (!f && errno == ENOENT && name != wish)
		return conf_parse(name, "", 0, job, out, why, why_size);
	text = f ? malloc(CONF_BYTES) : NULL;
	if (!text) {
		snprintf(why, why_size, "%s: %s", name, strerror(errno));
		if (f)
			fclose(f);
		return -1;
	}
	n = fread(text, 1, CONF_BYTES, f);
	rc = ferror(f) ? errno : n == CONF_BYTES ? EFBIG : 0;
	fclose(f);
	if (rc)
		snprintf(why, why_size, "%s: %s", name, strerror(rc));
	rc = rc ? -1 : conf_parse(name, text, n, job, out, why, why_size);
	free(text);
	return rc;
}
