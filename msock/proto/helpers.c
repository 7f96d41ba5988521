/* SPDX-License-Identifier: MIT */
#include "proto/helpers.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef MSOCK_INSTALLED_LIBDIR
#define MSOCK_INSTALLED_LIBDIR "/usr/local/lib"
#endif
#ifndef MSOCK_INSTALLED_HELPERDIR
#define MSOCK_INSTALLED_HELPERDIR "/usr/local/libexec/msock"
#endif

static bool own_dir(char *dir, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", dir, size - 1);
	char *slash;

	if (n <= 0)
		return false;
	dir[n] = 0;
	slash = strrchr(dir, '/');
	if (!slash)
		return false;
	*slash = 0;
	return true;
}

/* dir may be a list with colons. */
static bool join(const char *dir, const char *name, char *path, size_t size)
{
	for (;;) {
		size_t n = strcspn(dir, ":");

		if ((size_t)snprintf(path, size, "%.*s/%s", (int)n, dir, name) < size && !access(path, R_OK))
			return true;
		if (!dir[n])
			return false;
		dir += n + 1;
	}
}

bool helpers_find(const char *program, char *path, size_t size)
{
	const char *wish = getenv("MSOCK_HELPERDIR");
	char dir[PATH_MAX];

	if (wish && *wish && join(wish, program, path, size))
		return true;
	if (own_dir(dir, sizeof(dir)) && join(dir, program, path, size))
		return true;
	return join(MSOCK_INSTALLED_HELPERDIR, program, path, size);
}

bool helpers_library(const char *library, char *path, size_t size)
{
	const char *wish = getenv("MSOCK_LIBDIR");
	char dir[PATH_MAX], lib[PATH_MAX + 16];

	if (wish && *wish && join(wish, library, path, size))
		return true;
	if (own_dir(dir, sizeof(dir))) { /* PREFIX/libexec/msock to PREFIX/lib: an installation may be moved */
		snprintf(lib, sizeof(lib), "%s/../../lib", dir);
		if (join(lib, library, path, size))
			return true;
	}
	return join(MSOCK_INSTALLED_LIBDIR, library, path, size);
}

void helpers_rundir(char *path, size_t size)
{
	static const char *const names[] = { "MSOCK_RUNDIR", "XDG_RUNTIME_DIR", "TMPDIR" };
	const char *base = "/tmp";

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		const char *value = getenv(names[i]);

		if (value && *value) {
			base = value;
			break;
		}
	}
	snprintf(path, size, "%s/msock-%u", base, (unsigned)getuid());
}
