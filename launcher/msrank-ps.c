/* SPDX-License-Identifier: MIT */
/*
 * msrank-ps - shows the ranks of a job: host, pid, state, cpu, memory, streams, moves.
 *
 *   msrank-ps [JOB] [--json]
 */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "proto/link.h"
#include "proto/wire.h"

enum { PS_ANSWER_MS = 10000 };

static const char usage[] =
	"usage: msrank-ps [JOB] [--json]\n"
	"Shows the ranks of a job that runs under mpiexec -launcher msock.\n"
	"JOB need not be named when you have just one.\n"
	"  --json   one object: job, ranks (rank, member, host, pid, state, cpu_s, rss_bytes, streams, moves), hosts\n";

static int by_member(const void *a, const void *b)
{
	uint32_t x = (*(Ms__Rank *const *)a)->member, y = (*(Ms__Rank *const *)b)->member;

	return x < y ? -1 : x > y;
}

static void print_json(const Ms__PsReply *p)
{
	json_t *ranks = json_array(), *hosts = json_array(), *all;
	char member[32];

	for (size_t i = 0; i < p->n_ranks; i++) {
		const Ms__Rank *r = p->ranks[i];

		snprintf(member, sizeof(member), "%u.%u", MS_MEMBER_WORLD(r->member), MS_MEMBER_RANK(r->member));
		json_array_append_new(ranks, json_pack("{s:i, s:s, s:s, s:i, s:s, s:f, s:I, s:i, s:i}", "rank",
						       (int)MS_MEMBER_RANK(r->member), "member", member, "host",
						       r->host, "pid", r->pid, "state", r->state, "cpu_s", r->cpu_s,
						       "rss_bytes", (json_int_t)r->rss_bytes, "streams",
						       (int)r->streams, "moves", (int)r->moves));
	}
	for (size_t i = 0; i < p->n_hosts; i++)
		json_array_append_new(hosts, json_pack("{s:s, s:b, s:i}", "host", p->hosts[i]->name, "up",
						       p->hosts[i]->up, "mirrors", (int)p->hosts[i]->mirrors));
	all = json_pack("{s:s, s:o, s:o}", "job", p->job, "ranks", ranks, "hosts", hosts);
	json_dumpf(all, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(all);
}

static void print_table(const Ms__PsReply *p)
{
	char member[32];

	printf("%-8s %-20s %8s %-8s %9s %10s %8s %6s\n", "RANK", "HOST", "PID", "STATE", "CPU s", "MEMORY MB",
	       "STREAMS", "MOVES");
	for (size_t i = 0; i < p->n_ranks; i++) {
		const Ms__Rank *r = p->ranks[i];

		snprintf(member, sizeof(member), "%u.%u", MS_MEMBER_WORLD(r->member), MS_MEMBER_RANK(r->member));
		printf("%-8s %-20s %8d %-8s %9.2f %10.1f %8u %6u\n", member, r->host, r->pid, r->state, r->cpu_s,
		       (double)r->rss_bytes / 1e6, r->streams, r->moves);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	Ms__PsRequest ask = MS__PS_REQUEST__INIT;
	int opt, json = 0;
	char why[4096];
	struct client *c;
	Ms__Msg *msg;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'j') {
			json = 1;
		} else {
			fputs(usage, opt == 'h' ? stdout : stderr);
			return opt == 'h' ? 0 : 2;
		}
	}
	c = client_open(optind < argc ? argv[optind] : NULL, why, sizeof(why));
	if (!c) {
		fprintf(stderr, "msrank-ps: %s\n", why);
		return 1;
	}
	msg = client_send(c, LINK_MSG(PS_REQUEST, ps_request, &ask)) ? NULL : client_receive(c, PS_ANSWER_MS);
	if (!msg || msg->body_case != MS__MSG__BODY_PS_REPLY) {
		fprintf(stderr, "msrank-ps: job %s does not answer\n", client_job(c));
		return 1;
	}
	qsort(msg->ps_reply->ranks, msg->ps_reply->n_ranks, sizeof(*msg->ps_reply->ranks), by_member);
	if (json)
		print_json(msg->ps_reply);
	else
		print_table(msg->ps_reply);
	ms__msg__free_unpacked(msg, NULL);
	client_close(c);
	return 0;
}
