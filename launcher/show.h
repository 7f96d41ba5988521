/* SPDX-License-Identifier: MIT */
/* show.h - how tools write what the coordinator answers. */
#ifndef LAUNCHER_SHOW_H
#define LAUNCHER_SHOW_H

#include <stdint.h>

#include "proto/control.pb-c.h"

enum { SHOW_TEXT = 32 };

/* WORLD.RANK, into text. */
const char *show_member(uint32_t member, char text[SHOW_TEXT]);
/* Two digits behind the point, into text; "-" for a negative value, which stands for what is not known. */
const char *show_known(double value, char text[SHOW_TEXT]);
const char *show_host_state(const Ms__HostState *h);

#endif
