/* SPDX-License-Identifier: MIT */
/* member.h - what a test program can ask of the preloaded stand-in for libmsock. */
#ifndef TESTS_IMAGE_MEMBER_H
#define TESTS_IMAGE_MEMBER_H

/* Number of moves so far; grows before any thread goes on. */
extern volatile unsigned member_moves __attribute__((weak));

/* Asks the mover for a move by a line on stdout; returns when it has happened. */
static inline int member_move(void)
{
	unsigned before;

	if (!&member_moves)
		return -1;
	before = member_moves;
	if (write(1, "move\n", 5) != 5)
		return -1;
	while (member_moves == before)
		usleep(200);
	return 0;
}

#endif
