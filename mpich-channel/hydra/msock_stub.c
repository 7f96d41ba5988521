/* SPDX-License-Identifier: MIT */
/* msock_stub.c - finding our helper programs, and the stub's place on a rank's command line. */
#include "hydra.h"
#include "bsci.h"
#include "msock.h"

#define HELPERS_FROM_BIN "/../libexec/msock/"

HYD_status HYDT_bscd_msock_helper(const char *name, char **path)
{
	const char *dir = getenv("MSOCK_HELPERDIR");
	char exe[HYD_TMP_STRLEN], full[HYD_TMP_STRLEN * 2];
	ssize_t len;
	HYD_status status = HYD_SUCCESS;

	*path = NULL;
	if (dir && *dir) {
		MPL_snprintf(full, sizeof(full), "%s/%s", dir, name);
	} else {
		len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
		if (len < 0)
			HYDU_ERR_SETANDJUMP(status, HYD_INTERNAL_ERROR, "cannot tell where mpiexec is (%s)\n",
					    MPL_strerror(errno));
		exe[len] = '\0';
		*strrchr(exe, '/') = '\0';
		MPL_snprintf(full, sizeof(full), "%s" HELPERS_FROM_BIN "%s", exe, name);
	}
	*path = MPL_strdup(full);

fn_exit:
	return status;

fn_fail:
	goto fn_exit;
}

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
	HYD_STRING_STASH(*stash, MPL_strdup("--"), status);

fn_exit:
	return status;

fn_fail:
	goto fn_exit;
}
