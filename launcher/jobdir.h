/* SPDX-License-Identifier: MIT */
/* jobdir.h - the job's directory: coord.sock, job.json, journal.jsonl, records.jsonl. */
#ifndef LAUNCHER_JOBDIR_H
#define LAUNCHER_JOBDIR_H

#include <jansson.h>

#include "coord.h"

/* 0, or -1 with the reason in why. */
int jobdir_create(struct coord *c, char *why, size_t size);
/* The same for one that is there: of a coordinator that was killed. */
int jobdir_open(struct coord *c, char *why, size_t size);
int jobdir_write_job(struct coord *c);
/* The commit record: it is in the file before this returns. Takes the reference. */
int jobdir_record(struct coord *c, json_t *record);
/* A line for a coordinator that comes after us (journal.h). Takes the reference. */
void jobdir_note(struct coord *c, json_t *line);
/* A fault: nothing more can be written in the directory, which must be on a small file system of its own. */
void jobdir_fill(struct coord *c);
void jobdir_remove(struct coord *c);

#endif
