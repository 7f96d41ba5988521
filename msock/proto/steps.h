/* SPDX-License-Identifier: MIT */
/*
 * steps.h - the steps of a move that its record tells, and at which a fault can be put.
 *
 * Freestanding.  A step is said when it is done, by the one it belongs to, and never waited for.
 */
#ifndef MSOCK_PROTO_STEPS_H
#define MSOCK_PROTO_STEPS_H

#include <stddef.h>
#include <stdint.h>

enum { MS_STEP_FIGURES = 4 };

enum ms_step {
	MS_STEP_NONE,
	/* the coordinator's */
	MS_STEP_ACCEPTED,   /* the request was checked */
	MS_STEP_BEGUN,      /* the target's daemon answers; the source's was told */
	MS_STEP_WANTED,     /* WANT_COMMIT is here, the record is not written yet */
	MS_STEP_RECORDED,   /* the record is written, nobody knows; 1: committed */
	MS_STEP_TOLD_ONE,   /* the target was told, the source not yet */
	MS_STEP_TOLD,       /* both were */
	MS_STEP_RESUMED,    /* threads go on; freeze ns */
	MS_STEP_RELINKED,   /* all streams steady; stall ns, drained, mirrored */
	MS_STEP_UNMIRRORED, /* the mirror has ended; its life ns */
	MS_STEP_REPORTED,   /* 1: committed */
	/* the source's daemon's */
	MS_STEP_COLLECTED, /* what the target must have is known and asked for; bytes of the list */
	MS_STEP_ANSWERED,  /* the target takes it */
	MS_STEP_DIALLED,   /* the image connection is made */
	MS_STEP_ORDERED,   /* the member was told to move */
	MS_STEP_PUMPED,    /* the member is frozen; its pipes' content is on the way */
	MS_STEP_PASSED,    /* IMAGE_SENT was passed on; bytes */
	MS_STEP_LEFT,      /* the record is known, the source's process was told; 1: committed */
	/* the target's daemon's */
	MS_STEP_FIT,     /* what is needed is there */
	MS_STEP_SPAWNED, /* the restorer runs */
	MS_STEP_READY,   /* it has namespaces and an empty memory */
	MS_STEP_CHECKED, /* it has the image, whole and checked; bytes */
	MS_STEP_ASKED,   /* WANT_COMMIT was sent */
	MS_STEP_WOKEN,   /* the record is known, the restorer was told; 1: committed */
	/* the member's, at the source */
	MS_STEP_LOOKED,   /* it can be captured */
	MS_STEP_LAID_OUT, /* the target has mapped its memory and begun to populate it; pages announced */
	MS_STEP_SENDING,  /* in a round that takes long: bytes so far, bytes of the whole estimate, round */
	MS_STEP_ROUND,    /* one more round was sent; bytes, pages, ns, bytes written meanwhile */
	MS_STEP_DRAINED,  /* its streams allow the freeze */
	MS_STEP_PARKED,   /* no thread runs; threads, drained, mirrored */
	MS_STEP_HANDED,   /* the mirror has the legs */
	MS_STEP_BAGGED,   /* the state of the process is in its baggage */
	MS_STEP_SENT,     /* the last byte is in the socket; pages sent, zero, backed by files; faults in the freeze */
	/* the restorer's */
	MS_STEP_ENTERED,  /* clocks and threads are made */
	MS_STEP_SUMMED,   /* the sum is right; pages, zero pages, faults since the freeze, pages compared */
	MS_STEP_PREPARED, /* descriptors, marks and threads are in place */
	MS_STEP_GOING,    /* the outcome is known: becomes the member */
	MS_STEP_COUNT,
};

static inline const char *ms_step_name(enum ms_step step)
{
	static const char names[MS_STEP_COUNT][12] = {
		[MS_STEP_ACCEPTED] = "accepted", [MS_STEP_BEGUN] = "begun",         [MS_STEP_WANTED] = "wanted",
		[MS_STEP_RECORDED] = "recorded", [MS_STEP_TOLD_ONE] = "told-one",   [MS_STEP_TOLD] = "told",
		[MS_STEP_RESUMED] = "resumed",   [MS_STEP_RELINKED] = "relinked",   [MS_STEP_UNMIRRORED] = "unmirrored",
		[MS_STEP_REPORTED] = "reported", [MS_STEP_COLLECTED] = "collected", [MS_STEP_ANSWERED] = "answered",
		[MS_STEP_DIALLED] = "dialled",   [MS_STEP_ORDERED] = "ordered",     [MS_STEP_PUMPED] = "pumped",
		[MS_STEP_PASSED] = "passed",     [MS_STEP_LEFT] = "left",           [MS_STEP_FIT] = "fit",
		[MS_STEP_SPAWNED] = "spawned",   [MS_STEP_READY] = "ready",         [MS_STEP_CHECKED] = "checked",
		[MS_STEP_ASKED] = "asked",       [MS_STEP_WOKEN] = "woken",         [MS_STEP_LOOKED] = "looked",
		[MS_STEP_LAID_OUT] = "laid-out", [MS_STEP_SENDING] = "sending",     [MS_STEP_ROUND] = "round",
		[MS_STEP_DRAINED] = "drained",   [MS_STEP_PARKED] = "parked",       [MS_STEP_HANDED] = "handed",
		[MS_STEP_BAGGED] = "bagged",     [MS_STEP_SENT] = "sent",           [MS_STEP_ENTERED] = "entered",
		[MS_STEP_SUMMED] = "summed",     [MS_STEP_PREPARED] = "prepared",   [MS_STEP_GOING] = "going",
	};

	return step > MS_STEP_NONE && step < MS_STEP_COUNT ? names[step] : "";
}

/* Whose the step is. */
static inline const char *ms_step_actor(enum ms_step step)
{
	return step <= MS_STEP_NONE || step >= MS_STEP_COUNT ? ""
	       : step <= MS_STEP_REPORTED                    ? "coordinator"
	       : step <= MS_STEP_LEFT                        ? "source daemon"
	       : step <= MS_STEP_WOKEN                       ? "target daemon"
	       : step <= MS_STEP_SENT                        ? "member"
							     : "restorer";
}

/* What can be asked for at a step: "ACT@STEP". */
enum ms_fault {
	MS_FAULT_NONE,
	MS_FAULT_DIE,   /* who took the step gets SIGKILL */
	MS_FAULT_CUT,   /* its connection with the other side of the move is shut */
	MS_FAULT_FULL,  /* the coordinator, at any step that it hears of: the job's directory is full from now on */
	MS_FAULT_NOMEM, /* the target's daemon or its restorer: the restorer gets no more memory */
};

static inline enum ms_fault ms_fault_named(char first)
{
	return first == 'd'   ? MS_FAULT_DIE
	       : first == 'c' ? MS_FAULT_CUT
	       : first == 'f' ? MS_FAULT_FULL
	       : first == 'n' ? MS_FAULT_NOMEM
			      : MS_FAULT_NONE;
}

/* A fault "ACT@STEP": its act if it is this step's.  Whoever says a step asks, and heeds the acts that are its own. */
static inline enum ms_fault ms_fault_at(const char *fault, enum ms_step step)
{
	const char *at = fault, *name = ms_step_name(step);

	while (*at && *at != '@')
		at++;
	if (!*at || !*name)
		return MS_FAULT_NONE;
	for (at++; *at && *at == *name; at++)
		name++;
	return *at || *name ? MS_FAULT_NONE : ms_fault_named(*fault);
}

#endif
