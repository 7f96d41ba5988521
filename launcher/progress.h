/* SPDX-License-Identifier: MIT */
/* progress.h - a move's steps as they come: a line that is drawn again and again, or one JSON object each. */
#ifndef LAUNCHER_PROGRESS_H
#define LAUNCHER_PROGRESS_H

#include "proto/control.pb-c.h"

enum progress_way { PROGRESS_NONE, PROGRESS_BAR, PROGRESS_JSON };

void progress_step(enum progress_way way, const Ms__Step *s);
/* Before anything else is printed: takes the line away. */
void progress_clear(enum progress_way way);

#endif
