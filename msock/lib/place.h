/* SPDX-License-Identifier: MIT */
/*
 * place.h - where a virtual address is reached: what the address server said, kept until it proves wrong.
 */
#ifndef MSOCK_LIB_PLACE_H
#define MSOCK_LIB_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/wire.h"

struct place {
	uint32_t virtual_ip, real_ip, member;
	uint32_t called; /* what we are called in that member's job; 0: as at home */
	uint16_t port;
	uint8_t status; /* enum ms_place */
	uint64_t m;
	uint8_t cookie[MS_TOKEN];
};

/* NULL: not known with an m of at least `newer`. Borrowed until the next place_put. */
const struct place *place_get(uint32_t virtual_ip, uint64_t newer);
void place_put(const struct place *p);

/* The member is not there any more. */
void place_drop(uint32_t virtual_ip);

#endif
