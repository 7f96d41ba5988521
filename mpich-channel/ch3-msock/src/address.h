/* SPDX-License-Identifier: MIT */
/* Business cards: the strings by which ranks find each other's virtual address. */
#ifndef CH3M_ADDRESS_H
#define CH3M_ADDRESS_H

#include <msock.h>
#include <netinet/in.h>

struct ch3m_address {
	struct sockaddr_in at;
	char job[MSOCK_JOB_MAX]; /* the card of the job in which that is; "": none */
};

/* Append this process's address to a string of MPL key-value arguments. Returns an MPI error code. */
int ch3m_address_write_card(const struct sockaddr_in *addr, char *card, int size);

/* Find the address in a business card or a port name. Returns an MPI error code. */
int ch3m_address_read_card(const char *card, struct ch3m_address *addr);

#endif
