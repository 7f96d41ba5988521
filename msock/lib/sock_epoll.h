/* SPDX-License-Identifier: MIT */
/*
 * sock_epoll.h - what the program's epoll sets watch of its sockets.
 *
 * The kernel binds a registration to the file under a number, so it is lost
 * when another file is put there.  /proc/self/fdinfo lists what a set watches,
 * also what was registered past the library, and whether a one-shot has fired.
 *
 * No thread of the program runs from note to add.
 */
#ifndef MSOCK_LIB_SOCK_EPOLL_H
#define MSOCK_LIB_SOCK_EPOLL_H

#include <stdbool.h>
#include <sys/epoll.h>

struct sock;

/* The program has made a set; it has duplicated a number; what is there already. */
void sock_epoll_made(int fd);
void sock_epoll_duplicated(int fd);
void sock_epolls_find(void);

/* Note the registrations of the sockets of which wanted() says so; it is given NULL for a UDP socket. 0 or -errno. */
int sock_epolls_note(bool (*wanted)(const struct sock *s));

/* At a freeze the image reads the sets, and tells what it finds of the library's and the program's sockets. 0 or
 * -errno. */
int sock_epoll_watched(int ep, int fd, const struct epoll_event *event);

/* Take out of the sets what was noted: the numbers still have the files that were registered. */
void sock_epolls_remove(void);

/* Put it in again, with the files that the numbers have now. */
void sock_epolls_add(void);

void sock_epolls_forget(void);

#endif
