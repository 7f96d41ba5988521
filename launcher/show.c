/* SPDX-License-Identifier: MIT */
#include "show.h"

#include <stdio.h>

#include "proto/wire.h"

const char *show_member(uint32_t member, char text[SHOW_TEXT])
{
	snprintf(text, SHOW_TEXT, "%u.%u", MS_MEMBER_WORLD(member), MS_MEMBER_RANK(member));
	return text;
}

const char *show_known(double value, char text[SHOW_TEXT])
{
	if (value < 0)
		return "-";
	snprintf(text, SHOW_TEXT, "%.2f", value);
	return text;
}

const char *show_host_state(const Ms__HostState *h)
{
	if (!h->up)
		return h->starting ? "starting" : "lost";
	return h->silent ? "silent" : "up";
}
