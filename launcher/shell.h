/* SPDX-License-Identifier: MIT */
/*
 * shell.h - a child process of the coordinator: a daemon, the remote shell
 * that runs one, or the address server.
 *
 * What our own programs say on stderr is passed on.  What a remote shell says
 * is kept: when its host goes, that only matters if a rank was there.
 */
#ifndef LAUNCHER_SHELL_H
#define LAUNCHER_SHELL_H

#include "allocation.h"

enum { SHELL_LINE = 512 };

struct shell {
	pid_t pid;    /* 0: ended or never started */
	int stdin_fd; /* open as long as we live and want it; -1: none */
	int err_fd;   /* what it says; -1: it has our stderr */
	struct event *readable;
	char line[SHELL_LINE]; /* not yet ended by a newline */
	size_t size;
	char last[SHELL_LINE]; /* the last line of the remote shell itself */
};

/* Starts argv and tells it on stdin what it needs to call back from `ip`. remote: its stderr is watched. 0 or -1. */
int shell_start(struct coord *c, struct shell *s, char *const argv[], uint32_t ip, bool remote);
#define SHELL_WORDS(c) ((c)->launch_count + ALLOCATION_WORDS)
/* The words before a program's that run it on a host; argv has room for SHELL_WORDS(c). Returns how many. */
size_t shell_remote(const struct coord *c, char **argv, char *host);
/*
 * A word of its command, to be freed: a remote shell joins the words with blanks for the sh of the other side, so
 * what is special to that is quoted; srun hands them over as they are.
 */
char *shell_word(const struct coord *c, const char *word, bool remote);
/* The last line that it said for itself, "" if none. */
const char *shell_last_words(struct shell *s);
/* It is to end: says so on its standard input, and closes that. */
void shell_close(struct shell *s);
/* The process has been reaped: close all that is left of it. */
void shell_end(struct shell *s);

#endif
