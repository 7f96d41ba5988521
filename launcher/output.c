/* SPDX-License-Identifier: MIT */
#include "output.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int failed; /* errno of the first failure */

void output_flush(void)
{
	if ((fflush(stdout) || ferror(stdout)) && !failed)
		failed = errno ? errno : EIO;
}

int output_end(int rc, const char *who, const char *note)
{
	output_flush();
	if (!failed)
		return rc;
	fprintf(stderr, "%s: cannot write to standard output: %s%s\n", who, strerror(failed), note);
	return 1;
}
