/* SPDX-License-Identifier: MIT */
/*
 * codec.h - bounded little-endian encoding for the messages that freestanding
 * code reads and writes.  A put or get beyond the end, or of a string that is
 * too long, sets `bad` and does nothing more; callers test it once at the end.
 */
#ifndef MSOCK_PROTO_CODEC_H
#define MSOCK_PROTO_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ms_codec {
	uint8_t *at;  /* borrowed */
	uint8_t *end; /* one past the last byte */
	bool bad;
};

static inline void ms_codec_init(struct ms_codec *c, void *buf, size_t size)
{
	c->at = buf;
	c->end = c->at + size;
	c->bad = false;
}

static inline uint8_t *ms_codec_skip(struct ms_codec *c, size_t n)
{
	uint8_t *p = c->at;

	if (c->bad || (size_t)(c->end - c->at) < n) {
		c->bad = true;
		return NULL;
	}
	c->at += n;
	return p;
}

static inline void ms_put_uint(struct ms_codec *c, uint64_t v, unsigned bytes)
{
	uint8_t *p = ms_codec_skip(c, bytes);

	for (unsigned i = 0; p && i < bytes; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t ms_get_uint(struct ms_codec *c, unsigned bytes)
{
	const uint8_t *p = ms_codec_skip(c, bytes);
	uint64_t v = 0;

	for (unsigned i = 0; p && i < bytes; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static inline void ms_put_u8(struct ms_codec *c, uint8_t v)
{
	ms_put_uint(c, v, 1);
}
static inline void ms_put_u16(struct ms_codec *c, uint16_t v)
{
	ms_put_uint(c, v, 2);
}
static inline void ms_put_u32(struct ms_codec *c, uint32_t v)
{
	ms_put_uint(c, v, 4);
}
static inline void ms_put_u64(struct ms_codec *c, uint64_t v)
{
	ms_put_uint(c, v, 8);
}
static inline uint8_t ms_get_u8(struct ms_codec *c)
{
	return (uint8_t)ms_get_uint(c, 1);
}
static inline uint16_t ms_get_u16(struct ms_codec *c)
{
	return (uint16_t)ms_get_uint(c, 2);
}
static inline uint32_t ms_get_u32(struct ms_codec *c)
{
	return (uint32_t)ms_get_uint(c, 4);
}
static inline uint64_t ms_get_u64(struct ms_codec *c)
{
	return ms_get_uint(c, 8);
}

static inline void ms_put_bytes(struct ms_codec *c, const void *src, size_t n)
{
	uint8_t *p = ms_codec_skip(c, n);

	for (size_t i = 0; p && i < n; i++)
		p[i] = ((const uint8_t *)src)[i];
}

static inline void ms_get_bytes(struct ms_codec *c, void *dst, size_t n)
{
	const uint8_t *p = ms_codec_skip(c, n);

	for (size_t i = 0; i < n; i++)
		((uint8_t *)dst)[i] = p ? p[i] : 0;
}

/* A string goes as u16 length and its bytes, without the NUL. */
static inline void ms_put_str(struct ms_codec *c, const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	if (n > 0xffff) {
		c->bad = true;
		return;
	}
	ms_put_u16(c, (uint16_t)n);
	ms_put_bytes(c, s, n);
}

/* dst is NUL-terminated whatever happens; a string that does not fit sets bad. */
static inline void ms_get_str(struct ms_codec *c, char *dst, size_t size)
{
	size_t n = ms_get_u16(c);

	dst[0] = 0;
	if (n >= size) {
		c->bad = true;
		return;
	}
	ms_get_bytes(c, dst, n);
	dst[c->bad ? 0 : n] = 0;
}

#endif
