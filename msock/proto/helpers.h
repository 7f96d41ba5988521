/* SPDX-License-Identifier: MIT */
/* helpers.h - where the job's programs and libraries lie, installed or in a build tree. */
#ifndef MSOCK_PROTO_HELPERS_H
#define MSOCK_PROTO_HELPERS_H

#include <stdbool.h>
#include <stddef.h>

/* MSOCK_HELPERDIR (directories with colons between them), else the directory of the running program. False if there is
 * no such file. */
bool helpers_find(const char *program, char *path, size_t size);
/* MSOCK_LIBDIR, else where it is installed. False if there is no such file. */
bool helpers_library(const char *library, char *path, size_t size);
/* The directory that holds a user's job directories; not made. */
void helpers_rundir(char *path, size_t size);

#endif
