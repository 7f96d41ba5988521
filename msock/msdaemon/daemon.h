/* SPDX-License-Identifier: MIT */
/* daemon.h - what the parts of msdaemon share: one daemon, on one host, for one job. */
#ifndef MSOCK_MSDAEMON_DAEMON_H
#define MSOCK_MSDAEMON_DAEMON_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <time.h>

#include "image/image.h"
#include "proto/link.h"
#include "proto/seal.h"
#include "proto/steps.h"
#include "proto/wire.h"

LIST_HEAD(member_list, member);
LIST_HEAD(mirror_list, mirror);
LIST_HEAD(peer_list, peer);
LIST_HEAD(route_list, route);
LIST_HEAD(farewell_list, farewell);
LIST_HEAD(standin_list, standin);
LIST_HEAD(names_master_list, names_master);
TAILQ_HEAD(names_question_list, names_question);

struct daemon {
	struct event_base *base;
	uint8_t secret[SEAL_SECRET];
	char host[256];
	char job[80];
	char card[MS_CARD_MAX]; /* of this job, for others */
	uint32_t ip;            /* real address of this host */
	uint16_t mesh_port;
	uint16_t port_low, port_high;     /* 0 0: any */
	struct link *coordinator;         /* NULL: it is gone, the next one will call (orphan.h) */
	struct names_master_list masters; /* address servers, one a subnet */
	struct names_question_list questions;
	unsigned question_count;
	struct member_list members; /* that live here, come, or leave */
	struct member_list gone;    /* that live elsewhere now; their process is to be reaped */
	struct farewell_list farewells;
	struct standin_list standins;
	struct mirror_list mirrors;
	struct peer_list peers;
	struct route_list routes;
	uint64_t relays; /* relink messages sent on or delivered */
	struct image_place place;
	bool probed;
	bool ending;
	bool last;             /* no coordinator comes after the present one */
	struct orphan *orphan; /* owned; NULL: nothing has happened yet */
	struct event *stdin_ended;
	char restore_path[4096]; /* "" : not to be had */
	char mirror_path[4096];
	char standin_path[4096];
	char preload_path[4096];
	const char *fault; /* MSOCK_FAULT or "" */
};

/* Kill everything, wait for it, and end. Does not return. */
void daemon_end(struct daemon *d, int code) __attribute__((noreturn));
/* Ask the coordinator for ABORTED. */
void daemon_want_abort(struct daemon *d, uint32_t member, uint64_t m, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
uint64_t daemon_clock_ns(clockid_t clock);
/* Says a step that is done; then the fault that was asked for here. `also`: what waits on that link goes first, too. */
void daemon_step(struct daemon *d, uint32_t member, uint64_t m, enum ms_step step, const char *fault, struct link *also,
		 uint64_t figure);
void daemon_progress(struct daemon *d, const Ms__Progress *p);
/* "0.2" */
const char *daemon_member_text(uint32_t member, char text[24]);

#endif
