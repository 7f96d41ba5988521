/* SPDX-License-Identifier: MIT */
#include "proto/seal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t seal_magic[8] = { 'm', 's', 'l', 'i', 'n', 'k', 0, 1 };

struct seal {
	bool caller;
	uint8_t secret[SEAL_SECRET];
	uint8_t own_public[crypto_kx_PUBLICKEYBYTES];
	uint8_t own_private[crypto_kx_SECRETKEYBYTES];
	uint8_t peer_public[crypto_kx_PUBLICKEYBYTES];
	uint8_t tx_key[32], rx_key[32];
	crypto_secretstream_xchacha20poly1305_state tx, rx;
};

struct seal *seal_create(const uint8_t secret[SEAL_SECRET], bool caller)
{
	struct seal *s = sodium_init() < 0 ? NULL : calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->caller = caller;
	memcpy(s->secret, secret, SEAL_SECRET);
	crypto_kx_keypair(s->own_public, s->own_private);
	return s;
}

void seal_destroy(struct seal *s)
{
	if (!s)
		return;
	sodium_memzero(s, sizeof(*s));
	free(s);
}

void seal_greeting(struct seal *s, uint8_t out[SEAL_GREETING])
{
	memcpy(out, seal_magic, sizeof(seal_magic));
	memcpy(out + sizeof(seal_magic), s->own_public, sizeof(s->own_public));
}

/* A key for one direction: from the secret, the exchanged keys and both public keys, whose order names the ends. */
static void mix(struct seal *s, uint8_t key[32])
{
	crypto_generichash_state h;

	crypto_generichash_init(&h, s->secret, SEAL_SECRET, 32);
	crypto_generichash_update(&h, key, 32);
	crypto_generichash_update(&h, s->caller ? s->own_public : s->peer_public, sizeof(s->own_public));
	crypto_generichash_update(&h, s->caller ? s->peer_public : s->own_public, sizeof(s->own_public));
	crypto_generichash_final(&h, key, 32);
}

int seal_take_greeting(struct seal *s, const uint8_t in[SEAL_GREETING])
{
	int rc;

	if (memcmp(in, seal_magic, sizeof(seal_magic)))
		return -1;
	memcpy(s->peer_public, in + sizeof(seal_magic), sizeof(s->peer_public));
	if (s->caller)
		rc = crypto_kx_client_session_keys(s->rx_key, s->tx_key, s->own_public, s->own_private, s->peer_public);
	else
		rc = crypto_kx_server_session_keys(s->rx_key, s->tx_key, s->own_public, s->own_private, s->peer_public);
	if (rc < 0)
		return -1;
	mix(s, s->rx_key);
	mix(s, s->tx_key);
	sodium_memzero(s->own_private, sizeof(s->own_private));
	return 0;
}

static void mac(const uint8_t key[32], const uint8_t header[24], uint8_t out[32])
{
	crypto_generichash_state h;
	static const char label[] = "msock link proof";

	crypto_generichash_init(&h, key, 32, 32);
	crypto_generichash_update(&h, (const uint8_t *)label, sizeof(label));
	crypto_generichash_update(&h, header, 24);
	crypto_generichash_final(&h, out, 32);
}

void seal_proof(struct seal *s, uint8_t out[SEAL_PROOF])
{
	crypto_secretstream_xchacha20poly1305_init_push(&s->tx, out + 32, s->tx_key);
	mac(s->tx_key, out + 32, out);
}

int seal_take_proof(struct seal *s, const uint8_t in[SEAL_PROOF])
{
	uint8_t want[32];

	mac(s->rx_key, in + 32, want);
	if (sodium_memcmp(want, in, 32))
		return -1;
	return crypto_secretstream_xchacha20poly1305_init_pull(&s->rx, in + 32, s->rx_key);
}

void seal_close(struct seal *s, const uint8_t *plain, size_t size, uint8_t *out)
{
	crypto_secretstream_xchacha20poly1305_push(&s->tx, out, NULL, plain, size, NULL, 0, 0);
}

int seal_open(struct seal *s, const uint8_t *in, size_t size, uint8_t *plain)
{
	if (size < SEAL_EXTRA)
		return -1;
	return crypto_secretstream_xchacha20poly1305_pull(&s->rx, plain, NULL, NULL, in, size, NULL, 0);
}
