/* SPDX-License-Identifier: MIT */
#include "image/image_needs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <dirent.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/codec.h"

enum { NEEDS_VERSION = 1, NEEDS_MAX = 4 << 20, PATH_SIZE = 4096, FLAGS_SIZE = 8192 };

enum need_kind {
	NEED_CONTENT = 1, /* mapped, or open for reading: the same bytes */
	NEED_SIZE,        /* may be written: the very file has to be there, and may have grown since */
};

static int why_set(char why[IMAGE_WHY], const char *format, ...) __attribute__((format(printf, 2, 3)));

static int why_set(char why[IMAGE_WHY], const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(why, IMAGE_WHY, format, ap);
	va_end(ap);
	return -1;
}

/* Hashes that were computed, newest last; a daemon sees some hundred files. */
static struct hashed {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec changed;
	uint64_t hash;
} * hashed;
static size_t hashed_count, hashed_room;

static const struct hashed *hashed_find(const struct stat *st)
{
	for (size_t i = hashed_count; i-- > 0;) {
		const struct hashed *h = &hashed[i];

		if (h->dev == st->st_dev && h->ino == st->st_ino && h->size == st->st_size &&
		    h->changed.tv_sec == st->st_mtim.tv_sec && h->changed.tv_nsec == st->st_mtim.tv_nsec)
			return h;
	}
	return NULL;
}

static void hashed_add(const struct stat *st, uint64_t hash)
{
	if (hashed_count == hashed_room) {
		size_t room = hashed_room ? 2 * hashed_room : 64;
		void *p = realloc(hashed, room * sizeof(*hashed));

		if (!p)
			return;
		hashed = p;
		hashed_room = room;
	}
	hashed[hashed_count++] = (struct hashed){ st->st_dev, st->st_ino, st->st_size, st->st_mtim, hash };
}

/* Hash of the content; 0, or an errno value. */
static int file_hash(const char *path, struct stat *st, uint64_t *hash)
{
	const struct hashed *known;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	void *p;
	int e = 0;

	if (fd < 0)
		return errno;
	if (fstat(fd, st) || !S_ISREG(st->st_mode)) {
		close(fd);
		return EINVAL;
	}
	known = hashed_find(st);
	if (known) {
		*hash = known->hash;
	} else if (st->st_size == 0) {
		*hash = 0;
	} else {
		p = mmap(NULL, (size_t)st->st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (p == MAP_FAILED) {
			e = errno;
		} else {
			*hash = XXH3_64bits(p, (size_t)st->st_size);
			munmap(p, (size_t)st->st_size);
			hashed_add(st, *hash);
		}
	}
	close(fd);
	return e;
}

/* The processor's flags, as /proc/cpuinfo lists them. */
static void cpu_flags(char *flags, size_t size)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char *line = NULL;
	size_t room = 0;

	flags[0] = 0;
	while (f && getline(&line, &room, f) > 0) {
		char *value = strchr(line, ':');

		if (!value || strncmp(line, "flags", 5))
			continue;
		value[strcspn(value, "\n")] = 0;
		snprintf(flags, size, "%s ", value + 1);
		break;
	}
	free(line);
	if (f)
		fclose(f);
}

/* Flags that are the kernel's choice or invisible to programs say nothing about where they can run. */
static int flag_matters(const char *flag, size_t n)
{
	static const char *const prefix[] = { "sse",    "ssse3",      "avx",     "amx",       "aes",      "vaes",
					      "bmi",    "fma",        "f16c",    "sha",       "gfni",     "pni",
					      "popcnt", "movbe",      "adx",     "rdrand",    "rdseed",   "abm",
					      "cx16",   "pclmul",     "vpclmul", "xsave",     "fsgsbase", "erms",
					      "fsrm",   "lahf",       "movdir",  "serialize", "rtm",      "hle",
					      "clwb",   "clflushopt", "rdpid",   "tbm",       "xop",      "lzcnt",
					      "mmx",    "fxsr",       "cmov",    "rdtscp",    "waitpkg",  "cldemote" };

	for (size_t i = 0; i < sizeof(prefix) / sizeof(prefix[0]); i++)
		if (n >= strlen(prefix[i]) && memcmp(flag, prefix[i], strlen(prefix[i])) == 0)
			return 1;
	return 0;
}

static uint64_t proc_kb(const char *path, const char *name)
{
	FILE *f = fopen(path, "re");
	char line[256];
	uint64_t kb = 0;

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, name, strlen(name)) == 0) {
			kb = strtoull(line + strlen(name), NULL, 10);
			break;
		}
	if (f)
		fclose(f);
	return kb;
}

/* Files that were put down already: mappings of one library follow each other. */
struct collect {
	struct ms_codec c;
	uint32_t count;
	char last[PATH_SIZE];
};

static int collect_file(struct collect *x, enum need_kind kind, const char *path, char why[IMAGE_WHY])
{
	struct stat st;
	uint64_t hash = 0;
	int e;

	if (strcmp(x->last, path) == 0)
		return 0;
	snprintf(x->last, sizeof(x->last), "%s", path);
	e = kind == NEED_CONTENT ? file_hash(path, &st, &hash) : stat(path, &st) ? errno : 0;
	if (e)
		return why_set(why, "%s: %s", path, strerror(e));
	ms_put_u8(&x->c, (uint8_t)kind);
	ms_put_str(&x->c, path);
	ms_put_u64(&x->c, (uint64_t)st.st_size);
	ms_put_u64(&x->c, hash);
	x->count++;
	return 0;
}

static int collect_maps(struct collect *x, pid_t pid, char why[IMAGE_WHY])
{
	char path[64], *line = NULL;
	size_t room = 0;
	ssize_t n;
	FILE *f;
	int e = 0;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return why_set(why, "%s: %s", path, strerror(errno));
	while (!e && (n = getline(&line, &room, f)) > 0) {
		char *file = strchr(line, '/');
		const char *mode = strchr(line, ' ');

		line[n - 1] = 0;
		/* What cannot move at all is refused by the member's own check, which has words for it. */
		if (!file || !mode || strstr(file, " (deleted)") || strncmp(file, "/dev/", 5) == 0)
			continue;
		e = collect_file(x, mode[4] == 's' ? NEED_SIZE : NEED_CONTENT, file, why);
	}
	free(line);
	fclose(f);
	return e;
}

/* Access mode of a descriptor, from fdinfo; -1 if it is O_PATH or not to be had. */
static int descriptor_mode(pid_t pid, const char *fd)
{
	char path[300], line[256];
	unsigned long flags = O_PATH;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", (int)pid, fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "flags: %lo", &flags) == 1)
			break;
	if (f)
		fclose(f);
	return flags & O_PATH ? -1 : (int)(flags & O_ACCMODE);
}

static int collect_descriptors(struct collect *x, pid_t pid, char why[IMAGE_WHY])
{
	char path[300], file[PATH_SIZE];
	struct dirent *d;
	struct stat st;
	DIR *dir;
	int e = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return why_set(why, "%s: %s", path, strerror(errno));
	while (!e && (d = readdir(dir))) {
		int mode;
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, d->d_name);
		n = readlink(path, file, sizeof(file) - 1);
		if (n <= 0 || file[0] != '/' || stat(path, &st) || !S_ISREG(st.st_mode) || !st.st_nlink)
			continue;
		file[n] = 0;
		if (strncmp(file, "/proc/", 6) == 0 || strncmp(file, "/sys/", 5) == 0)
			continue; /* the kernel's, and under other numbers than here */
		mode = descriptor_mode(pid, d->d_name);
		if (mode >= 0)
			e = collect_file(x, mode == O_RDONLY ? NEED_CONTENT : NEED_SIZE, file, why);
	}
	closedir(dir);
	return e;
}

int image_needs_collect(pid_t pid, struct image_needs_blob *needs, char why[IMAGE_WHY])
{
	struct collect *x = calloc(1, sizeof(*x));
	uint8_t *bytes = malloc(NEEDS_MAX);
	char flags[FLAGS_SIZE], path[64];
	struct utsname uts;
	struct ms_codec count;
	int e;

	needs->bytes = bytes;
	needs->size = 0;
	if (!x || !bytes) {
		free(x);
		image_needs_free(needs);
		return why_set(why, "no memory");
	}
	uname(&uts);
	cpu_flags(flags, sizeof(flags));
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	ms_codec_init(&x->c, bytes, NEEDS_MAX);
	ms_put_u8(&x->c, NEEDS_VERSION);
	ms_codec_init(&count, ms_codec_skip(&x->c, 4), 4);
	ms_put_str(&x->c, uts.machine);
	ms_put_str(&x->c, flags);
	ms_put_u64(&x->c, proc_kb(path, "VmRSS:") + proc_kb(path, "VmSwap:"));
	e = collect_maps(x, pid, why) || collect_descriptors(x, pid, why) ? -1 : 0;
	if (!e && x->c.bad)
		e = why_set(why, "the process has too many files");
	ms_put_u32(&count, x->count);
	needs->size = (size_t)(x->c.at - bytes);
	free(x);
	if (e)
		image_needs_free(needs);
	return e;
}

void image_needs_free(struct image_needs_blob *needs)
{
	free(needs->bytes);
	needs->bytes = NULL;
	needs->size = 0;
}

static int check_flags(const char *want, char why[IMAGE_WHY])
{
	char have[FLAGS_SIZE], padded[80];

	cpu_flags(have, sizeof(have));
	for (const char *s = want; *s;) {
		size_t n = strcspn(s, " ");

		snprintf(padded, sizeof(padded), " %.*s ", (int)n, s);
		if (n && flag_matters(s, n) && !strstr(have, padded))
			return why_set(why, "the processor here lacks %.*s", (int)n, s);
		s += n + (s[n] == ' ');
	}
	return 0;
}

static int check_file(struct ms_codec *c, char why[IMAGE_WHY])
{
	char path[PATH_SIZE];
	uint8_t kind = ms_get_u8(c);
	uint64_t size, want, hash = 0;
	struct stat st;
	int e;

	ms_get_str(c, path, sizeof(path));
	size = ms_get_u64(c);
	want = ms_get_u64(c);
	if (c->bad)
		return 0; /* said by the caller */
	e = kind == NEED_CONTENT ? file_hash(path, &st, &hash) : stat(path, &st) ? errno : 0;
	if (e)
		return why_set(why, "%s here: %s", path, strerror(e));
	if (kind == NEED_SIZE ? (uint64_t)st.st_size < size : (uint64_t)st.st_size != size)
		return why_set(why, "%s differs here: %lld bytes instead of %llu", path, (long long)st.st_size,
			       (unsigned long long)size);
	if (kind == NEED_CONTENT && hash != want)
		return why_set(why, "%s differs here: same size, other content", path);
	return 0;
}

int image_needs_check(const void *bytes, size_t size, char why[IMAGE_WHY])
{
	char machine[sizeof(((struct utsname *)0)->machine)], flags[FLAGS_SIZE];
	struct utsname uts;
	struct ms_codec c;
	uint64_t want_kb, have_kb;
	uint32_t count;

	ms_codec_init(&c, (void *)bytes, size);
	if (ms_get_u8(&c) != NEEDS_VERSION)
		return why_set(why, "the source's daemon is of another version");
	count = ms_get_u32(&c);
	ms_get_str(&c, machine, sizeof(machine));
	ms_get_str(&c, flags, sizeof(flags));
	want_kb = ms_get_u64(&c);
	uname(&uts);
	if (c.bad)
		return why_set(why, "the source's list of needs is broken");
	if (strcmp(machine, uts.machine))
		return why_set(why, "this host is %s, not %s", uts.machine, machine);
	if (check_flags(flags, why))
		return -1;
	have_kb = proc_kb("/proc/meminfo", "MemAvailable:");
	if (have_kb < want_kb + 16384)
		return why_set(why, "not enough memory: %llu MB are wanted, %llu are free",
			       (unsigned long long)want_kb / 1024, (unsigned long long)have_kb / 1024);
	for (uint32_t i = 0; i < count && !c.bad; i++)
		if (check_file(&c, why))
			return -1;
	return c.bad ? why_set(why, "the source's list of needs is broken") : 0;
}
