/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "greeting.h"

enum { VERSION = 1, PEER_FIXED_BYTES = 16, PORT_BYTES = 8, ANSWER_BYTES = 1 };

static const unsigned char magic[4] = { 'M', 'S', 'C', 'H' };

static void put16(unsigned char *p, uint32_t v)
{
	p[0] = v & 0xff;
	p[1] = v >> 8 & 0xff;
}

static void put32(unsigned char *p, uint32_t v)
{
	put16(p, v);
	put16(p + 2, v >> 16);
}

static uint32_t get16(const unsigned char *p)
{
	return p[0] | (uint32_t)p[1] << 8;
}

static uint32_t get32(const unsigned char *p)
{
	return get16(p) | get16(p + 2) << 16;
}

static size_t encode_peer(const struct greeting *g, unsigned char *body)
{
	size_t from = strlen(g->from_pg) + 1;
	size_t to = strlen(g->to_pg) + 1;

	if (from > GREETING_PG_ID_MAX || to > GREETING_PG_ID_MAX)
		return 0;
	put32(body, g->pkt_bytes);
	put32(body + 4, g->from_rank);
	put32(body + 8, g->to_rank);
	put16(body + 12, from);
	put16(body + 14, to);
	memcpy(body + PEER_FIXED_BYTES, g->from_pg, from);
	memcpy(body + PEER_FIXED_BYTES + from, g->to_pg, to);
	return PEER_FIXED_BYTES + from + to;
}

size_t greeting_encode(const struct greeting *g, unsigned char *out)
{
	unsigned char *body = out + GREETING_HEAD_BYTES;
	size_t bytes = 0;

	switch (g->type) {
	case GREETING_HELLO_PEER:
		bytes = encode_peer(g, body);
		if (!bytes)
			return 0;
		break;
	case GREETING_HELLO_PORT:
		put32(body, g->pkt_bytes);
		put32(body + 4, g->port_tag);
		bytes = PORT_BYTES;
		break;
	case GREETING_ANSWER:
		body[0] = g->verdict;
		bytes = ANSWER_BYTES;
		break;
	case GREETING_CONFIRM:
		break;
	}
	memcpy(out, magic, sizeof(magic));
	out[4] = VERSION;
	out[5] = g->type;
	put16(out + 6, bytes);
	return GREETING_HEAD_BYTES + bytes;
}

size_t greeting_total_bytes(const unsigned char *in)
{
	size_t bytes = GREETING_HEAD_BYTES + get16(in + 6);

	if (memcmp(in, magic, sizeof(magic)) || in[4] != VERSION || bytes > GREETING_MAX_BYTES)
		return 0;
	return bytes;
}

static int decode_peer(const unsigned char *body, size_t bytes, struct greeting *g)
{
	size_t from, to;

	if (bytes < PEER_FIXED_BYTES)
		return -1;
	from = get16(body + 12);
	to = get16(body + 14);
	if (!from || !to || from > GREETING_PG_ID_MAX || to > GREETING_PG_ID_MAX ||
	    bytes != PEER_FIXED_BYTES + from + to)
		return -1;
	g->pkt_bytes = get32(body);
	g->from_rank = get32(body + 4);
	g->to_rank = get32(body + 8);
	g->from_pg = (const char *)body + PEER_FIXED_BYTES;
	g->to_pg = g->from_pg + from;
	return g->from_pg[from - 1] || g->to_pg[to - 1] ? -1 : 0;
}

int greeting_decode(const unsigned char *in, size_t bytes, struct greeting *g)
{
	const unsigned char *body = in + GREETING_HEAD_BYTES;

	if (bytes < GREETING_HEAD_BYTES || greeting_total_bytes(in) != bytes)
		return -1;
	bytes -= GREETING_HEAD_BYTES;
	memset(g, 0, sizeof(*g));
	g->type = in[5];
	switch (g->type) {
	case GREETING_HELLO_PEER:
		return decode_peer(body, bytes, g);
	case GREETING_HELLO_PORT:
		if (bytes != PORT_BYTES)
			return -1;
		g->pkt_bytes = get32(body);
		g->port_tag = get32(body + 4);
		return 0;
	case GREETING_ANSWER:
		if (bytes != ANSWER_BYTES || body[0] < GREETING_WELCOME || body[0] > GREETING_REFUSED)
			return -1;
		g->verdict = body[0];
		return 0;
	case GREETING_CONFIRM:
		return bytes ? -1 : 0;
	}
	return -1;
}
