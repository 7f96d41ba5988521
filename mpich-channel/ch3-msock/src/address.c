/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>

#include "mpidi_ch3_impl.h"

#include "address.h"

/* The device puts the tag of an MPI port into the same string, so the card keeps to MPL's key#value$ form. */
#define CARD_KEY "msock"
#define JOB_KEY "msjob" /* missing: no job */

int ch3m_address_write_card(const struct sockaddr_in *addr, char *card, int size)
{
	int mpi_errno = MPI_SUCCESS;
	char ip[INET_ADDRSTRLEN];
	char text[INET_ADDRSTRLEN + 8], job[MSOCK_JOB_MAX];

	inet_ntop(AF_INET, &addr->sin_addr, ip, sizeof(ip));
	snprintf(text, sizeof(text), "%s:%u", ip, ntohs(addr->sin_port));
	if (MPL_str_add_string_arg(&card, &size, CARD_KEY, text) != MPL_SUCCESS)
		MPIR_ERR_SETANDJUMP(mpi_errno, MPI_ERR_OTHER, "**buscard_len");
	if (!msock_job(job, sizeof(job)) && *job && MPL_str_add_string_arg(&card, &size, JOB_KEY, job) != MPL_SUCCESS)
		MPIR_ERR_SETANDJUMP(mpi_errno, MPI_ERR_OTHER, "**buscard_len");
fn_fail:
	return mpi_errno;
}

int ch3m_address_read_card(const char *card, struct ch3m_address *addr)
{
	int mpi_errno = MPI_SUCCESS;
	char text[INET_ADDRSTRLEN + 8];
	char *colon, *end;
	long port = 0;

	memset(addr, 0, sizeof(*addr));
	addr->at.sin_family = AF_INET;
	if (MPL_str_get_string_arg(card, CARD_KEY, text, sizeof(text)) != MPL_SUCCESS)
		MPIR_ERR_SETANDJUMP(mpi_errno, MPI_ERR_OTHER, "**buscard");
	colon = strchr(text, ':');
	if (colon) {
		*colon = '\0';
		port = strtol(colon + 1, &end, 10);
	}
	if (port < 1 || port > 65535 || *end || inet_pton(AF_INET, text, &addr->at.sin_addr) != 1)
		MPIR_ERR_SETANDJUMP(mpi_errno, MPI_ERR_OTHER, "**buscard");
	addr->at.sin_port = htons((uint16_t)port);
	if (MPL_str_get_string_arg(card, JOB_KEY, addr->job, sizeof(addr->job)) != MPL_SUCCESS)
		addr->job[0] = '\0';
fn_fail:
	return mpi_errno;
}
