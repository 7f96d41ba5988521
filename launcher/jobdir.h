/* SPDX-License-Identifier: MIT */
/* jobdir.h - the job's directory: coord.sock, job.json, records.jsonl. */
#ifndef LAUNCHER_JOBDIR_H
#define LAUNCHER_JOBDIR_H

#include <jansson.h>

#include "coord.h"

/* 0, or -1 with the reason in why. */
int jobdir_create(struct coord *c, char *why, size_t size);
int jobdir_write_job(struct coord *c);
/* The commit record: it is in the file before this returns. Takes the reference. */
int jobdir_record(struct coord *c, json_t *record);
void jobdir_remove(struct coord *c);

#endif
