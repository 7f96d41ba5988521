/* SPDX-License-Identifier: MIT */
/*
 * msrank-move - moves ranks of a running job to another host.
 *
 *   msrank-move [--job JOB] RANKS HOST [--via auto|drain|mirror] [--no-precopy] [--timeout S] [--json]
 *   msrank-move [--job JOB] --evacuate HOST [options]
 *   msrank-move [--job JOB] --drop HOST
 */
#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "cluster.h"
#include "proto/link.h"
#include "proto/wire.h"
#include "ranks.h"

enum { MOVE_GRACE_MS = 10000, MOVE_DEFAULT_S = 60, EXIT_NOT_MOVED = 1, EXIT_STILL_MIRRORED = 2 };

static const char usage[] =
	"usage: msrank-move [--job JOB] RANKS HOST [options]\n"
	"       msrank-move [--job JOB] --evacuate HOST [options]\n"
	"       msrank-move [--job JOB] --drop HOST\n"
	"Moves ranks of a running job to another host, which joins the job if need be. RANKS: 2, 0.2, 1.0-3, 0,2-3.\n"
	"  --evacuate HOST  move every rank off HOST, each to where it finds processors and memory\n"
	"  --drop HOST      HOST, which has no rank, leaves the job; with --evacuate after that\n"
	"  --job JOB        need not be named when you have just one\n"
	"  --via WAY        auto (default), drain: nothing is left on the old host, or mirror\n"
	"  --no-precopy     stop and copy\n"
	"  --timeout S      give up after S seconds (default 60); after the commit: stop waiting, exit 2\n"
	"  --json           one object a line for each rank\n"
	"Exit 0: moved, and nothing is left on the old host. 1: the rank is where it was. 2: moved, streams still "
	"mirrored.\n";

struct wish {
	const char *job, *host, *ranks;
	const char *evacuate; /* a host, or NULL */
	const char *drop;     /* a host that leaves the job, or NULL */
	Ms__MoveRequest request;
	bool json;
};

static void print_json(const Ms__MoveReport *r)
{
	char member[32];
	json_t *o, *error = *r->error ? json_string(r->error) : json_null();

	snprintf(member, sizeof(member), "%u.%u", r->world, r->rank);
	o = json_pack("{s:i, s:s, s:s, s:s, s:b, s:f, s:f, s:f, s:I, s:i, s:s, s:{s:i, s:i}, s:o, s:f, s:I}", "rank",
		      (int)r->rank, "from", r->from, "to", r->to, "member", member, "committed", r->committed,
		      "freeze_ms", r->freeze_ms, "stall_ms", r->stall_ms, "total_ms", r->total_ms, "image_bytes",
		      (json_int_t)r->image_bytes, "rounds", (int)r->rounds, "tracking", r->tracking, "streams",
		      "drained", (int)r->drained, "mirrored", (int)r->mirrored, "error", error, "mirror_ms",
		      r->mirror_ms, "m", (json_int_t)r->m);
	json_dumpf(o, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(o);
}

static int print_report(const struct wish *w, const Ms__MoveReport *r)
{
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

static int move_one(struct client *c, struct wish *w, uint32_t member)
{
	Ms__Msg *msg;
	int rc;

	w->request.world = MS_MEMBER_WORLD(member);
	w->request.rank = MS_MEMBER_RANK(member);
	msg = client_send(c, LINK_MSG(MOVE_REQUEST, move_request, &w->request))
		      ? NULL
		      : client_receive(c, (int)w->request.timeout_ms + MOVE_GRACE_MS);
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

static bool take_options(int argc, char **argv, struct wish *w)
{
	static const struct option options[] = {
		{ "job", required_argument, NULL, 'b' },      { "via", required_argument, NULL, 'v' },
		{ "no-precopy", no_argument, NULL, 'n' },     { "timeout", required_argument, NULL, 't' },
		{ "json", no_argument, NULL, 'j' },           { "help", no_argument, NULL, 'h' },
		{ "evacuate", required_argument, NULL, 'e' }, { "fault", required_argument, NULL, 'f' },
		{ "drop", required_argument, NULL, 'r' },
		{ "drain-ms", required_argument, NULL, 'd' }, { NULL, 0, NULL, 0 }
	};
	double seconds = MOVE_DEFAULT_S;
	int opt, via = MS_VIA_AUTO;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'b':
			w->job = optarg;
			break;
		case 'v':
			via = take_via(optarg);
			break;
		case 'n':
			w->request.no_precopy = 1;
			break;
		case 't':
			seconds = atof(optarg);
			break;
		case 'j':
			w->json = true;
			break;
		case 'e':
			w->evacuate = optarg;
			break;
		case 'r':
			w->drop = optarg;
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
		default:
			return false;
		}
	}
	if (argc - optind != (w->evacuate || w->drop ? 0 : 2) || via < 0 || seconds <= 0 || seconds > 1e6)
		return false;
	w->ranks = w->evacuate || w->drop ? NULL : argv[optind];
	w->host = w->evacuate || w->drop ? NULL : argv[optind + 1];
	w->request.via = (uint32_t)via;
	w->request.timeout_ms = (uint32_t)(seconds * 1000);
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
				memory ? "no other host has the memory for it" : "no other host is up");
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
	Ms__Msg *msg = client_send(client, LINK_MSG(PS_REQUEST, ps_request, &ask))
			       ? NULL
			       : client_receive(client, MOVE_GRACE_MS);
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
		else
			rc = move_off(client, w, &c, (size_t)leave);
		cluster_clear(&c);
	}
	if (msg)
		ms__msg__free_unpacked(msg, NULL);
	return rc;
}

int main(int argc, char **argv)
{
	struct wish w = { .request = MS__MOVE_REQUEST__INIT };
	struct client *c;
	char why[4096];
	int rc;

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
	return rc;
}
