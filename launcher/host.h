/* SPDX-License-Identifier: MIT */
/* host.h - a host of the job: its msdaemon's start, link and end. */
#ifndef LAUNCHER_HOST_H
#define LAUNCHER_HOST_H

#include "coord.h"
#include "shell.h"

struct host {
	TAILQ_ENTRY(host) entry;
	struct coord *c; /* borrowed */
	char *name;
	uint32_t ip;
	bool local; /* its daemon is our child, not a remote shell */
	struct shell shell;
	struct link *link; /* NULL: not up (yet, or any more) */
	bool lost;
	bool present;        /* it has told a coordinator that was started again what it has */
	bool dropped;        /* left the job: nobody finds it any more; lost, too */
	struct join *join;   /* it is on its way into a running job; owned by join.c */
	struct event *grace; /* its process has ended, the link not yet; pending: it is asked whether it lives */
	uint64_t ping;       /* the number of that question */
	uint16_t mesh_port;
	char *says;
	struct history *history; /* owned; NULL: no sample has come */
};

/* A name twice is one host. */
struct host *host_add(struct coord *c, const char *name);
struct host *host_find(struct coord *c, const char *name);
/* Start its daemon. */
void host_start(struct host *h);
/* It leaves the job; no rank lives there. */
void host_drop(struct host *h);
/* Resolve all, choose our own address. */
void host_resolve_all(struct coord *c);
/* Start daemons, all at once; their links come by host_accept. */
void host_start_all(struct coord *c);
void host_listen(struct coord *c);
bool host_all_up(struct coord *c);
/* Send Welcome to all; again when a master has another place. */
void host_welcome_all(struct coord *c);
void host_send_all(struct coord *c, const Ms__Msg *msg);
/* Its daemon has called, or was called. */
void host_take(struct host *h, struct link *l, const Ms__Hello *hello);
/* Its daemon, link or shell is gone: what was there is lost. */
void host_lost(struct host *h, const char *why);
void host_reaped(struct coord *c, pid_t pid, int status);
/* Its place for others; host is borrowed. */
Ms__Place host_place(const struct host *h);

#endif
