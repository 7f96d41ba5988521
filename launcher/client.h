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

/* The host is in the job, or joins it now if its name has an address. 0, or -1 with one line in why. */
int client_host(struct client *c, const char *host, char *why, size_t size);
/* The host leaves the job. */
int client_drop(struct client *c, const char *host, char *why, size_t size);

#endif
