/* SPDX-License-Identifier: MIT */
/*
 * seal.h - both ends of a link prove that they know the job's secret, then
 * seal every frame (X25519 for fresh keys, keyed BLAKE2b, secretstream).
 *
 * Three flights: the caller's greeting, the other's greeting with its proof,
 * the caller's proof; each proof is followed by the sender's stream header.
 * Both are of fixed size, so nothing is parsed before it is authenticated.
 */
#ifndef MSOCK_PROTO_SEAL_H
#define MSOCK_PROTO_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	SEAL_SECRET = 32,
	SEAL_GREETING = 40, /* magic and version 8, public key 32 */
	SEAL_PROOF = 56,    /* MAC 32, stream header 24 */
	SEAL_EXTRA = 17,    /* bytes that sealing adds to a frame */
	SEAL_SHIFT = 1,     /* where in a sealed frame the sealed text begins */
};

struct seal;

/* NULL only if out of memory. secret is copied. */
struct seal *seal_create(const uint8_t secret[SEAL_SECRET], bool caller);
void seal_destroy(struct seal *s);

void seal_greeting(struct seal *s, uint8_t out[SEAL_GREETING]);
int seal_take_greeting(struct seal *s, const uint8_t in[SEAL_GREETING]);
/* After take_greeting; the caller sends its proof only after the other's was taken. */
void seal_proof(struct seal *s, uint8_t out[SEAL_PROOF]);
int seal_take_proof(struct seal *s, const uint8_t in[SEAL_PROOF]);

/* out has size + SEAL_EXTRA bytes. */
void seal_close(struct seal *s, const uint8_t *plain, size_t size, uint8_t *out);
/* plain has size - SEAL_EXTRA bytes and may be in + SEAL_SHIFT. -1: forged, replayed or cut. */
int seal_open(struct seal *s, const uint8_t *in, size_t size, uint8_t *plain);

#endif
