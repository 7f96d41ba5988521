/* SPDX-License-Identifier: MIT */
/* jobfiles.h - what lies in a job's directory, for whoever takes it away. */
#ifndef LAUNCHER_JOBFILES_H
#define LAUNCHER_JOBFILES_H

/* The files and the directory. 0, or -1 with errno if the directory stays. */
int jobfiles_remove(const char *dir);
/* The files but coord.sock: who misses that takes the job for ended, and the directory away. */
void jobfiles_clear(const char *dir);

#endif
