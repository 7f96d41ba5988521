/* SPDX-License-Identifier: MIT */
/* proc.h - reading /proc without the C library. */
#ifndef MSOCK_IMAGE_PROC_H
#define MSOCK_IMAGE_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whole file, NUL-terminated; its length, or -errno (-E2BIG if it does not fit). */
long proc_read(const char *path, char *buf, size_t size);

/* Parse a number and step over it; `base` 10 or 16. */
uint64_t proc_number(const char **at, unsigned base);

/* Value of a "Name:\t..." line of a status-like text, or NULL. */
const char *proc_field(const char *text, const char *name);

/*
 * Numbers in a directory such as /proc/self/task, in the kernel's order.
 * Returns how many there are (more than `max`: the rest is not stored), or -errno.
 */
int proc_numbers(const char *dir, int *out, int max);

/* True if /proc belongs to another pid namespace than ours: its numbers are not ours. */
bool proc_is_foreign(void);

/* One line of maps. */
struct proc_map {
	uint64_t start, end, offset, ino;
	uint32_t major, minor;
	int prot; /* PROT_ */
	bool shared;
	const char *path; /* into the line, not terminated: path_len bytes */
	size_t path_len;
};

/* Parse the line at *at, step to the next one; false at the end. */
bool proc_map_next(const char **at, struct proc_map *map);

bool proc_map_is(const struct proc_map *map, const char *path);

/* The name in "/memfd:NAME (deleted)"; of other paths "moved". */
void proc_memfd_name(const char *path, char *name, size_t size);

#endif
