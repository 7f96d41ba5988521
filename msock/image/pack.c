/* SPDX-License-Identifier: MIT */
/*
 * Compression of pages on their way, where it pays.
 *
 * The capture is one thread: a byte costs 1/speed to compress, and what is left
 * of it left/rate on the link, at the same time while the socket's buffer is not
 * empty.  So it pays when the link is slower than the compressor and the pages
 * get smaller.  TCP itself tells the link's rate, the rest is measured on a
 * sample now and then; on a fast link nothing is tried at all.
 */
#include <asm/prctl.h>
#include <linux/tcp.h>
#include <netinet/in.h>

#define LZ4_STATIC_LINKING_ONLY
#include <lz4.h>

#include "image/mem.h"
#include "image/workspace.h"

enum {
	LOOK_FRAMES = 8,         /* from one look at the link to the next */
	SAMPLE = 64 << 10,       /* bytes that are compressed to see how it goes */
	SPEED_FIRST = 300 << 20, /* bytes/s, until one has been seen */
	LEFT_MOST = 14,          /* sixteenths: with more left of a byte it is not worth it */
	ACCELERATION = 1,
};

_Static_assert(sizeof(LZ4_stream_t) <= WORKSPACE_PACK_STATE, "the compressor's state fits");

uint64_t pack_link_rate(const struct workspace *ws)
{
	struct tcp_info info;
	socklen_t size = sizeof(info);

	memset(&info, 0, sizeof(info));
	if (ms_getsockopt(ws->src->sock, IPPROTO_TCP, TCP_INFO, &info, &size))
		return 0;
	return size >= offsetof(struct tcp_info, tcpi_delivery_rate) + 8 ? info.tcpi_delivery_rate : 0;
}

/* Compresses what is in pack_in and learns from it; bytes of the block, 0: no room. */
static size_t block_make(struct workspace *ws, size_t bytes)
{
	struct pack *p = &ws->pack;
	uint64_t ns = ms_clock_ns(CLOCK_MONOTONIC), fs = 0;
	int n;

	/* The library may have been compiled with a stack protector: its word must not be that of a thread that ends. */
	ms_arch_prctl(ARCH_GET_FS, (unsigned long)&fs);
	ms_arch_prctl(ARCH_SET_FS, (unsigned long)p->thread);
	n = LZ4_compress_fast_extState(ws->pack_state, (char *)ws->pack_in, (char *)ws->pack_out, (int)bytes,
				       (int)bytes, ACCELERATION);
	ms_arch_prctl(ARCH_SET_FS, fs);
	ns = ms_clock_ns(CLOCK_MONOTONIC) - ns;
	p->speed = bytes * 1000000000ull / (ns ? ns : 1);
	p->left_per_16 = n > 0 ? (uint32_t)((uint64_t)n * 16 / bytes) + 1 : 16;
	return n > 0 ? (size_t)n : 0;
}

static size_t gather(struct workspace *ws, const struct iovec *iov, uint32_t count, size_t most)
{
	size_t at = 0;

	for (uint32_t i = 0; i < count && at < most; i++) {
		size_t n = iov[i].iov_len < most - at ? iov[i].iov_len : most - at;

		memcpy(ws->pack_in + at, iov[i].iov_base, n);
		at += n;
	}
	return at;
}

static bool look(struct workspace *ws)
{
	struct pack *p = &ws->pack;
	uint64_t rate = pack_link_rate(ws);
	uint64_t speed = p->speed ? p->speed : SPEED_FIRST;

	/* A limit that people have set is a slow link too. */
	if (ws->mode == PAGES_LIVE && ws->src->limit && (!rate || rate > ws->src->limit))
		rate = ws->src->limit;
	if (!rate || rate > speed / 5 * 4)
		return false;
	block_make(ws, gather(ws, ws->iov + 1, ws->run_count, SAMPLE));
	return p->left_per_16 <= LEFT_MOST && rate < p->speed / 5 * 4;
}

bool pack_pays(struct workspace *ws)
{
	struct pack *p = &ws->pack;

	if (ws->src->pack_never || ws->src->pack_always)
		return ws->src->pack_always;
	if (p->look_in) {
		p->look_in--;
		return p->on;
	}
	p->look_in = LOOK_FRAMES - 1;
	p->on = look(ws);
	return p->on;
}

size_t pack_block(struct workspace *ws, const struct iovec *iov, uint32_t count, size_t bytes)
{
	size_t n = block_make(ws, gather(ws, iov, count, bytes));

	if (!n || n >= bytes)
		return 0;
	ws->pack.packed_bytes += n;
	ws->pack.saved_bytes += bytes - n;
	return n;
}
