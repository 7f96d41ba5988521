/* SPDX-License-Identifier: MIT */
/*
 * msrank-ps - shows a job: its ranks with their processor time, memory, streams and moves, and its hosts.
 *
 *   msrank-ps [JOB] [--comm] [--json]
 */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "output.h"
#include "proto/link.h"
#include "proto/wire.h"
#include "show.h"

enum { PS_ANSWER_MS = 10000 };

static const char usage[] = "usage: msrank-ps [JOB] [--comm] [--json]\n"
			    "Shows the ranks of a job that runs under mpiexec -launcher msock, and its hosts.\n"
			    "JOB need not be named when you have just one.\n"
			    "  --comm   who talks to whom: bytes over the streams that are open\n"
			    "  --json   one object: job, ranks, hosts, moves; see msrank-ps(1)\n";

static int by_member(const void *a, const void *b)
{
	uint32_t x = (*(Ms__Rank *const *)a)->member, y = (*(Ms__Rank *const *)b)->member;

	return x < y ? -1 : x > y;
}

/* Negative stands for what is not known. */
static json_t *known(double value)
{
	return value < 0 ? json_null() : json_real(value);
}

static json_t *rank_json(const Ms__Rank *r)
{
	json_t *peers = json_array(), *o;
	char member[SHOW_TEXT];

	for (size_t i = 0; i < r->n_peers; i++) {
		show_member(r->peers[i]->member, member);
		json_array_append_new(peers, json_pack("{s:s, s:I, s:I}", "member", member, "sent",
						       (json_int_t)r->peers[i]->sent, "taken",
						       (json_int_t)r->peers[i]->taken));
	}
	show_member(r->member, member);
	o = json_pack("{s:i, s:s, s:s, s:i, s:s, s:o, s:o, s:I, s:i, s:i, s:i, s:b, s:o}", "rank",
		      (int)MS_MEMBER_RANK(r->member), "member", member, "host", r->host, "pid", r->pid, "state",
		      r->state, "cpu_s", known(r->cpu_s), "load", known(r->load), "rss_bytes", (json_int_t)r->rss_bytes,
		      "streams", (int)r->streams, "mirrors", (int)r->mirrors, "moves", (int)r->moves, "movable",
		      r->movable, "peers", peers);
	show_member(r->parent, member);
	if (r->child)
		json_object_set_new(o, "parent", json_string(member));
	return o;
}

static json_t *series(const double *list, size_t count)
{
	json_t *array = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(array, known(list[i]));
	return array;
}

static json_t *host_json(const Ms__HostState *h)
{
	json_t *o = json_pack("{s:s, s:b, s:b, s:b, s:i, s:I}", "host", h->name, "up", h->up, "starting", h->starting,
			      "silent", h->silent, "mirrors", (int)h->mirrors, "relays", (json_int_t)h->relays);

	if (!h->now)
		return o;
	json_object_update_new(
		o, json_pack("{s:s, s:f, s:o, s:i, s:o, s:I, s:I, s:{s:o, s:o}}", "machine", h->now->machine, "cores",
			     h->now->cores, "busy", known(h->now->busy), "runnable", (int)h->now->runnable, "pressure",
			     known(h->now->pressure), "memory_bytes", (json_int_t)h->now->memory_bytes, "free_bytes",
			     (json_int_t)h->now->free_bytes, "history", "busy", series(h->busy, h->n_busy), "pressure",
			     series(h->pressure, h->n_pressure)));
	return o;
}

static json_t *move_json(const Ms__MoveMade *m)
{
	char member[SHOW_TEXT];

	show_member(m->member, member);
	return json_pack("{s:s, s:s, s:s, s:s, s:f, s:f, s:f, s:I, s:s}", "member", member, "from", m->from, "to",
			 m->to, "state", m->state, "ago_s", m->ago_s, "total_ms", m->total_ms, "freeze_ms",
			 m->freeze_ms, "image_bytes", (json_int_t)m->image_bytes, "error", m->error);
}

static void print_json(const Ms__PsReply *p)
{
	json_t *ranks = json_array(), *hosts = json_array(), *moves = json_array(), *all;

	for (size_t i = 0; i < p->n_ranks; i++)
		json_array_append_new(ranks, rank_json(p->ranks[i]));
	for (size_t i = 0; i < p->n_hosts; i++)
		json_array_append_new(hosts, host_json(p->hosts[i]));
	for (size_t i = 0; i < p->n_moves; i++)
		json_array_append_new(moves, move_json(p->moves[i]));
	all = json_pack("{s:s, s:o, s:o, s:o}", "job", p->job, "ranks", ranks, "hosts", hosts, "moves", moves);
	json_dumpf(all, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(all);
}

static void print_hosts(const Ms__PsReply *p)
{
	char busy[SHOW_TEXT], pressure[SHOW_TEXT];

	printf("%-20s %-8s %6s %6s %6s %9s %10s %10s\n", "HOST", "STATE", "RANKS", "CORES", "BUSY", "PRESSURE",
	       "FREE MB", "MEMORY MB");
	for (size_t i = 0; i < p->n_hosts; i++) {
		const Ms__HostState *h = p->hosts[i];
		unsigned ranks = 0;

		for (size_t k = 0; k < p->n_ranks; k++)
			ranks += !strcmp(p->ranks[k]->host, h->name) && strcmp(p->ranks[k]->state, "ended");
		printf("%-20s %-8s %6u", h->name, show_host_state(h), ranks);
		if (h->now)
			printf(" %6.2f %6s %9s %10.0f %10.0f", h->now->cores, show_known(h->now->busy, busy),
			       show_known(h->now->pressure, pressure), (double)h->now->free_bytes / 1e6,
			       (double)h->now->memory_bytes / 1e6);
		putchar('\n');
	}
}

static void print_rank(const Ms__Rank *r)
{
	char member[SHOW_TEXT], cpu[SHOW_TEXT], load[SHOW_TEXT];

	show_member(r->member, member);
	printf("%-8s %-20s %8d %-8s %9s %6s %10.1f %8u %6u\n", member, r->host, r->pid, r->state,
	       show_known(r->cpu_s, cpu), show_known(r->load, load), (double)r->rss_bytes / 1e6, r->streams, r->moves);
}

/* Forked children that run stand below their parents. */
static void print_children(const Ms__PsReply *p, uint32_t parent)
{
	for (size_t i = 0; i < p->n_ranks; i++) {
		const Ms__Rank *r = p->ranks[i];

		if (!r->child || r->parent != parent)
			continue;
		if (strcmp(r->state, "ended"))
			print_rank(r);
		print_children(p, r->member);
	}
}

static void print_table(const Ms__PsReply *p)
{
	printf("%-8s %-20s %8s %-8s %9s %6s %10s %8s %6s\n", "RANK", "HOST", "PID", "STATE", "CPU s", "LOAD",
	       "MEMORY MB", "STREAMS", "MOVES");
	for (size_t i = 0; i < p->n_ranks; i++) {
		const Ms__Rank *r = p->ranks[i];

		if (r->child)
			continue;
		print_rank(r);
		print_children(p, r->member);
	}
	putchar('\n');
	print_hosts(p);
}

static void print_comm(const Ms__PsReply *p)
{
	char from[SHOW_TEXT], to[SHOW_TEXT];

	printf("%-8s %-8s %14s %14s\n", "RANK", "WITH", "SENT MB", "TAKEN MB");
	for (size_t i = 0; i < p->n_ranks; i++) {
		const Ms__Rank *r = p->ranks[i];

		for (size_t k = 0; k < r->n_peers; k++) {
			show_member(r->member, from);
			show_member(r->peers[k]->member, to);
			printf("%-8s %-8s %14.3f %14.3f\n", from, to, (double)r->peers[k]->sent / 1e6,
			       (double)r->peers[k]->taken / 1e6);
		}
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "comm", no_argument, NULL, 'c' },
						 { "json", no_argument, NULL, 'j' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	Ms__PsRequest ask = MS__PS_REQUEST__INIT;
	void (*print)(const Ms__PsReply *) = print_table;
	int opt, rc = 1;
	char why[4096];
	struct client *c;
	Ms__Msg *msg;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'j') {
			print = print_json;
		} else if (opt == 'c') {
			print = print == print_json ? print_json : print_comm;
		} else {
			fputs(usage, opt == 'h' ? stdout : stderr);
			return opt == 'h' ? 0 : 2;
		}
	}
	c = client_open(client_word("msrank-ps", argc, argv), why, sizeof(why));
	if (!c) {
		fprintf(stderr, "msrank-ps: %s\n", why);
		return 1;
	}
	msg = client_ask(c, LINK_MSG(PS_REQUEST, ps_request, &ask), PS_ANSWER_MS);
	if (msg && msg->body_case == MS__MSG__BODY_PS_REPLY) {
		qsort(msg->ps_reply->ranks, msg->ps_reply->n_ranks, sizeof(*msg->ps_reply->ranks), by_member);
		print(msg->ps_reply);
		rc = 0;
	} else {
		fprintf(stderr, "msrank-ps: job %s does not answer\n", client_job(c));
	}
	if (msg)
		ms__msg__free_unpacked(msg, NULL);
	client_close(c);
	return output_end(rc, "msrank-ps", "");
}
