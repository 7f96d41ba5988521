/* SPDX-License-Identifier: MIT */
#include "jobdir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"
#include "jobfiles.h"
#include "leftover.h"
#include "proto/helpers.h"
#include "proto/log.h"

enum { FILL_BLOCKS = 4096 }; /* of 4 KiB: a fault fills no directory that has room for more */

/* It must be ours alone. */
static int make_user_dir(const char *dir, char *why, size_t size)
{
	struct stat st;

	if (mkdir(dir, 0700) && errno != EEXIST) {
		snprintf(why, size, "cannot make %s: %s", dir, strerror(errno));
		return -1;
	}
	if (lstat(dir, &st) || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 077) {
		snprintf(why, size, "%s must be a directory of yours with mode 0700", dir);
		return -1;
	}
	return 0;
}

/* The user's directory of jobs. It is told to processes that run elsewhere, as with mpiexec's -wdir: never relative. */
static int find_user_dir(char dir[PATH_MAX], char *why, size_t size)
{
	char name[2048];

	helpers_rundir(name, sizeof(name));
	if (make_user_dir(name, why, size))
		return -1;
	if (name[0] == '/') { /* as it is: a link may be there to make it short enough for a socket */
		strcpy(dir, name);
	} else if (!realpath(name, dir)) {
		snprintf(why, size, "cannot find %s: %s", name, strerror(errno));
		return -1;
	}
	return 0;
}

/* c->dir. */
static int name_dir(struct coord *c, char *why, size_t size)
{
	char parent[PATH_MAX];

	if (find_user_dir(parent, why, size))
		return -1;
	if ((size_t)snprintf(c->dir, sizeof(c->dir), "%s/%s", parent, c->job) < sizeof(c->dir))
		return 0;
	snprintf(why, size, "the job directory's name is too long: %.200s...", parent);
	*c->dir = 0;
	return -1;
}

/* The records go away with the job, unless there is a file to keep them. */
static int keep_records(struct coord *c, char *why, size_t size)
{
	const char *path = getenv("MSOCK_RECORDS");

	if (!path || !*path)
		return 0;
	c->kept_records = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (c->kept_records >= 0)
		return 0;
	snprintf(why, size, "MSOCK_RECORDS: cannot open %s: %s", path, strerror(errno));
	return -1;
}

static int open_file(struct coord *c, const char *name, char *why, size_t size)
{
	char path[4200];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", c->dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		snprintf(why, size, "cannot make %s: %s", path, strerror(errno));
	return fd;
}

static int open_files(struct coord *c, char *why, size_t size)
{
	c->dir_records = open_file(c, "records.jsonl", why, size);
	c->dir_journal = open_file(c, "journal.jsonl", why, size);
	return c->dir_records < 0 || c->dir_journal < 0 ? -1 : keep_records(c, why, size);
}

int jobdir_create(struct coord *c, char *why, size_t size)
{
	if (name_dir(c, why, size))
		return -1;
	if (!mkdir(c->dir, 0700))
		return open_files(c, why, size);
	if (errno != EEXIST)
		snprintf(why, size, "cannot make %s: %s", c->dir, strerror(errno));
	else if (!leftover_take(c->dir, c->job, why, size))
		return open_files(c, why, size);
	*c->dir = 0; /* it is another's */
	return -1;
}

int jobdir_open(struct coord *c, char *why, size_t size)
{
	if (name_dir(c, why, size))
		return -1;
	return open_files(c, why, size);
}

int jobdir_write_job(struct coord *c)
{
	json_t *hosts = json_array(), *job;
	char path[4200], next[4200];
	struct host *h;
	int rc;

	TAILQ_FOREACH(h, &c->hosts, entry)
	if (!h->dropped)
		json_array_append_new(hosts, json_string(h->name));
	job = json_pack("{s:s, s:i, s:i, s:o}", "job", c->job, "mpiexec", (int)getppid(), "coordinator", (int)getpid(),
			"hosts", hosts);
	snprintf(path, sizeof(path), "%s/job.json", c->dir);
	snprintf(next, sizeof(next), "%s/job.next", c->dir);
	rc = job ? json_dump_file(job, next, JSON_COMPACT) : -1;
	if (!rc)
		rc = rename(next, path); /* whoever reads it finds the whole */
	json_decref(job);
	return rc;
}

/* All of it or nothing: half a line would spoil the next one too. */
static int write_line(int fd, const char *line, size_t size)
{
	ssize_t n = write(fd, line, size);
	struct stat st;
	int err = errno;

	if (n == (ssize_t)size)
		return 0;
	if (n > 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) && ftruncate(fd, st.st_size - n))
		log_say(LOG_ERROR, "half a line cannot be taken back: %s", strerror(errno));
	errno = n < 0 ? err : ENOSPC;
	return -1;
}

int jobdir_record(struct coord *c, json_t *record)
{
	const char *outcome = json_string_value(json_object_get(record, "outcome"));
	bool decides = outcome && !strcmp(outcome, "COMMITTED");
	char *line = json_dumps(record, JSON_COMPACT);
	size_t size = line ? strlen(line) : 0;
	int rc = -1;

	json_decref(record);
	if (line) {
		line[size] = '\n'; /* in place of the NUL: one write, one line */
		rc = write_line(c->dir_records, line, size + 1);
	}
	if (rc && !c->records_failed)
		log_say(LOG_ERROR, "cannot write to %s/records.jsonl: %s", c->dir, strerror(errno));
	c->records_failed = rc != 0;
	/* A commit that is not in the job's directory has not been. */
	if (line && !(rc && decides) && c->kept_records >= 0 && write_line(c->kept_records, line, size + 1)) {
		log_say(LOG_ERROR, "cannot write to the file of MSOCK_RECORDS, it ends here: %s", strerror(errno));
		close(c->kept_records);
		c->kept_records = -1;
	}
	free(line);
	return rc;
}

void jobdir_note(struct coord *c, json_t *line)
{
	char *text = json_dumps(line, JSON_COMPACT), path[4200];
	size_t size = text ? strlen(text) : 0;

	json_decref(line);
	if (text)
		text[size] = '\n';
	if (c->dir_journal >= 0 && (!text || write_line(c->dir_journal, text, size + 1))) {
		/* Half of the truth is worse than none: without the file nobody takes over. */
		log_say(LOG_ERROR, "cannot write to %s/journal.jsonl: %s; if the coordinator dies the job ends", c->dir,
			strerror(errno));
		snprintf(path, sizeof(path), "%s/journal.jsonl", c->dir);
		unlink(path);
		close(c->dir_journal);
		c->dir_journal = -1;
	}
	free(text);
}

void jobdir_fill(struct coord *c)
{
	static char block[4096];
	ssize_t n = 1;
	/* Without a name: the room comes back when the coordinator ends. */
	int fd = open(c->dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);

	for (int i = 0; fd >= 0 && n > 0 && i < FILL_BLOCKS; i++)
		n = write(fd, block, sizeof(block));
	if (fd < 0 || n > 0)
		log_say(LOG_ERROR, "%s: cannot be filled: %s", c->dir,
			fd < 0 ? strerror(errno) : "it is on a large file system");
	else
		log_say(LOG_WARN, "%s: fault: it is full", c->dir);
}

void jobdir_remove(struct coord *c)
{
	if (!*c->dir)
		return;
	if (jobfiles_remove(c->dir))
		log_say(LOG_WARN, "cannot remove %s: %s", c->dir, strerror(errno));
	*c->dir = 0;
}
