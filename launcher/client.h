/* SPDX-License-Identifier: MIT */
/* client.h - how a command-line tool finds its job and talks to the coordinator, one message at a time. */
#ifndef LAUNCHER_CLIENT_H
#define LAUNCHER_CLIENT_H

#include <stddef.h>

#include "proto/control.pb-c.h"

struct client;

/* job NULL: the only one that the user has. NULL with one line in why. */
struct client *client_open(const char *job, char *why, size_t size);
void client_close(struct client *c);
const char *client_job(const struct client *c);
int client_send(struct client *c, const Ms__Msg *msg);
/* The next message, to be freed with ms__msg__free_unpacked; NULL: none in time, or the job has ended. */
Ms__Msg *client_receive(struct client *c, int timeout_ms);

#endif
