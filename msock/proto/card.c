/* SPDX-License-Identifier: MIT */
#include "proto/card.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/net.h"

enum { KEY_TEXT = 2 * SEAL_SECRET };

void card_write(const struct card *card, char text[MS_CARD_MAX])
{
	char key[KEY_TEXT + 1], ip[NET_IP_TEXT];

	sodium_bin2hex(key, sizeof(key), card->key, sizeof(card->key));
	snprintf(text, MS_CARD_MAX, "%s@%s:%u:%s", card->job, net_text(card->ip, ip), card->port, key);
}

static bool read_key(const char *text, uint8_t key[SEAL_SECRET])
{
	size_t size = 0;
	const char *end = NULL;

	return strlen(text) == KEY_TEXT && !sodium_hex2bin(key, SEAL_SECRET, text, KEY_TEXT, NULL, &size, &end) &&
	       size == SEAL_SECRET && end == text + KEY_TEXT;
}

/* Takes the field of `rest` up to the mark off; NULL: the mark is missing, or the field is empty or too long. */
static const char *take(const char *rest, char mark, char *out, size_t size)
{
	const char *end = strchr(rest, mark);
	size_t n = end ? (size_t)(end - rest) : 0;

	if (n == 0 || n >= size)
		return NULL;
	memcpy(out, rest, n);
	out[n] = 0;
	return end + 1;
}

bool card_read(const char *text, struct card *card)
{
	char ip[NET_IP_TEXT], port[8], *end;
	struct in_addr at;
	long number;

	if (strlen(text) >= MS_CARD_MAX)
		return false;
	text = take(text, '@', card->job, sizeof(card->job));
	text = text ? take(text, ':', ip, sizeof(ip)) : NULL;
	text = text ? take(text, ':', port, sizeof(port)) : NULL;
	if (!text || inet_pton(AF_INET, ip, &at) != 1)
		return false;
	card->ip = ntohl(at.s_addr);
	number = strtol(port, &end, 10);
	if (*end || number < 1 || number > 65535)
		return false;
	card->port = (uint16_t)number;
	return read_key(text, card->key);
}
