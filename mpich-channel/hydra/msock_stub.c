/* SPDX-License-Identifier: MIT */
/*
 * msock_stub.c - the stub's place on a rank's command line.
 *
 * Part of the proxy only: the linker takes it from the archive there and nowhere else.
 */
#include "hydra.h"
#include "bsci.h"
#include "msock.h"
#include "../../../pm/pmiserv/pmip.h"

/*
 * mpiexec's standard input is for the stub of rank 0 only, and whoever else
 * keeps it open keeps its writer from learning that the rank has ended.
 * Rank 0 is the first that its proxy starts.
 */
static HYD_status stash_stdin(struct HYD_string_stash *stash, int pgid, int rank)
{
	const char *fd = getenv(HYDT_BSCD_MSOCK_STDIN);
	HYD_status status = HYD_SUCCESS;

	if (!fd)
		return HYD_SUCCESS;
	if (pgid == 0 && rank == 0) {
		HYD_STRING_STASH(*stash, MPL_strdup("--stdin"), status);
		HYD_STRING_STASH(*stash, MPL_strdup(fd), status);
	} else {
		close(atoi(fd));
		unsetenv(HYDT_BSCD_MSOCK_STDIN);
	}

fn_exit:
	return status;

fn_fail:
	goto fn_exit;
}

/* Where the rank is bound is found on its host, and again on each that it moves to. */
static HYD_status stash_policy(struct HYD_string_stash *stash, const char *option, const char *chosen, const char *variable)
{
	HYD_status status = HYD_SUCCESS;

	if (!chosen)
		chosen = getenv(variable);
	if (!chosen || !*chosen)
		return HYD_SUCCESS;
	HYD_STRING_STASH(*stash, MPL_strdup(option), status);
	HYD_STRING_STASH(*stash, MPL_strdup(chosen), status);

fn_exit:
	return status;

fn_fail:
	goto fn_exit;
}

HYD_status HYDT_bscd_msock_stash_stub(struct HYD_string_stash *stash, const char *host, int pgid, int rank)
{
	char *stub;
	HYD_status status;

	if (!HYDT_bsci_info.launcher || strcmp(HYDT_bsci_info.launcher, "msock"))
		return HYD_SUCCESS;

	status = HYDT_bscd_msock_helper("msrank-stub", &stub);
	HYDU_ERR_POP(status, "cannot find the rank's stub\n");
	HYD_STRING_STASH(*stash, stub, status);
	HYD_STRING_STASH(*stash, MPL_strdup("--host"), status);
	HYD_STRING_STASH(*stash, MPL_strdup(host), status);
	HYD_STRING_STASH(*stash, MPL_strdup("--world"), status);
	HYD_STRING_STASH(*stash, HYDU_int_to_str(pgid), status);
	status = stash_stdin(stash, pgid, rank);
	HYDU_ERR_POP(status, "cannot pass the standard input on\n");
	status = stash_policy(stash, "--bind", HYD_pmcd_pmip.user_global.binding, "HYDRA_BINDING");
	HYDU_ERR_POP(status, "cannot pass the binding on\n");
	status = stash_policy(stash, "--map", HYD_pmcd_pmip.user_global.mapping, "HYDRA_MAPPING");
	HYDU_ERR_POP(status, "cannot pass the mapping on\n");
	HYD_STRING_STASH(*stash, MPL_strdup("--"), status);

fn_exit:
	return status;

fn_fail:
	goto fn_exit;
}
