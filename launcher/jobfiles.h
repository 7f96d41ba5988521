/* SPDX-License-Identifier: MIT */
/* jobfiles.h - what lies in a job's directory, for whoever takes it away. */
#ifndef LAUNCHER_JOBFILES_H
#define LAUNCHER_JOBFILES_H

#include <stdbool.h>

/* The files and the directory. 0, or -1 with errno if the directory stays. */
int jobfiles_remove(const char *dir);
/* Call the job's coordinator: a descriptor, or -1 with errno. */
int jobfiles_dial(const char *dir);
/* The process that job.json names so ("mpiexec" for who started the job, "coordinator"); 0: it names none. */
int jobfiles_pid(const char *dir, const char *who);
bool jobfiles_lives(int pid);

/* The files but coord.sock: who misses that takes the job for ended, and the directory away. */
void jobfiles_clear(const char *dir);

#endif
