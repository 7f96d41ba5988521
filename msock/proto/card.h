/* SPDX-License-Identifier: MIT */
/*
 * card.h - a job's card: its name, where its coordinator hears other jobs, and the key that lets them in, as a word of
 * text, "JOB@IP:PORT:KEY".  Whoever has it may join the job with his own, so it is no more public than an MPI port's name.
 */
#ifndef MSOCK_PROTO_CARD_H
#define MSOCK_PROTO_CARD_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/seal.h"
#include "proto/wire.h"

struct card {
	char job[80];
	uint32_t ip; /* host order */
	uint16_t port;
	uint8_t key[SEAL_SECRET];
};

void card_write(const struct card *card, char text[MS_CARD_MAX]);
/* False if it is none; then *card holds nothing of use. */
bool card_read(const char *text, struct card *card);

#endif
