/* SPDX-License-Identifier: MIT */
/* special.h - descriptors that are more than a path: collected after all are listed, see files.c. */
#ifndef MSOCK_IMAGE_SPECIAL_H
#define MSOCK_IMAGE_SPECIAL_H

#include "image/baggage.h"

int special_collect(struct baggage *c, const struct image_source *src, const uint64_t *left_out, char why[IMAGE_WHY]);

/* files.c: this number is not listed, the library makes it again. */
bool baggage_leaves_out(const uint64_t *left_out, const struct image_source *src, int fd);

/* At the target: a descriptor, or -errno. */
int special_pipe_open(struct baggage *c, struct baggage_file *f);
int special_unlinked_open(struct baggage *c, struct baggage_file *f, const struct image_arrival *a, int flags);

/* When every number is in place: epoll sets are filled, helpers closed. */
int special_finish(struct baggage *c, char why[IMAGE_WHY]);

/* After the commit; ends the process if another one has got a lock meanwhile. */
void special_locks_return(struct baggage *c);

/* sockets.c: unix sockets whose other end is the process's own too, with what is queued in them. */
int sockets_collect(struct baggage *c, struct baggage_file *f, char why[IMAGE_WHY]);
int sockets_open(struct baggage *c, struct baggage_file *f); /* a descriptor, or -errno */

#endif
