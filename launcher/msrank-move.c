/* SPDX-License-Identifier: MIT */
/*
 * msrank-move - moves ranks of a running job to another host.
 *
 *   msrank-move [--job JOB] RANKS HOST [options]
 *   msrank-move [--job JOB] --check RANKS HOST [options]
 *   msrank-move [--job JOB] --evacuate HOST [options]
 *   msrank-move [--job JOB] --drop HOST
 */
#include <getopt.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "cluster.h"
#include "output.h"
#include "progress.h"
#include "proto/link.h"
#include "proto/wire.h"
#include "ranks.h"

enum {
	MOVE_GRACE_MS = 10000,
	MOVE_DEFAULT_MS = 60000,
	MOVE_TIMEOUT_MAX_MS = 1000000000,
	EXIT_NOT_MOVED = 1,
	EXIT_STILL_MIRRORED = 2,
};

static const char usage[] =
	"usage: msrank-move [--job JOB] RANKS HOST [options]\n"
	"       msrank-move [--job JOB] --check RANKS HOST [options]\n"
	"       msrank-move [--job JOB] --evacuate HOST [options]\n"
	"       msrank-move [--job JOB] --drop HOST\n"
	"Moves ranks of a running job to another host, which joins the job if need be. RANKS: 2, 0.2, 1.0-3, 0,2-3.\n"
	"  --evacuate HOST  move every rank off HOST, each to where it finds processors and memory\n"
	"  --drop HOST      HOST, which has no rank, leaves the job; with --evacuate after that\n"
	"  --avoid HOSTS    with --evacuate: to none of these (h4,h5)\n"
	"  --job JOB        need not be named when you have just one\n"
	"  --via WAY        auto (default), drain: nothing is left on the old host, or mirror\n"
	"  --check          only ask: whether it would be refused, what it would take\n"
	"  --max-freeze MS  give up rather than freeze for longer, as predicted\n"
	"  --limit RATE     bytes a second before the freeze: 200M\n"
	"  --compress WAY   auto (default): when it pays, never, always\n"
	"  --no-precopy     stop and copy\n"
	"  --compare        in the freeze all memory is compared, page by page; a difference gives the move up\n"
	"  --timeout S      give up after S seconds (default 60); after the commit: stop waiting, exit 2\n"
	"  --json[=events]  one object a line for each rank; with =events for each step, too\n"
	"Exit 0: moved, and nothing is left on the old host. 1: the rank is where it was. 2: moved, streams still "
	"mirrored.\n";

struct wish {
	const char *job, *host, *ranks;
	const char *evacuate; /* a host, or NULL */
	const char *drop;     /* a host that leaves the job, or NULL */
	const char *avoid;    /* hosts, with commas, that get none of the evacuated, or NULL */
	Ms__MoveRequest request;
	Ms__MoveOptions options;
	bool json;
	enum progress_way progress;
};

static void print_json(const Ms__MoveReport *r)
{
	char member[32];
	json_t *o, *error = *r->error ? json_string(r->error) : json_null();

	snprintf(member, sizeof(member), "%u.%u", r->world, r->rank);
	o = json_pack("{s:i, s:s, s:s, s:s, s:b, s:f, s:f, s:f, s:I, s:i, s:s, s:{s:i, s:i}, s:o, s:f, s:I, s:I, s:I, "
		      "s:I, s:I, s:I}",
		      "rank", (int)r->rank, "from", r->from, "to", r->to, "member", member, "committed", r->committed,
		      "freeze_ms", r->freeze_ms, "stall_ms", r->stall_ms, "total_ms", r->total_ms, "image_bytes",
		      (json_int_t)r->image_bytes, "rounds", (int)r->rounds, "tracking", r->tracking, "streams",
		      "drained", (int)r->drained, "mirrored", (int)r->mirrored, "error", error, "mirror_ms",
		      r->mirror_ms, "m", (json_int_t)r->m, "pages", (json_int_t)r->pages, "zero_pages",
		      (json_int_t)r->zero_pages, "backed_pages", (json_int_t)r->backed_pages, "packed_bytes",
		      (json_int_t)r->packed_bytes, "saved_bytes", (json_int_t)r->saved_bytes);
	json_dumpf(o, stdout, JSON_COMPACT);
	putchar('\n');
	output_flush();
	json_decref(o);
}

/* What a check came to; 0. */
static int print_forecast(const struct wish *w, const Ms__MoveReport *r)
{
	const Ms__Checked *k = r->checked;
	bool tracked = k->dirty_rate != UINT64_MAX;
	json_t *o;

	if (w->json) {
		o = json_pack("{s:i, s:s, s:s, s:b, s:I, s:I, s:o, s:f, s:f}", "rank", (int)r->rank, "from", r->from,
			      "to", r->to, "movable", 1, "bytes", (json_int_t)k->bytes, "rate", (json_int_t)k->rate,
			      "written_rate", tracked ? json_integer((json_int_t)k->dirty_rate) : json_null(),
			      "freeze_ms", (double)k->freeze_ns / 1e6, "total_ms", (double)k->total_ns / 1e6);
		json_dumpf(o, stdout, JSON_COMPACT);
		putchar('\n');
		json_decref(o);
		return 0;
	}
	printf("rank %u.%u: %s -> %s  can move: about %.1f MB at %.0f MB/s, ", r->world, r->rank, r->from, r->to,
	       (double)k->bytes / 1e6, (double)k->rate / 1e6);
	if (tracked)
		printf("%.0f MB/s are written to, ", (double)k->dirty_rate / 1e6);
	else
		printf("stop and copy, ");
	printf("freeze about %.0f ms, total about %.0f ms\n", (double)k->freeze_ns / 1e6, (double)k->total_ns / 1e6);
	return 0;
}

static int print_report(const struct wish *w, const Ms__MoveReport *r)
{
	if (r->checked && !*r->error)
		return print_forecast(w, r);
	if (w->json)
		print_json(r);
	if (!r->committed) {
		fprintf(stderr, "msrank-move: rank %u.%u was not moved to %s: %s\n", r->world, r->rank, r->to,
			r->error);
		return EXIT_NOT_MOVED;
	}
	if (r->timed_out) {
		fprintf(stderr, "msrank-move: rank %u.%u: committed, %u streams still mirrored\n", r->world, r->rank,
			r->mirrored);
		return EXIT_STILL_MIRRORED;
	}
	if (!w->json)
		printf("rank %u.%u: %s -> %s  freeze %.1f ms, stall %.1f ms, total %.1f ms, %.1f MB, streams: %u "
		       "drained, "
		       "%u mirrored\n",
		       r->world, r->rank, r->from, r->to, r->freeze_ms, r->stall_ms, r->total_ms,
		       (double)r->image_bytes / 1e6, r->drained, r->mirrored);
	return 0;
}

/* The report; steps that come before it are shown. */
static Ms__Msg *receive_report(struct client *c, const struct wish *w)
{
	Ms__Msg *msg = client_receive(c, (int)w->request.timeout_ms + MOVE_GRACE_MS);

	while (msg && msg->body_case == MS__MSG__BODY_STEP) {
		progress_step(w->progress, msg->step);
		ms__msg__free_unpacked(msg, NULL);
		msg = client_receive(c, (int)w->request.timeout_ms + MOVE_GRACE_MS);
	}
	return msg;
}

static int move_one(struct client *c, struct wish *w, uint32_t member)
{
	char *fault = w->request.fault;
	Ms__Msg *msg = NULL;
	int rc;

	w->request.world = MS_MEMBER_WORLD(member);
	w->request.rank = MS_MEMBER_RANK(member);
	w->request.id = client_move_id();
	do {
		if (!client_send(c, LINK_MSG(MOVE_REQUEST, move_request, &w->request)))
			msg = receive_report(c, w);
		w->request.fault = (char *)""; /* it has happened */
	} while (!msg && client_again(c));
	w->request.fault = fault;
	progress_clear(w->progress);
	if (!msg || msg->body_case != MS__MSG__BODY_MOVE_REPORT) {
		fprintf(stderr, "msrank-move: job %s has ended\n", client_job(c));
		rc = EXIT_NOT_MOVED;
	} else {
		rc = print_report(w, msg->move_report);
	}
	if (msg)
		ms__msg__free_unpacked(msg, NULL);
	return rc;
}

static int take_via(const char *text)
{
	static const char *const names[] = {
		[MS_VIA_AUTO] = "auto", [MS_VIA_DRAIN] = "drain", [MS_VIA_MIRROR] = "mirror"
	};

	for (int i = 0; i < 3; i++)
		if (!strcmp(text, names[i]))
			return i;
	return -1;
}

/* A positive number, perhaps with one of the marks ("KMG") behind it; times `unit`. */
static bool take_number(const char *text, const char *marks, double unit, uint64_t most, uint64_t *out)
{
	char *end;
	double v = strtod(text, &end) * unit;
	const char *mark = *end ? strchr(marks, *end) : NULL;

	for (const char *m = marks; mark && m <= mark; m++)
		v *= 1e3;
	if (end == text || *(mark ? end + 1 : end) || !(v >= 1) || v >= (double)most)
		return false;
	*out = (uint64_t)v;
	return true;
}

static bool take_compress(const char *text, uint32_t *flags)
{
	if (!strcmp(text, "never"))
		*flags |= MS_MOVE_PACK_NEVER;
	else if (!strcmp(text, "always"))
		*flags |= MS_MOVE_PACK_ALWAYS;
	else
		return !strcmp(text, "auto");
	return true;
}

/* One line: in the usage the fault would be hard to find. */
static void wrong(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void wrong(const char *format, ...)
{
	va_list args;

	fputs("msrank-move: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(EXIT_NOT_MOVED);
}

/* Of an option that has one; NULL, or what it has to be. */
static const char *take_value(struct wish *w, int opt, const char *text)
{
	uint64_t number = 0;
	int via;

	switch (opt) {
	case 'v':
		via = take_via(text);
		w->request.via = (uint32_t)via;
		return via < 0 ? "auto, drain or mirror" : NULL;
	case 't':
		if (!take_number(text, "", 1e3, MOVE_TIMEOUT_MAX_MS, &number))
			return "a number of seconds, at most a million";
		w->request.timeout_ms = (uint32_t)number;
		return NULL;
	case 'm':
		if (!take_number(text, "", 1e3, UINT32_MAX, &number))
			return "a number of milliseconds";
		w->options.max_freeze_us = (uint32_t)number;
		return NULL;
	case 'l':
		return take_number(text, "KMG", 1, UINT64_MAX, &w->options.limit) ? NULL : "bytes a second, as in 200M";
	case 'z':
		return take_compress(text, &w->options.flags) ? NULL : "auto, never or always";
	case 'j':
		w->json = true;
		w->progress = text ? PROGRESS_JSON : w->progress;
		return text && strcmp(text, "events") ? "events, or nothing" : NULL;
	default:
		return NULL;
	}
}

static bool take_options(int argc, char **argv, struct wish *w)
{
	static const struct option options[] = { { "job", required_argument, NULL, 'b' },
						 { "via", required_argument, NULL, 'v' },
						 { "no-precopy", no_argument, NULL, 'n' },
						 { "timeout", required_argument, NULL, 't' },
						 { "json", optional_argument, NULL, 'j' },
						 { "help", no_argument, NULL, 'h' },
						 { "evacuate", required_argument, NULL, 'e' },
						 { "fault", required_argument, NULL, 'f' },
						 { "drop", required_argument, NULL, 'r' },
						 { "avoid", required_argument, NULL, 'a' },
						 { "drain-ms", required_argument, NULL, 'd' },
						 { "check", no_argument, NULL, 'c' },
						 { "max-freeze", required_argument, NULL, 'm' },
						 { "limit", required_argument, NULL, 'l' },
						 { "compress", required_argument, NULL, 'z' },
						 { "compare", no_argument, NULL, 'p' },
						 { NULL, 0, NULL, 0 } };
	const char *wants;
	int opt, index = 0;

	while ((opt = getopt_long(argc, argv, "", options, &index)) != -1) {
		switch (opt) {
		case 'b':
			w->job = optarg;
			break;
		case 'n':
			w->request.no_precopy = 1;
			break;
		case 'c':
			w->request.check = 1;
			break;
		case 'p':
			w->options.flags |= MS_MOVE_COMPARE;
			break;
		case 'e':
			w->evacuate = optarg;
			break;
		case 'r':
			w->drop = optarg;
			break;
		case 'a':
			w->avoid = optarg;
			break;
		case 'f':
			w->request.fault = optarg;
			break;
		case 'd':
			w->request.drain_ms = (uint32_t)atoi(optarg);
			break;
		case 'h':
			fputs(usage, stdout);
			exit(0);
		case '?':
			return false;
		default:
			wants = take_value(w, opt, optarg);
			if (wants)
				wrong("--%s %s: it has to be %s", options[index].name, optarg, wants);
		}
	}
	if (w->avoid && !w->evacuate)
		wrong("--avoid %s: it goes with --evacuate", w->avoid);
	if (argc - optind != (w->evacuate || w->drop ? 0 : 2))
		return false;
	w->request.options = &w->options;
	if (!w->json && isatty(STDERR_FILENO))
		w->progress = PROGRESS_BAR;
	w->request.events = w->progress != PROGRESS_NONE;
	w->ranks = w->evacuate || w->drop ? NULL : argv[optind];
	w->host = w->evacuate || w->drop ? NULL : argv[optind + 1];
	return true;
}

/* 0 before anything else, then "not moved" before "still mirrored". */
static int worse(int a, int b)
{
	return a == EXIT_NOT_MOVED || b == EXIT_NOT_MOVED ? EXIT_NOT_MOVED : a ? a : b;
}

static int move_list(struct client *c, struct wish *w)
{
	struct ranks ranks;
	char why[1200];
	int rc = 0;

	if (ranks_parse(w->ranks, &ranks)) {
		fprintf(stderr, "msrank-move: %s is no list of ranks (2, 0.2, 1.0-3, 0,2-3)\n", w->ranks);
		return EXIT_NOT_MOVED;
	}
	if (client_host(c, w->host, why, sizeof(why))) {
		fprintf(stderr, "msrank-move: %s\n", why);
		ranks_clear(&ranks);
		return EXIT_NOT_MOVED;
	}
	w->request.host = (char *)w->host;
	for (size_t i = 0; i < ranks.count; i++)
		rc = worse(rc, move_one(c, w, ranks.members[i]));
	ranks_clear(&ranks);
	return rc;
}

/* Hosts that the user does not want are as good as down; false: one is misspelt. */
static bool avoid(struct cluster *c, const char *names)
{
	char *copy = strdup(names ? names : ""), *rest = copy, *name;
	bool known = copy != NULL;

	while (known && (name = strsep(&rest, ","))) {
		long host = cluster_host(c, name);

		if (host >= 0)
			c->hosts[host].up = false;
		else if (*name)
			known = false;
		if (!known)
			fprintf(stderr, "msrank-move: --avoid: host %s is not one of the job's hosts\n", name);
	}
	free(copy);
	return known;
}

/* 0 or EXIT_NOT_MOVED; c changes with each move. */
static int move_off(struct client *client, struct wish *w, struct cluster *c, size_t leave)
{
	int rc = 0;

	for (size_t i = 0; i < c->rank_count; i++) {
		struct cluster_rank *r = &c->ranks[i];
		bool memory;
		long to;
		int one;

		if (r->host != leave)
			continue;
		to = cluster_choose(c, r, leave, &memory);
		if (to < 0) {
			fprintf(stderr, "msrank-move: rank %u.%u stays on %s: %s\n", MS_MEMBER_WORLD(r->member),
				MS_MEMBER_RANK(r->member), w->evacuate,
				memory ? "no other host has the memory for it" : "no other host may take it");
			rc = EXIT_NOT_MOVED;
			continue;
		}
		w->request.host = (char *)c->hosts[to].name;
		one = move_one(client, w, r->member);
		if (one != EXIT_NOT_MOVED)
			cluster_moved(c, r, (size_t)to);
		rc = worse(rc, one);
	}
	return rc;
}

static int evacuate(struct client *client, struct wish *w)
{
	Ms__PsRequest ask = MS__PS_REQUEST__INIT;
	Ms__Msg *msg = client_ask(client, LINK_MSG(PS_REQUEST, ps_request, &ask), MOVE_GRACE_MS);
	struct cluster c;
	long leave;
	int rc = EXIT_NOT_MOVED;

	if (!msg || msg->body_case != MS__MSG__BODY_PS_REPLY) {
		fprintf(stderr, "msrank-move: host %s cannot be vacated: the job has ended\n", w->evacuate);
	} else {
		cluster_read(msg->ps_reply, &c);
		leave = cluster_host(&c, w->evacuate);
		if (leave < 0)
			fprintf(stderr, "msrank-move: host %s is not one of the job's hosts\n", w->evacuate);
		else if (avoid(&c, w->avoid))
			rc = move_off(client, w, &c, (size_t)leave);
		cluster_clear(&c);
	}
	if (msg)
		ms__msg__free_unpacked(msg, NULL);
	return rc;
}

int main(int argc, char **argv)
{
	struct wish w = { .request = MS__MOVE_REQUEST__INIT, .options = MS__MOVE_OPTIONS__INIT };
	struct client *c;
	char why[4096];
	int rc;

	w.request.timeout_ms = MOVE_DEFAULT_MS;
	if (!take_options(argc, argv, &w)) {
		fputs(usage, stderr);
		return EXIT_NOT_MOVED;
	}
	c = client_open(w.job, why, sizeof(why));
	if (!c) {
		fprintf(stderr, "msrank-move: %s\n", why);
		return EXIT_NOT_MOVED;
	}
	rc = w.evacuate ? evacuate(c, &w) : w.drop ? 0 : move_list(c, &w);
	if (w.drop && !rc && client_drop(c, w.drop, why, sizeof(why))) {
		fprintf(stderr, "msrank-move: %s\n", why);
		rc = EXIT_NOT_MOVED;
	}
	client_close(c);
	return output_end(rc, "msrank-move", rc == EXIT_NOT_MOVED || w.request.check ? "" : "; the ranks have moved");
}
