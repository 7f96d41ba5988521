/* SPDX-License-Identifier: MIT */
/* tool.h - callers on coord.sock: command-line tools, and stubs until they say so. */
#ifndef LAUNCHER_TOOL_H
#define LAUNCHER_TOOL_H

#include "coord.h"
#include "host.h"

void tool_listen(struct coord *c);
void tool_stats(struct host *h, const Ms__Stats *s);
void tool_host_lost(struct host *h);

#endif
