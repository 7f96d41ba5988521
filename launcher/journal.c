/* SPDX-License-Identifier: MIT */
#include "journal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobdir.h"
#include "master.h"
#include "proto/log.h"

void journal_host(const struct host *h)
{
	jobdir_note(h->c, json_pack("{s:s, s:I, s:i, s:b, s:s}", "host", h->name, "ip", (json_int_t)h->ip, "port",
				    h->mesh_port, "local", h->local, "says", h->says));
}

void journal_host_gone(const struct host *h)
{
	jobdir_note(h->c, json_pack("{s:s, s:b}", "host", h->name, "gone", 1));
}

void journal_member(const struct rank *r)
{
	jobdir_note(r->c, json_pack("{s:I, s:s, s:I}", "member", (json_int_t)r->id, "host", r->host->name, "virtual_ip",
				    (json_int_t)r->virtual_ip));
}

void journal_children(struct coord *c)
{
	jobdir_note(c, json_pack("{s:I}", "children", (json_int_t)c->children_kept));
}

void journal_child(struct rank *r)
{
	r->journaled = true;
	jobdir_note(r->c, json_pack("{s:I, s:s, s:I}", "member", (json_int_t)r->id, "host", r->host->name, "child_of",
				    (json_int_t)r->parent));
}

void journal_ended(const struct rank *r)
{
	json_t *line = json_pack("{s:I, s:i}", "member", (json_int_t)r->id, "ended", r->status);

	if (r->lost) /* a null would not be read again */
		json_object_set_new(line, "lost", json_string(r->lost));
	jobdir_note(r->c, line);
}

void journal_move(const struct rank *r, const struct host *to, uint64_t m, uint64_t id, uint32_t timeout_ms)
{
	char text[24];

	snprintf(text, sizeof(text), "%016llx", (unsigned long long)id); /* JSON's integers are signed */
	jobdir_note(r->c,
		    json_pack("{s:I, s:I, s:s, s:s, s:s, s:I}", "move", (json_int_t)m, "member", (json_int_t)r->id,
			      "from", r->host->name, "to", to->name, "id", text, "timeout_ms", (json_int_t)timeout_ms));
}

static bool take_host(struct coord *c, json_t *line)
{
	const char *name = NULL, *says = "";
	int port = 0, local = 0, gone = 0;
	json_int_t ip = 0;
	struct host *h;

	if (json_unpack(line, "{s:s, s?I, s?i, s?b, s?s, s?b}", "host", &name, "ip", &ip, "port", &port, "local",
			&local, "says", &says, "gone", &gone))
		return false;
	if (gone) {
		h = host_find(c, name);
		if (h)
			h->lost = h->dropped = true;
		return true;
	}
	h = host_add(c, name);
	h->ip = (uint32_t)ip;
	h->mesh_port = (uint16_t)port;
	h->local = local;
	free(h->says);
	h->says = strdup(says);
	return true;
}

/* Also one that has left the job since. */
static struct host *host_named(struct coord *c, const char *name)
{
	struct host *h;

	TAILQ_FOREACH(h, &c->hosts, entry)
	if (!strcmp(h->name, name))
		return h;
	return NULL;
}

static bool take_member(struct coord *c, json_t *line)
{
	const char *name = NULL, *lost = NULL;
	json_int_t id = 0, ip = 0;
	json_int_t parent = 0;
	struct rank *r;
	int status;

	if (!json_unpack(line, "{s:I, s:s, s:I}", "member", &id, "host", &name, "child_of", &parent)) {
		if (!host_named(c, name))
			return false;
		r = rank_create_child(host_named(c, name), (uint32_t)id, (uint32_t)parent, 0);
		r->journaled = true;
		r->here = false; /* until a daemon says so */
		return true;
	}
	if (!json_unpack(line, "{s:I, s:s, s:I}", "member", &id, "host", &name, "virtual_ip", &ip)) {
		if (!host_named(c, name))
			return false;
		rank_create(c, (uint32_t)id, (uint32_t)ip, host_named(c, name), NULL);
		master_taken(c, (uint32_t)ip);
		return true;
	}
	if (json_unpack(line, "{s:I, s:i, s?s}", "member", &id, "ended", &status, "lost", &lost))
		return false;
	r = rank_find(c, (uint32_t)id);
	if (!r)
		return false;
	r->ended = true;
	r->status = status;
	r->lost = lost ? strdup(lost) : NULL;
	return true;
}

static bool take_move(struct coord *c, json_t *line, struct journal_moves *moves)
{
	const char *from = NULL, *to = NULL, *id = NULL;
	json_int_t m = 0, member = 0, timeout = 0;
	struct journal_move *v;

	if (json_unpack(line, "{s:I, s:I, s:s, s:s, s:s, s:I}", "move", &m, "member", &member, "from", &from, "to", &to,
			"id", &id, "timeout_ms", &timeout))
		return false;
	v = calloc(1, sizeof(*v));
	if (!v)
		log_die("out of memory");
	v->rank = rank_find(c, (uint32_t)member);
	v->from = host_named(c, from);
	v->to = host_named(c, to);
	v->m = (uint64_t)m;
	v->id = strtoull(id, NULL, 16);
	v->timeout_ms = (uint32_t)timeout;
	if (!v->rank || !v->from || !v->to) {
		free(v);
		return false;
	}
	v->rank->m = v->m;
	LIST_INSERT_HEAD(moves, v, entry);
	return true;
}

static bool take_children(struct coord *c, json_t *line)
{
	json_int_t number = 0;

	if (json_unpack(line, "{s:I}", "children", &number))
		return false;
	c->children = c->children_kept = (uint32_t)number;
	return true;
}

static bool take_journal(struct coord *c, json_t *line, struct journal_moves *moves)
{
	return json_object_get(line, "children") ? take_children(c, line)
	       : json_object_get(line, "move")   ? take_move(c, line, moves)
	       : json_object_get(line, "member") ? take_member(c, line)
						 : take_host(c, line);
}

/* A record; steps have none. */
static bool take_record(struct coord *c, json_t *line, struct journal_moves *moves)
{
	const char *outcome = NULL, *reason = NULL, *member = NULL;
	json_int_t m = 0, bytes = 0, rounds = 0, mirror = 0;
	struct journal_move *v;
	unsigned world, rank;

	if (!json_object_get(line, "outcome"))
		return true;
	if (json_unpack(line, "{s:s, s:s, s:I, s?s, s?I, s?I, s?I}", "outcome", &outcome, "member", &member, "m", &m,
			"reason", &reason, "image_bytes", &bytes, "rounds", &rounds, "mirror_port", &mirror) ||
	    sscanf(member, "%u.%u", &world, &rank) != 2)
		return false;
	LIST_FOREACH(v, moves, entry)
	if (v->rank->id == MS_MEMBER(world, rank) && v->m == (uint64_t)m)
		break;
	if (!v)
		return false;
	v->committed = !strcmp(outcome, "COMMITTED");
	v->reason = reason ? strdup(reason) : NULL;
	v->image_bytes = (uint64_t)bytes;
	v->rounds = (uint32_t)rounds;
	v->mirror = mirror != 0;
	rank_note_outcome(v->rank, v->m, v->committed ? v->to : NULL);
	return true;
}

static int read_file(struct coord *c, const char *name, bool (*take)(struct coord *, json_t *, struct journal_moves *),
		     struct journal_moves *moves, char *why, size_t size)
{
	char path[4200], *text = NULL;
	unsigned number = 0;
	size_t room = 0;
	bool good = true;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", c->dir, name);
	f = fopen(path, "re");
	if (!f) {
		snprintf(why, size, "cannot read %s: %s", path, strerror(errno));
		return -1;
	}
	while (good && getline(&text, &room, f) > 0) {
		json_t *line = strchr(text, '\n') ? json_loads(text, 0, NULL) : NULL;

		number++;
		if (!line && !strchr(text, '\n'))
			break; /* the coordinator died while it wrote it: nobody has heard of it */
		good = line && take(c, line, moves);
		json_decref(line);
	}
	free(text);
	fclose(f);
	if (!good)
		snprintf(why, size, "line %u of %s cannot be read", number, path);
	return good ? 0 : -1;
}

int journal_read(struct coord *c, struct journal_moves *moves, char *why, size_t size)
{
	if (read_file(c, "journal.jsonl", take_journal, moves, why, size))
		return -1;
	return read_file(c, "records.jsonl", take_record, moves, why, size);
}
