/* SPDX-License-Identifier: MIT */
#include "image/image_needs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <dirent.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proto/codec.h"

enum {
	NEEDS_VERSION = 2,
	NEEDS_MAX = 4 << 20,
	PATH_SIZE = 4096,
	FLAGS_SIZE = 8192,
	HASHED_MAX = 4096,
	MAPPED_TRIES = 50,
	FRESH_NS = 100000000, /* a file may change again within what the kernel's time of change can tell, some 10 ms */
};

enum need_kind {
	NEED_NOTHING,   /* it was closed or removed since */
	NEED_CONTENT,   /* mapped: the same bytes */
	NEED_BEGINNING, /* open for reading: these bytes, and what somebody has added since */
	NEED_SIZE,      /* may be written: the very file has to be there, and may have grown since */
	NEED_NAME,      /* it changes all the time: it has to be there */
};

struct image_needs_file {
	size_t at; /* in the bytes: its kind, its path behind it */
	int fd;    /* the process's descriptor, or -1: it is mapped */
	int held;  /* O_PATH: no other file gets its inode number meanwhile */
	struct timespec changed;
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

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* Hashes that were computed, newest last; a daemon sees some hundred files, and those that are written to again and again. */
static struct hashed {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec changed;
	uint64_t hash;
} * hashed;
static size_t hashed_count, hashed_room;

static const struct hashed *hashed_find(const struct stat *st, off_t size)
{
	for (size_t i = hashed_count; i-- > 0;) {
		const struct hashed *h = &hashed[i];

		if (h->dev == st->st_dev && h->ino == st->st_ino && h->size == size &&
		    same_time(h->changed, st->st_mtim))
			return h;
	}
	return NULL;
}

static void hashed_add(const struct stat *st, off_t size, uint64_t hash)
{
	if (hashed_count == HASHED_MAX)
		hashed_count = 0;
	if (hashed_count == hashed_room) {
		size_t room = hashed_room ? 2 * hashed_room : 64;
		void *p = realloc(hashed, room * sizeof(*hashed));

		if (!p)
			return;
		hashed = p;
		hashed_room = room;
	}
	hashed[hashed_count++] = (struct hashed){ st->st_dev, st->st_ino, size, st->st_mtim, hash };
}

/* Hash of its first bytes, so many if it has them; 0, or an errno value. */
static int file_hash(const char *path, struct stat *st, uint64_t most, uint64_t *hash)
{
	const struct hashed *known;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	off_t size;
	void *p;
	int e = 0;

	if (fd < 0)
		return errno;
	if (fstat(fd, st) || !S_ISREG(st->st_mode)) {
		close(fd);
		return EINVAL;
	}
	size = (uint64_t)st->st_size < most ? st->st_size : (off_t)most;
	known = hashed_find(st, size);
	if (known) {
		*hash = known->hash;
	} else if (size == 0) {
		*hash = 0;
	} else {
		p = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (p == MAP_FAILED) {
			e = errno;
		} else {
			*hash = XXH3_64bits(p, (size_t)size);
			munmap(p, (size_t)size);
			hashed_add(st, size, *hash);
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

struct collect {
	struct ms_codec c;
	struct image_needs_blob *needs;
	char last[PATH_SIZE]; /* put down already: mappings of one library follow each other */
};

static bool is_fresh(const struct stat *st)
{
	struct timespec now;
	int64_t age;

	clock_gettime(CLOCK_REALTIME, &now);
	age = (now.tv_sec - st->st_ctim.tv_sec) * 1000000000LL + now.tv_nsec - st->st_ctim.tv_nsec;
	return age > -FRESH_NS && age < FRESH_NS;
}

/* Room for one more; NULL: no memory. */
static struct image_needs_file *collect_room(struct image_needs_blob *needs)
{
	struct image_needs_file *files = needs->files;

	if (needs->count % 64 == 0)
		files = realloc(files, (needs->count + 64) * sizeof(*files));
	if (!files)
		return NULL;
	needs->files = files;
	return &files[needs->count];
}

/* It has to be there at `path`; here it is `held`, which is taken over. 0, or an errno value. */
static int collect_file(struct collect *x, enum need_kind kind, const char *path, int fd, int held)
{
	struct image_needs_file *f = collect_room(x->needs);
	uint64_t hash = 0;
	struct stat st;
	char here[64];
	int e = 0;

	snprintf(here, sizeof(here), "/proc/self/fd/%d", held);
	if (!f)
		e = ENOMEM;
	else if (fstat(held, &st))
		e = errno;
	else if (is_fresh(&st))
		kind = NEED_NAME;
	else if (kind != NEED_SIZE)
		e = file_hash(here, &st, UINT64_MAX, &hash);
	if (e) {
		close(held);
		return e;
	}
	*f = (struct image_needs_file){ (size_t)(x->c.at - x->needs->bytes), fd, held, st.st_ctim };
	ms_put_u8(&x->c, (uint8_t)kind);
	ms_put_str(&x->c, path);
	ms_put_u64(&x->c, (uint64_t)st.st_size);
	ms_put_u64(&x->c, hash);
	x->needs->count++;
	snprintf(x->last, sizeof(x->last), "%s", path);
	return 0;
}

/* Whether it is mapped still, under the name that it had. */
static bool is_mapped(pid_t pid, const char *file)
{
	char path[64], *line = NULL;
	size_t room = 0;
	ssize_t n;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "re");
	while (f && !found && (n = getline(&line, &room, f)) > 0) {
		const char *name = strchr(line, '/');

		line[n - 1] = 0;
		found = name && strcmp(name, file) == 0;
	}
	free(line);
	if (f)
		fclose(f);
	return found;
}

/*
 * The program goes on: it may have unmapped or removed what had this name, and mapped another file that it calls so.
 * 0, or an errno value.
 */
static int collect_mapped(struct collect *x, pid_t pid, enum need_kind kind, const char *file)
{
	for (int i = 0; i < MAPPED_TRIES; i++) {
		int held = open(file, O_PATH | O_CLOEXEC);

		if (held >= 0)
			return collect_file(x, kind, file, -1, held);
		if (errno != ENOENT)
			return errno;
		if (!is_mapped(pid, file))
			return 0;
	}
	return ENOENT;
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
		if (!file || !mode || strstr(file, " (deleted)") || strncmp(file, "/dev/", 5) == 0 ||
		    strcmp(x->last, file) == 0)
			continue;
		e = collect_mapped(x, pid, mode[4] == 's' ? NEED_SIZE : NEED_CONTENT, file);
		if (e)
			why_set(why, "%s: %s", file, strerror(e));
	}
	free(line);
	fclose(f);
	return e ? -1 : 0;
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

/* The name that a file has now, which is held here by a descriptor. False: none, or it is not a regular one. */
static bool held_file(int held, char file[PATH_SIZE], struct stat *st)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", held);
	n = readlink(path, file, PATH_SIZE - 1);
	if (n <= 0 || file[0] != '/' || fstat(held, st) || !S_ISREG(st->st_mode) || !st->st_nlink)
		return false;
	file[n] = 0;
	return strncmp(file, "/proc/", 6) &&
	       strncmp(file, "/sys/", 5); /* the kernel's, and under other numbers than here */
}

/* The file itself, not what has its name by now. 0, or an errno value. */
static int collect_held(struct collect *x, pid_t pid, const char *fd, int held, char file[PATH_SIZE])
{
	int mode = descriptor_mode(pid, fd);
	struct stat st;

	if (mode >= 0 && held_file(held, file, &st) && strcmp(x->last, file))
		return collect_file(x, mode == O_RDONLY ? NEED_BEGINNING : NEED_SIZE, file, atoi(fd), held);
	close(held);
	return 0;
}

static int collect_descriptors(struct collect *x, pid_t pid, char why[IMAGE_WHY])
{
	char path[300], file[PATH_SIZE];
	struct dirent *d;
	DIR *dir;
	int e = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return why_set(why, "%s: %s", path, strerror(errno));
	while (!e && (d = readdir(dir))) {
		int held;

		snprintf(file, sizeof(file), "descriptor %s", d->d_name);
		snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, d->d_name);
		if (*d->d_name == '.')
			continue;
		held = open(path, O_PATH | O_CLOEXEC);
		if (held >= 0)
			e = collect_held(x, pid, d->d_name, held, file);
		else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
			e = errno; /* else it was closed since */
		if (e)
			why_set(why, "%s: %s", file, strerror(e));
	}
	closedir(dir);
	return e ? -1 : 0;
}

int image_needs_collect(pid_t pid, struct image_needs_blob *needs, char why[IMAGE_WHY])
{
	struct collect *x = calloc(1, sizeof(*x));
	char flags[FLAGS_SIZE], path[64];
	struct utsname uts;
	struct ms_codec count;
	int e;

	*needs = (struct image_needs_blob){ .bytes = malloc(NEEDS_MAX) };
	if (!x || !needs->bytes) {
		free(x);
		image_needs_free(needs);
		return why_set(why, "no memory");
	}
	uname(&uts);
	cpu_flags(flags, sizeof(flags));
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	x->needs = needs;
	ms_codec_init(&x->c, needs->bytes, NEEDS_MAX);
	ms_put_u8(&x->c, NEEDS_VERSION);
	ms_codec_init(&count, ms_codec_skip(&x->c, 4), 4);
	ms_put_str(&x->c, uts.machine);
	ms_put_str(&x->c, flags);
	ms_put_u64(&x->c, proc_kb(path, "VmRSS:") + proc_kb(path, "VmSwap:"));
	e = collect_maps(x, pid, why) || collect_descriptors(x, pid, why) ? -1 : 0;
	if (!e && x->c.bad)
		e = why_set(why, "the process has too many files");
	ms_put_u32(&count, needs->count);
	needs->size = (size_t)(x->c.at - needs->bytes);
	free(x);
	if (e)
		image_needs_free(needs);
	return e;
}

/* Whether the process has this very file still, under this name. */
static bool has_still(const struct image_needs_file *f, pid_t pid, const char *path, struct stat *now)
{
	char link[64], file[PATH_SIZE];
	struct stat open_now;

	if (!held_file(f->held, file, now) || strcmp(file, path))
		return false;
	if (f->fd < 0)
		return is_mapped(pid, path);
	snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)pid, f->fd);
	return stat(link, &open_now) == 0 && open_now.st_dev == now->st_dev && open_now.st_ino == now->st_ino;
}

bool image_needs_holds(struct image_needs_blob *needs, pid_t pid, uint32_t which)
{
	const struct image_needs_file *f;
	char path[PATH_SIZE];
	struct ms_codec c;
	struct stat now;
	uint8_t *kind;

	if (!which || which > needs->count)
		return true;
	f = &needs->files[which - 1];
	kind = needs->bytes + f->at;
	if (*kind == NEED_NOTHING)
		return true;
	ms_codec_init(&c, kind + 1, needs->size - f->at - 1);
	ms_get_str(&c, path, sizeof(path));
	if (!has_still(f, pid, path, &now))
		*kind = NEED_NOTHING;
	else if (*kind != NEED_NAME && !same_time(now.st_ctim, f->changed))
		*kind = NEED_NAME;
	else
		return true;
	return false;
}

void image_needs_free(struct image_needs_blob *needs)
{
	for (uint32_t i = 0; i < needs->count; i++)
		close(needs->files[i].held);
	free(needs->files);
	free(needs->bytes);
	*needs = (struct image_needs_blob){ 0 };
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
	if (c->bad || kind == NEED_NOTHING)
		return 0; /* broken: said by the caller */
	e = kind == NEED_CONTENT || kind == NEED_BEGINNING ? file_hash(path, &st, size, &hash)
	    : stat(path, &st)                              ? errno
							   : 0;
	if (e)
		return why_set(why, "%s here: %s", path, strerror(e));
	if (kind == NEED_NAME)
		return 0;
	if (kind == NEED_CONTENT ? (uint64_t)st.st_size != size : (uint64_t)st.st_size < size)
		return why_set(why, "%s differs here: %lld bytes instead of %llu", path, (long long)st.st_size,
			       (unsigned long long)size);
	if (kind != NEED_SIZE && hash != want)
		return why_set(why, "%s differs here: same size, other content", path);
	return 0;
}

int image_needs_check(const void *bytes, size_t size, uint32_t *which, char why[IMAGE_WHY])
{
	char machine[sizeof(((struct utsname *)0)->machine)], flags[FLAGS_SIZE];
	struct utsname uts;
	struct ms_codec c;
	uint64_t want_kb, have_kb;
	uint32_t count;

	*which = 0;
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
		if (check_file(&c, why)) {
			*which = i + 1;
			return -1;
		}
	return c.bad ? why_set(why, "the source's list of needs is broken") : 0;
}
