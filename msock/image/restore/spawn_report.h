/* SPDX-License-Identifier: MIT */
/* spawn_report.h - what msrestore's first process tells image_spawn on its pipe, and the numbers they agree on. */
#ifndef MSOCK_IMAGE_SPAWN_REPORT_H
#define MSOCK_IMAGE_SPAWN_REPORT_H

#include "image/image.h"

enum { SPAWN_CONTROL_FD = 3, SPAWN_ALIVE_FD = 4, SPAWN_REPORT_FD = 5 };

/* One write of less than PIPE_BUF; both ends are of one build on one machine. */
struct spawn_report {
	int pid;  /* of the member, in the caller's namespace; 0: it failed */
	int init; /* 0: there is none */
	char why[IMAGE_WHY];
};

#endif
