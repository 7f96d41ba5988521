/* SPDX-License-Identifier: MIT */
/* msock.h - Hydra's launcher `msock`: proxies are forked here, each rank is started through a stub. */
#ifndef MSOCK_LAUNCHER_H_INCLUDED
#define MSOCK_LAUNCHER_H_INCLUDED

#include "hydra.h"

/*
 * Start the job's coordinator for the hosts of `nodes` and set MSOCK_JOBDIR
 * for whatever is forked from now on.  `proxy_args` is the proxies' command
 * line, where mpiexec's -iface stands.  Does nothing if one runs already.
 */
HYD_status HYDT_bscd_msock_coord_start(struct HYD_node *nodes, char **proxy_args);

/* Wait for the proxies; the coordinator's end is no matter of theirs. */
HYD_status HYDT_bscd_msock_wait(int timeout);

/* Tell the coordinator that the job is over and wait, bounded, until it has cleaned up. */
void HYDT_bscd_msock_coord_stop(void);

/*
 * Full name of one of our helper programs, to be freed with MPL_free: in
 * MSOCK_HELPERDIR if that is set, else in ../libexec/msock as seen from the
 * running program, so that an installed tree may be put anywhere.
 */
HYD_status HYDT_bscd_msock_helper(const char *name, char **path);

/* In the environment of the proxies: the number under which they inherit mpiexec's standard input. */
#define HYDT_BSCD_MSOCK_STDIN "MSOCK_STDIN_FD"

/* mpiexec's option -balance S[:POLICY]: the coordinator is told by its environment. */
HYD_status HYDT_bscd_msock_balance(char *arg, char ***argv);
void HYDT_bscd_msock_balance_help(void);

/* Put the rank's stub in front of its command line.  Does nothing for other launchers. */
HYD_status HYDT_bscd_msock_stash_stub(struct HYD_string_stash *stash, const char *host, int pgid, int rank);

#endif /* MSOCK_LAUNCHER_H_INCLUDED */
