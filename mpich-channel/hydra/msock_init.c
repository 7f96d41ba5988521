/* SPDX-License-Identifier: MIT */
/*
 * msock_init.c - the launcher's entry points.
 *
 * A proxy never leaves the launch host: what it holds of a rank is the
 * rank's stub, and the ranks themselves are started by the daemons that the
 * coordinator has on each host.
 */
#include "hydra.h"
#include "bsci.h"
#include "common.h"
#include "demux.h"
#include "msock.h"
#include <fcntl.h>

/*
 * Rank 0's stub reads mpiexec's standard input itself, at the rank's pace.
 * What Hydra reads it must pass on at once, and it ends the job when a rank
 * is slower than its standard input.  So Hydra gets an empty one.
 */
static int stdin_lend(void)
{
	char number[16];
	int valid = 0, fd, null;

	/* If it was closed the number may be a pipe of Hydra's own by now. */
	if (HYDT_dmx_stdin_valid(&valid) != HYD_SUCCESS || !valid)
		return -1;
	if (isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) != getpgrp())
		return -1; /* in the background: the terminal is not ours to read */
	fd = fcntl(STDIN_FILENO, F_DUPFD, STDERR_FILENO + 1);
	null = open("/dev/null", O_RDONLY);
	if (fd < 0 || null < 0)
		return -1;
	if (null != STDIN_FILENO) {
		dup2(null, STDIN_FILENO);
		close(null);
	}
	MPL_snprintf(number, sizeof(number), "%d", fd);
	setenv(HYDT_BSCD_MSOCK_STDIN, number, 1);
	return fd;
}

static void stdin_lent(int fd)
{
	unsetenv(HYDT_BSCD_MSOCK_STDIN);
	if (fd >= 0)
		close(fd);
}

static HYD_status launch_procs(char **args, struct HYD_proxy *proxy_list, int use_rmk, int *control_fd)
{
	static int launched; /* later calls are for MPI_Comm_spawn */
	const char *launcher = HYDT_bsci_info.launcher;
	int lent;
	HYD_status status;

	/* The nodes are a list of their own: hosts without a rank at the start can be the target of a move. */
	status = HYDT_bscd_msock_coord_start(proxy_list->node, args);
	if (status != HYD_SUCCESS)
		return status;

	/* The common code forks for a launcher of this name and refuses names that it does not know. */
	lent = launched++ ? -1 : stdin_lend();
	HYDT_bsci_info.launcher = "fork";
	status = HYDT_bscd_common_launch_procs(args, proxy_list, use_rmk, control_fd);
	HYDT_bsci_info.launcher = launcher;
	stdin_lent(lent);
	return status;
}

static HYD_status launcher_finalize(void)
{
	HYDT_bscd_msock_coord_stop();
	return HYD_SUCCESS;
}

/* Asked only when the user names no host. */
static HYD_status query_node_list(struct HYD_node **node_list)
{
	return HYDU_add_to_node_list("127.0.0.1", 1, node_list);
}

/* Called twice by mpiexec, with a finalize in between, and once by each proxy. */
HYD_status HYDT_bsci_launcher_msock_init(void)
{
	HYDT_bsci_fns.launch_procs = launch_procs;
	HYDT_bsci_fns.launcher_finalize = launcher_finalize;
	HYDT_bsci_fns.query_node_list = query_node_list;
	HYDT_bsci_fns.wait_for_completion = HYDT_bscd_msock_wait;

	/* All proxies are here and get their control socket by inheritance: nobody else has to reach our ports. */
	MPL_set_listen_attr(1, SOMAXCONN);
	return HYD_SUCCESS;
}

void HYDT_bscd_msock_balance_help(void)
{
	printf("\n");
	printf("-balance {seconds}[:{policy}]: With the launcher msock, look at the load so often and move\n");
	printf("    ranks to where they find processors. Policies: greedy (the default), refine, comm;\n");
	printf("    see msrank-balance(1)\n\n");
}

/* The coordinator looks at it, and says what is wrong with it. */
HYD_status HYDT_bscd_msock_balance(char *arg, char ***argv)
{
	HYD_status status = HYD_SUCCESS;

	if (!**argv)
		HYDU_ERR_SETANDJUMP(status, HYD_FAILURE, "-balance: seconds are missing\n");
	setenv("MSOCK_BALANCE", **argv, 1);
	(*argv)++;

fn_exit:
	return status;

fn_fail:
	goto fn_exit;
}
