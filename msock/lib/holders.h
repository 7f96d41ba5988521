/* SPDX-License-Identifier: MIT */
/*
 * holders.h - which other processes have a socket open.
 *
 * The kernel's own tables are asked, by /proc/PID/fd: they are right whatever
 * became of a holder (killed, another program by exec), and cost nothing while
 * nobody asks.  Process numbers here are those of the /proc that is mounted.
 */
#ifndef MSOCK_LIB_HOLDERS_H
#define MSOCK_LIB_HOLDERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

/* We, as /proc has it. */
int holders_self(void);

bool holders_is(uint64_t ino, int pid);

/* A process that descends from us; `number`: where it probably has it. 0: none. */
int holders_below(uint64_t ino, int number);

/* Any other process that we may look at: the lowest number, or 0. */
int holders_anywhere(uint64_t ino);

/* Call for every process; for every descriptor of every other one that we may look at. */
void holders_each(void (*call)(int pid, void *arg), void *arg);
void holders_each_file(void (*call)(int pid, int fd, const struct stat *st, void *arg), void *arg);

#endif
