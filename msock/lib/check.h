/* SPDX-License-Identifier: MIT */
/*
 * check.h - the invariants of doc/protocol.md that one process can see, for tests (MSOCK_CHECK=1).
 */
#ifndef MSOCK_LIB_CHECK_H
#define MSOCK_LIB_CHECK_H

/* Look at every connection; what is wrong ends the process with a message. Lock held. */
void check_all(void);

#endif
