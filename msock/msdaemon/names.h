/* SPDX-License-Identifier: MIT */
/*
 * names.h - the daemon's part in naming: its links to the address servers,
 * what its members serve, what they have asked for and nobody has answered.
 *
 * An address server may end and come back empty, elsewhere: when a link to it
 * comes up, everything that it must know of the members here and every open
 * question is said again.  So a question is answered when there is somebody
 * to answer it; how long the asker waits is its own affair.
 */
#ifndef MSOCK_MSDAEMON_NAMES_H
#define MSOCK_MSDAEMON_NAMES_H

#include "msdaemon/member.h"

/* Where the address servers are now. */
void names_welcome(struct daemon *d, const Ms__Welcome *w);
/* The member's data listener is open (M_SERVING); SERVING_OK follows. */
void names_serving(struct member *m);
/* A question of a member (M_LOOKUP). Asked again with the same number, it replaces what was asked before. */
void names_lookup(struct member *m, uint32_t request, uint32_t virtual_ip, uint64_t newer);
/* The subnets, as D_WELCOME has them. */
void names_put_subnets(struct daemon *d, struct ms_codec *c);
/* The member asks no more, or not here. */
void names_member_gone(struct member *m);

#endif
