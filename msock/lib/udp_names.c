/* SPDX-License-Identifier: MIT */
#include "lib/udp_names.h"

#include "lib/mem.h"

#include <stddef.h>

enum { NAMES_BUCKETS = 1024, NAMES_MANY = 8192 };

#define NAMES_OLD_NS 120000000000ull /* twice as long as a peer that moves tells those that it talked with */

struct name {
	struct name *next;
	uint32_t real_ip, ip;
	uint16_t real_port, port;
	uint64_t used_ns;
};

static struct name *buckets[NAMES_BUCKETS];
static unsigned count, sweep_at = NAMES_MANY;
static uint64_t clock_ns; /* of the last put: near enough for what is used since */

static struct name **names_bucket(uint32_t ip, uint16_t port)
{
	return &buckets[(ip * 31 + port) % NAMES_BUCKETS];
}

static struct name *names_find(uint32_t ip, uint16_t port)
{
	struct name *n = *names_bucket(ip, port);

	while (n && (n->real_ip != ip || n->real_port != port))
		n = n->next;
	return n;
}

static void names_sweep(void)
{
	for (unsigned i = 0; i < NAMES_BUCKETS; i++) {
		struct name **at = &buckets[i], *n;

		while ((n = *at) != NULL) {
			if (clock_ns - n->used_ns < NAMES_OLD_NS) {
				at = &n->next;
				continue;
			}
			*at = n->next;
			mem_free(n, sizeof(*n));
			count--;
		}
	}
	sweep_at = count * 2 > NAMES_MANY ? count * 2 : NAMES_MANY;
}

void udp_names_put(uint32_t real_ip, uint16_t real_port, uint32_t ip, uint16_t port, uint64_t now_ns)
{
	struct name *n = names_find(real_ip, real_port), **bucket = names_bucket(real_ip, real_port);

	clock_ns = now_ns;
	if (!n) {
		if (count >= sweep_at)
			names_sweep();
		n = mem_alloc(sizeof(*n));
		if (!n)
			return; /* its datagrams are dropped as a stranger's */
		n->real_ip = real_ip;
		n->real_port = real_port;
		n->next = *bucket;
		*bucket = n;
		count++;
	}
	n->ip = ip;
	n->port = port;
	n->used_ns = now_ns;
}

bool udp_names_get(uint32_t real_ip, uint16_t real_port, uint32_t *ip, uint16_t *port)
{
	struct name *n = names_find(real_ip, real_port);

	if (!n)
		return false;
	n->used_ns = clock_ns;
	*ip = n->ip;
	*port = n->port;
	return true;
}
