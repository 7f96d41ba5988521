/* SPDX-License-Identifier: MIT */
/* The channel's start and end, and its hooks in the device's objects. */
#include <msock.h>
#include <stddef.h>

#include "address.h"
#include "connection.h"
#include "handshake.h"
#include "listener.h"

/* MPI_T's variables of this channel are always there. */
#define ENABLE_PVAR_MSOCK 1
#define PVAR(name, member, text)                                                                                       \
	MPIR_T_PVAR_COUNTER_REGISTER_DYNAMIC(MSOCK, MPI_UNSIGNED_LONG_LONG, name,                                      \
					     (void *)offsetof(struct msock_stats, member), 1,                          \
					     MPI_T_VERBOSITY_USER_BASIC, MPI_T_BIND_NO_OBJECT,                         \
					     MPIR_T_PVAR_FLAG_READONLY | MPIR_T_PVAR_FLAG_CONTINUOUS, read_pvar, NULL, \
					     "MSOCK", text)

/* Changes when the channel's interface to the device changes. */
char MPIDI_CH3_ABIVersion[] = "1.1";

/* The variable's address is its place in struct msock_stats. */
static void read_pvar(void *place, void *object, int count, void *value)
{
	struct msock_stats stats;

	msock_stats(&stats);
	memcpy(value, (const char *)&stats + (size_t)place, sizeof(unsigned long long));
}

static void register_pvars(void)
{
	static int done;

	if (done)
		return;
	done = TRUE;
	PVAR(msock_moves, moves, "how often this process has moved to another host");
	PVAR(msock_frozen_ns, frozen_ns, "nanoseconds for which it stood still in its moves");
	PVAR(msock_relinks, relinks, "connections that were replaced in its own moves and its peers'");
	PVAR(msock_carried_bytes, carried_bytes, "bytes taken from a connection before it was replaced");
}

int MPIDI_CH3_Init(int has_parent, MPIDI_PG_t *pg, int pg_rank)
{
	int mpi_errno;
	char *card = NULL;
	int card_size;

	mpi_errno = MPIDI_CH3I_Progress_init();
	MPIR_ERR_CHECK(mpi_errno);
	register_pvars();
	mpi_errno = MPIDI_CH3I_BCInit(&card, &card_size);
	MPIR_ERR_CHECK(mpi_errno);
	mpi_errno = MPIDI_CH3_Get_business_card(pg_rank, card, card_size);
	MPIR_ERR_CHECK(mpi_errno);
	mpi_errno = MPIDI_PG_SetConnInfo(pg_rank, card);
fn_fail:
	if (card)
		MPIDI_CH3I_BCFree(card);
	return mpi_errno;
}

int MPIDI_CH3_Finalize(void)
{
	return MPIDI_CH3I_Progress_finalize();
}

int MPIDI_CH3_InitCompleted(void)
{
	return MPI_SUCCESS;
}

int MPIDI_CH3_Get_business_card(int rank, char *card, int size)
{
	return ch3m_address_write_card(ch3m_listener_address(), card, size);
}

int MPIDI_CH3_Get_processor_name(char *name, int size, int *length)
{
	int mpi_errno = MPI_SUCCESS;

	if (msock_hostname(name, (size_t)size) < 0)
		MPIR_ERR_SETANDJUMP(mpi_errno, MPI_ERR_OTHER, "**procnamefailed");
	if (length)
		*length = (int)strlen(name);
fn_fail:
	return mpi_errno;
}

/* Ports are the device's own, made of a tag and the business card. */
int MPIDI_CH3_PortFnsInit(MPIDI_PortFns *port_fns)
{
	return MPI_SUCCESS;
}

int MPIDI_CH3_Connect_to_root(const char *port_name, MPIDI_VC_t **new_vc)
{
	int mpi_errno;
	struct ch3m_address addr;
	int port_tag;
	MPIDI_VC_t *vc;

	mpi_errno = ch3m_address_read_card(port_name, &addr);
	MPIR_ERR_CHECK(mpi_errno);
	mpi_errno = MPIDI_GetTagFromPort(port_name, &port_tag);
	MPIR_ERR_CHECK(mpi_errno);
	vc = MPL_malloc(sizeof(*vc), MPL_MEM_DYNAMIC);
	MPIR_ERR_CHKANDJUMP(!vc, mpi_errno, MPI_ERR_OTHER, "**nomem");
	MPIDI_VC_Init(vc, NULL, 0);
	*new_vc = vc;
	mpi_errno = ch3m_handshake_call_port(vc, &addr, (uint32_t)port_tag);
	MPIR_ERR_CHECK(mpi_errno);
	MPIR_ERR_CHKANDJUMP(vc->ch.state == CH3M_VC_FAILED, mpi_errno, MPI_ERR_PORT, "**ch3|portclose");
fn_fail:
	return mpi_errno;
}

int MPIDI_CH3_VC_Init(MPIDI_VC_t *vc)
{
	vc->ch = (struct ch3m_vc){ .state = CH3M_VC_IDLE };
	return MPI_SUCCESS;
}

int MPIDI_CH3_VC_Destroy(MPIDI_VC_t *vc)
{
	if (vc->ch.conn)
		ch3m_conn_close(vc->ch.conn);
	if (vc->ch.parked)
		ch3m_conn_close(vc->ch.parked);
	return MPI_SUCCESS;
}

int MPIDI_CH3_PG_Init(MPIDI_PG_t *pg)
{
	ch3m_handshake_pg_added();
	return MPI_SUCCESS;
}

int MPIDI_CH3_PG_Destroy(MPIDI_PG_t *pg)
{
	return MPI_SUCCESS;
}

int MPIDI_CH3_Win_fns_init(MPIDI_CH3U_Win_fns_t *win_fns)
{
	return MPI_SUCCESS;
}

int MPIDI_CH3_Win_hooks_init(MPIDI_CH3U_Win_hooks_t *win_hooks)
{
	return MPI_SUCCESS;
}

int MPIDI_CH3_Win_pkt_orderings_init(MPIDI_CH3U_Win_pkt_ordering_t *orderings)
{
	/* A flush follows the operations before it in the same stream. */
	orderings->am_flush_ordered = 1;
	return MPI_SUCCESS;
}

#ifdef MPL_USE_DBG_LOGGING
const char *MPIDI_CH3_VC_GetStateString(struct MPIDI_VC *vc)
{
	static const char *const names[] = {
		[CH3M_VC_IDLE] = "IDLE",
		[CH3M_VC_CONNECTING] = "CONNECTING",
		[CH3M_VC_OPEN] = "OPEN",
		[CH3M_VC_FAILED] = "FAILED",
	};

	return names[vc->ch.state];
}
#endif
