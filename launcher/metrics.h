/* SPDX-License-Identifier: MIT */
/*
 * metrics.h - the job's figures for Prometheus, in its text format, by HTTP on a Unix socket or a loopback port.
 *
 * Off unless MSOCK_METRICS says where: `unix` for JOB/metrics.sock, or a port of 127.0.0.1, which all users of the launch
 * host can read.
 */
#ifndef LAUNCHER_METRICS_H
#define LAUNCHER_METRICS_H

#include "coord.h"

/* Ends the job if it is asked for and cannot be had. */
void metrics_listen(struct coord *c);

#endif
