/* SPDX-License-Identifier: MIT */
/*
 * cutter.h - a hop between a member and a mirror that breaks their link now and then, with all that is under way.
 */
#ifndef TESTS_MSOCK_CUTTER_H
#define TESTS_MSOCK_CUTTER_H

#include <stdint.h>
#include <sys/types.h>

/*
 * A process that listens on ip (host order) for what is to be passed to port
 * `to` there, and breaks that so many times.  It ends when nobody listens at
 * `to` any more, or with the caller.  Returns its port; 0: failed.
 */
uint16_t cutter_start(uint32_t ip, uint16_t to, unsigned cuts, uint64_t seed, pid_t *pid);

#endif
