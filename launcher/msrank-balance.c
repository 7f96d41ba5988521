/* SPDX-License-Identifier: MIT */
/*
 * msrank-balance - moves ranks of a running job to where they find processors.
 *
 *   msrank-balance [JOB] [--policy greedy|refine|comm] [--dry-run] [--once | --every S] [--moves N] [--watch S] [--quiet]
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "balance.h"
#include "client.h"
#include "means.h"
#include "output.h"
#include "proto/link.h"
#include "proto/wire.h"

enum { ANSWER_MS = 10000, SAMPLE_MS = 2000, MOVE_MS = 60000, MOVE_GRACE_MS = 10000, STEPS_MAX = 64 };

static const char usage[] = "usage: msrank-balance [JOB] [options]\n"
			    "Moves ranks of a running job to where they find processors, if that pays.\n"
			    "  --policy NAME  greedy (default), refine or comm\n"
			    "  --once         one round, then end (default)\n"
			    "  --every S      a round every S seconds, 4 at least, as long as the job runs\n"
			    "  --dry-run      say what would be done\n"
			    "  --moves N      at most N moves a round (default 4)\n"
			    "  --watch S      look at the load for S seconds before the first round (default 6)\n"
			    "  --quiet        tell of moves only\n"
			    "One line tells each decision and its reason.\n";

struct wish {
	const char *job;
	const struct policy *policy;
	struct balance_limits limits;
	double every_s, watch_s; /* every_s 0: once */
	bool dry_run, quiet;
};

static double number(const char *text, double least)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || (*end && strcmp(end, "s")) || !(value >= least && value <= 1e6)) {
		fprintf(stderr, "msrank-balance: %s is not a number of at least %g\n", text, least);
		exit(2);
	}
	return value;
}

static void take_options(int argc, char **argv, struct wish *w)
{
	static const struct option options[] = { { "policy", required_argument, NULL, 'p' },
						 { "once", no_argument, NULL, 'o' },
						 { "every", required_argument, NULL, 'e' },
						 { "dry-run", no_argument, NULL, 'd' },
						 { "moves", required_argument, NULL, 'm' },
						 { "watch", required_argument, NULL, 'w' },
						 { "quiet", no_argument, NULL, 'q' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'p' && !(w->policy = balance_policy(optarg))) {
			fprintf(stderr, "msrank-balance: there is no policy %s (greedy, refine, comm)\n", optarg);
			exit(2);
		} else if (opt == 'o') {
			w->every_s = 0;
		} else if (opt == 'e') {
			w->every_s = number(optarg, BALANCE_EVERY_MIN_S);
		} else if (opt == 'd') {
			w->dry_run = true;
		} else if (opt == 'm') {
			w->limits.moves = (unsigned)number(optarg, 1);
		} else if (opt == 'w') {
			w->watch_s = number(optarg, 0);
		} else if (opt == 'q') {
			w->quiet = true;
		} else if (opt != 'p') {
			fputs(usage, opt == 'h' ? stdout : stderr);
			exit(opt == 'h' ? 0 : 2);
		}
	}
	if (w->limits.moves > STEPS_MAX)
		w->limits.moves = STEPS_MAX;
	w->job = client_word("msrank-balance", argc, argv);
}

static void pause_ms(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&t, NULL);
}

/* NULL: the job has ended. To be freed. */
static Ms__Msg *look(struct client *c)
{
	Ms__PsRequest ask = MS__PS_REQUEST__INIT;
	Ms__Msg *msg = client_ask(c, LINK_MSG(PS_REQUEST, ps_request, &ask), ANSWER_MS);

	if (msg && msg->body_case != MS__MSG__BODY_PS_REPLY) {
		ms__msg__free_unpacked(msg, NULL);
		msg = NULL;
	}
	return msg;
}

/* Seconds that a move takes, by those that were made; negative: none was. */
static double measured_cost(const Ms__PsReply *p)
{
	double sum = 0;
	unsigned n = 0;

	for (size_t i = 0; i < p->n_moves; i++) {
		if (strcmp(p->moves[i]->state, "moved"))
			continue;
		sum += p->moves[i]->total_ms / 1e3;
		n++;
	}
	return n ? sum / n : -1;
}

static double *moved_ago(const Ms__PsReply *p, const struct cluster *c)
{
	double *ago = malloc((c->rank_count + 1) * sizeof(*ago));

	if (!ago)
		abort();
	for (size_t i = 0; i < c->rank_count; i++) {
		ago[i] = -1;
		for (size_t k = 0; k < p->n_moves && ago[i] < 0; k++) /* refused ones too: not at once again */
			if (p->moves[k]->member == c->ranks[i].member)
				ago[i] = p->moves[k]->ago_s;
	}
	return ago;
}

static void tell(const struct balance *b, const struct balance_step *s, const char *lead)
{
	uint32_t member = b->c->ranks[s->rank].member;

	printf("%srank %u.%u %s -> %s: ", lead, MS_MEMBER_WORLD(member), MS_MEMBER_RANK(member),
	       b->c->hosts[s->from].name, b->c->hosts[s->to].name);
	if (s->together)
		printf("%u moves together: ", s->together);
	printf("a step takes %.2f instead of %.2f: %.1f s gained in %.0f s, for %.1f s of moving\n", s->after,
	       s->before, s->gain_s, b->limits.horizon_s, s->cost_s);
	output_flush();
}

static bool move(struct client *client, const struct cluster *c, const struct balance_step *s)
{
	Ms__MoveRequest q = MS__MOVE_REQUEST__INIT;
	uint32_t member = c->ranks[s->rank].member;
	bool moved = false;
	Ms__Msg *msg;

	q.world = MS_MEMBER_WORLD(member);
	q.rank = MS_MEMBER_RANK(member);
	q.host = (char *)c->hosts[s->to].name;
	q.timeout_ms = MOVE_MS;
	q.id = client_move_id();
	msg = client_ask(client, LINK_MSG(MOVE_REQUEST, move_request, &q), MOVE_MS + MOVE_GRACE_MS);
	if (msg && msg->body_case == MS__MSG__BODY_MOVE_REPORT) {
		moved = msg->move_report->committed;
		if (!moved)
			fprintf(stderr, "msrank-balance: rank %u.%u was not moved to %s: %s\n", q.world, q.rank, q.host,
				msg->move_report->error);
	}
	if (msg)
		ms__msg__free_unpacked(msg, NULL);
	return moved;
}

static void take_outcome(struct mean *m, const struct wish *w, bool moved, double at_s)
{
	m->refusals = moved ? 0 : m->refusals + 1;
	m->rests_until_s = at_s + balance_rest_s(&w->limits, m->refusals);
}

static void leave_out(struct cluster *c, struct means *means, double at_s)
{
	for (size_t i = 0; i < c->rank_count; i++)
		if (c->ranks[i].movable && means_of(means, c->ranks[i].member)->rests_until_s > at_s)
			c->ranks[i].movable = false;
}

/* What is known from earlier looks. */
struct memory {
	struct means means;
	unsigned found; /* as balance.h has it */
};

/* One round on one answer; false: a move failed. */
static bool round_made(struct client *client, const struct wish *w, const Ms__PsReply *p, struct memory *known,
		       double at_s)
{
	struct balance_step steps[STEPS_MAX], rejected;
	struct cluster c;
	struct balance b = { .c = &c, .limits = w->limits, .cost_s = measured_cost(p), .found = &known->found };
	struct means *means = &known->means;
	bool has_rejected, good = true;
	double *ago;
	unsigned n;

	cluster_read(p, &c);
	leave_out(&c, means, at_s);
	b.moved_s = ago = moved_ago(p, &c);
	n = balance_plan(&b, w->policy, steps, &rejected, &has_rejected);
	for (unsigned i = 0; i < n; i++) {
		tell(&b, &steps[i], w->dry_run ? "would move " : w->quiet ? "msrank-balance: move " : "move ");
		if (!w->dry_run) {
			bool moved = move(client, &c, &steps[i]);

			take_outcome(means_of(means, c.ranks[steps[i].rank].member), w, moved, at_s);
			good = moved && good;
			if (!moved && steps[i].together)
				break; /* without this one the others bring nothing, or the contrary */
		}
	}
	if (!n && has_rejected && !w->quiet)
		tell(&b, &rejected, known->found ? "stay: to be seen again: " : "stay: not worth it: ");
	else if (!n && !w->quiet)
		printf("stay: no rank can move to another machine now\n");
	output_flush();
	free(ago);
	cluster_clear(&c);
	return good;
}

/* 1: the job has ended. */
static int rounds(struct client *client, const struct wish *w)
{
	struct memory known = { { NULL, 0 }, 0 };
	double next_s = w->watch_s, at_s = 0;
	int rc = 0;

	for (;;) {
		Ms__Msg *msg = look(client);

		if (!msg) {
			if (w->every_s <= 0)
				fprintf(stderr, "msrank-balance: job %s has ended\n", client_job(client));
			rc = w->every_s > 0 ? rc : 1;
			break;
		}
		means_note(&known.means, msg->ps_reply);
		if (at_s >= next_s) {
			if (!round_made(client, w, msg->ps_reply, &known, at_s))
				rc = 1;
			next_s = at_s + w->every_s;
		}
		ms__msg__free_unpacked(msg, NULL);
		if (at_s >= w->watch_s && w->every_s <= 0)
			break;
		pause_ms(SAMPLE_MS);
		at_s += SAMPLE_MS / 1e3;
	}
	means_clear(&known.means);
	return rc;
}

int main(int argc, char **argv)
{
	struct wish w = { .policy = balance_policies[0], .limits = BALANCE_LIMITS, .watch_s = 6 };
	struct client *c;
	char why[4096];
	int rc;

	take_options(argc, argv, &w);
	c = client_open(w.job, why, sizeof(why));
	if (!c) {
		fprintf(stderr, "msrank-balance: %s\n", why);
		return 1;
	}
	rc = rounds(c, &w);
	client_close(c);
	return output_end(rc, "msrank-balance", "");
}
