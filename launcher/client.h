/* SPDX-License-Identifier: MIT */
/* client.h - how a command-line tool finds its job and talks to the coordinator, one message at a time. */
#ifndef LAUNCHER_CLIENT_H
#define LAUNCHER_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/control.pb-c.h"

struct client;

/* The job that a tool's words name behind its options (getopt's optind), NULL: none. Exits with 2 if there is more. */
const char *client_word(const char *tool, int argc, char **argv);
/* job NULL: the only one that the user has. NULL with one line in why. */
struct client *client_open(const char *job, char *why, size_t size);
void client_close(struct client *c);
const char *client_job(const struct client *c);
int client_send(struct client *c, const Ms__Msg *msg);
/* The next message, to be freed with ms__msg__free_unpacked; NULL: none in time, or the job has ended. */
Ms__Msg *client_receive(struct client *c, int timeout_ms);

/*
 * After a failure: if the coordinator was killed, wait for the one that is started in its place, and call that. False: there is none, or
 * it was no matter of the coordinator's. What was asked for is to be asked again.
 */
bool client_again(struct client *c);
/* Send and receive, once more with another coordinator. */
Ms__Msg *client_ask(struct client *c, const Ms__Msg *msg, int timeout_ms);
/* For MoveRequest.id: never 0. */
uint64_t client_move_id(void);

/* The host is in the job, or joins it now if its name has an address. 0, or -1 with one line in why. */
int client_host(struct client *c, const char *host, char *why, size_t size);
/* The host leaves the job. */
int client_drop(struct client *c, const char *host, char *why, size_t size);

#endif
