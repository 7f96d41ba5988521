/* SPDX-License-Identifier: MIT */
#include "image/proc.h"

#include <errno.h>

#include "image/mem.h"
#include "image/say.h"
#include "lib/sys.h"

long proc_read(const char *path, char *buf, size_t size)
{
	int fd = ms_open(path, O_RDONLY | O_CLOEXEC, 0);
	size_t have = 0;
	long n;

	if (fd < 0)
		return fd;
	do {
		n = ms_read(fd, buf + have, size - 1 - have);
		if (n > 0)
			have += (size_t)n;
	} while (n > 0 && have < size - 1);
	ms_close(fd);
	buf[have] = 0;
	if (n < 0)
		return n;
	return have == size - 1 ? -E2BIG : (long)have;
}

uint64_t proc_number(const char **at, unsigned base)
{
	const char *s = *at;
	uint64_t v = 0;

	for (;; s++) {
		unsigned d;

		if (*s >= '0' && *s <= '9')
			d = (unsigned)(*s - '0');
		else if (base == 16 && *s >= 'a' && *s <= 'f')
			d = (unsigned)(*s - 'a') + 10;
		else
			break;
		v = v * base + d;
	}
	*at = s;
	return v;
}

const char *proc_field(const char *text, const char *name)
{
	size_t n = ms_strlen(name);

	while (*text) {
		if (memcmp(text, name, n) == 0 && text[n] == ':') {
			text += n + 1;
			while (*text == ' ' || *text == '\t')
				text++;
			return text;
		}
		while (*text && *text != '\n')
			text++;
		if (*text)
			text++;
	}
	return NULL;
}

struct dirent_head {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

int proc_numbers(const char *dir, int *out, int max)
{
	int fd = ms_open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	_Alignas(8) char buf[4096];
	int count = 0;
	long n;

	if (fd < 0)
		return fd;
	while ((n = ms_getdents(fd, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < n;) {
			struct dirent_head *d = (struct dirent_head *)(buf + at);
			const char *s = d->name;

			at += d->reclen;
			if (*s < '0' || *s > '9')
				continue;
			if (count < max)
				out[count] = (int)proc_number(&s, 10);
			count++;
		}
	}
	ms_close(fd);
	return n < 0 ? (int)n : count;
}

bool proc_is_foreign(void)
{
	char buf[32];
	const char *s = buf;
	long n = ms_readlinkat(AT_FDCWD, "/proc/self", buf, sizeof(buf) - 1);

	if (n <= 0)
		return false;
	buf[n] = 0;
	return (int)proc_number(&s, 10) != ms_getpid();
}

bool proc_map_next(const char **at, struct proc_map *map)
{
	const char *s = *at;

	if (!*s)
		return false;
	map->start = proc_number(&s, 16);
	s++;
	map->end = proc_number(&s, 16);
	s++;
	map->prot = (s[0] == 'r' ? PROT_READ : 0) | (s[1] == 'w' ? PROT_WRITE : 0) | (s[2] == 'x' ? PROT_EXEC : 0);
	map->shared = s[3] == 's';
	s += 5;
	map->offset = proc_number(&s, 16);
	s++;
	map->major = (uint32_t)proc_number(&s, 16);
	s++;
	map->minor = (uint32_t)proc_number(&s, 16);
	s++;
	map->ino = proc_number(&s, 10);
	while (*s == ' ')
		s++;
	map->path = s;
	while (*s && *s != '\n')
		s++;
	map->path_len = (size_t)(s - map->path);
	*at = *s ? s + 1 : s;
	return true;
}

bool proc_map_is(const struct proc_map *map, const char *path)
{
	size_t n = ms_strlen(path);

	return map->path_len == n && memcmp(map->path, path, n) == 0;
}

void proc_memfd_name(const char *path, char *name, size_t size)
{
	static const char before[] = "/memfd:", behind[] = " (deleted)";
	size_t n = ms_strlen(path), from = sizeof(before) - 1, end = n - (sizeof(behind) - 1);

	if (n < from + sizeof(behind) - 1 || memcmp(path, before, from) ||
	    memcmp(path + end, behind, sizeof(behind) - 1)) {
		image_print(name, size, "moved");
		return;
	}
	n = end - from < size ? end - from : size - 1;
	memcpy(name, path + from, n);
	name[n] = 0;
}
