/* SPDX-License-Identifier: MIT */
/* The list of mappings: which of them are in the image, and as what. */
#include <errno.h>
#include <sys/sysmacros.h>

#include "image/image_entry.h"
#include "image/proc.h"
#include "image/say.h"
#include "image/workspace.h"

enum {
	AREAS_TRIES = 100,
	AREAS_CLOCKS_S = 5, /* by which clocks may differ */
	AREA_GONE = 1,      /* what is mapped was there when the list was read, and is not now */
};

static bool path_begins(const char *path, const char *with)
{
	while (*with)
		if (*path++ != *with++)
			return false;
	return true;
}

static bool path_ends(const char *path, const char *with)
{
	size_t n = ms_strlen(path), k = ms_strlen(with);

	return n >= k && ms_streq(path + n - k, with);
}

/* The kernel writes a newline in a path as \012; nothing else is escaped. */
static void path_unescape(char *path)
{
	char *to = path;

	for (const char *s = path; *s; s++) {
		if (s[0] == '\\' && s[1] == '0' && s[2] == '1' && s[3] == '2') {
			*to++ = '\n';
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

void areas_name(const struct image_area *a, char *buf, size_t size)
{
	image_print(buf, size, "%s at %x-%x", a->path[0] ? a->path : "memory", a->start, a->end);
}

static int area_refuse(struct workspace *ws, const struct image_area *a, const char *what)
{
	char name[160];

	areas_name(a, name, sizeof(name));
	return image_say(ws->why, "mapping %s: %s", name, what);
}

/*
 * A file that was made since the list was read that the target knows may have taken the name, the place and even the
 * inode number of one that was mapped then.  Its time of change tells of the doubt, which is as good as its server's
 * clock.  A mapping that was in doubt when that list was read is not tracked (areas_read_announced); so one that is, is the
 * one that was there then, of a file that was not in doubt, whatever has been written to it since.
 */
static bool area_is_young(const struct workspace *ws, const struct stat *st)
{
	return ws->listed_s && st->st_ctim.tv_sec >= ws->listed_s - AREAS_CLOCKS_S;
}

static int area_of_file(struct workspace *ws, struct image_area *a, bool shared)
{
	bool deleted = path_ends(a->path, " (deleted)");
	struct stat st;
	int e;

	if (path_begins(a->path, "/SYSV") || (shared && path_begins(a->path, "/anon_hugepage")))
		return area_refuse(ws, a, "shared memory");
	if (path_begins(a->path, "/dev/shm/") && !deleted)
		return area_refuse(ws, a, "shared memory");
	if (deleted && shared) {
		/* What is behind its end cannot be read. */
		a->kind = IMAGE_AREA_OBJECT;
		a->flags |= IMAGE_AREA_WHOLE;
		return 0;
	}
	if (deleted) {
		/* An old version of a library, say: all of it travels, as memory. */
		a->kind = IMAGE_AREA_ANON;
		a->flags |= IMAGE_AREA_WHOLE;
		a->path = "";
		return 0;
	}
	e = ms_fstatat(AT_FDCWD, a->path, &st, 0);
	if (e) {
		image_say(ws->why, "mapping of %s: %e", a->path, e);
		return e == -ENOENT ? AREA_GONE : -1;
	}
	if (!S_ISREG(st.st_mode))
		return area_refuse(ws, a, "not a regular file");
	a->file_size = (uint64_t)st.st_size;
	a->young = area_is_young(ws, &st);
	a->kind = shared ? IMAGE_AREA_SHARED_FILE : IMAGE_AREA_FILE;
	return 0;
}

/* Sets kind and flags; kind 0: not in the image. 0, -1, or AREA_GONE. */
static int area_classify(struct workspace *ws, struct image_area *a, bool shared)
{
	const char *path = a->path;

	if (ms_streq(path, "[vsyscall]"))
		return 0;
	if (ms_streq(path, "[vdso]")) {
		a->kind = IMAGE_AREA_VDSO;
	} else if (ms_streq(path, "[vvar]") || ms_streq(path, "[vvar_vclock]")) {
		a->kind = IMAGE_AREA_VVAR;
	} else if (!shared && (!path[0] || ms_streq(path, "[heap]") || path_begins(path, "[anon:"))) {
		a->kind = IMAGE_AREA_ANON;
	} else if (!shared && path_begins(path, "[stack")) {
		a->kind = IMAGE_AREA_ANON;
		a->flags |= IMAGE_AREA_GROWSDOWN;
	} else if (shared && (ms_streq(path, "/dev/zero (deleted)") || path_begins(path, "[anon_shmem:"))) {
		a->kind = IMAGE_AREA_SHARED_ANON;
	} else if (path[0] == '/' && !path_begins(path, "/dev/zero")) {
		return area_of_file(ws, a, shared);
	} else {
		return area_refuse(ws, a, "this kind of memory cannot move");
	}
	if (a->kind == IMAGE_AREA_ANON || a->kind == IMAGE_AREA_SHARED_ANON)
		a->path = "";
	return 0;
}

/*
 * Only the piece with the first frame is called [stack].  What lies right
 * below belongs to it: it was split off when part of the stack was tracked,
 * and the kernel lets nothing else come so near.
 */
static void stack_join(struct workspace *ws, struct image_area *stack)
{
	while (ws->area_count) {
		const struct image_area *below = &ws->areas[ws->area_count - 1];

		if (below->kind != IMAGE_AREA_ANON || below->end != stack->start || below->prot != stack->prot)
			return;
		stack->start = below->start;
		ws->area_count--;
	}
}

static int area_add(struct workspace *ws, struct image_area *a, const struct proc_map *map)
{
	struct image_area *out = &ws->areas[ws->area_count];

	if (ws->area_count == IMAGE_AREAS_MAX)
		return image_say(ws->why, "more than %d mappings", IMAGE_AREAS_MAX);
	if (a->start >= a->end)
		return 0;
	if (a->kind == IMAGE_AREA_FILE || a->kind == IMAGE_AREA_SHARED_FILE || image_area_is_shared(a))
		a->offset = map->offset + (a->start - map->start);
	else
		a->offset = 0;
	*out = *a;
	out->advice = advice_of(ws, a->start, a->end);
	ws->area_count++;
	return 0;
}

/* The parts of the mapping that are neither workspace nor restorer. */
static int area_add_parts(struct workspace *ws, struct image_area *a, const struct proc_map *map)
{
	const struct pages_run out[2] = {
		{ IMAGE_ZONE, IMAGE_ZONE + IMAGE_ZONE_SIZE },
		{ ws->base, ws->base + WORKSPACE_SIZE },
	};

	for (int i = 0; i < 2; i++) {
		struct image_area below = *a;

		if (out[i].end <= a->start || out[i].start >= a->end)
			continue;
		below.end = out[i].start;
		if (below.end > below.start && area_add(ws, &below, map))
			return -1;
		if (out[i].end >= a->end)
			return 0;
		a->start = out[i].end;
	}
	return area_add(ws, a, map);
}

/*
 * Shared memory without a file: pieces that follow each other stay as simple
 * as they are; what is mapped twice has to be one object.
 */
static void area_check_alone(struct workspace *ws, struct image_area *a, const struct proc_map *map)
{
	bool twice = false;

	for (uint32_t i = 0; i < ws->area_count; i++) {
		const struct image_area *b = &ws->areas[i];

		twice |= image_area_is_shared(b) && b->object == a->object &&
			 map->offset < b->offset + (b->end - b->start);
	}
	if (!twice)
		return;
	a->kind = IMAGE_AREA_OBJECT;
	for (uint32_t i = 0; i < ws->area_count; i++)
		if (image_area_is_shared(&ws->areas[i]) && ws->areas[i].object == a->object)
			ws->areas[i].kind = IMAGE_AREA_OBJECT;
}

/*
 * The list of a running process is not read in one piece: it can show a
 * mapping twice, before and after a change.  And what it names can be removed
 * before it is looked at.  1: read again, with the reason if there may be one.
 */
static int areas_read_once(struct workspace *ws)
{
	long n = proc_read("/proc/self/maps", ws->maps, WORKSPACE_MAPS);
	const char *at = ws->maps;
	struct proc_map map;
	uint64_t below = 0;

	if (n <= 0)
		return image_say(ws->why, "cannot read /proc/self/maps: %e", (int)n);
	ws->area_count = 0;
	while (proc_map_next(&at, &map)) {
		struct image_area a = { .start = map.start, .end = map.end, .prot = (uint8_t)map.prot };
		char *path = (char *)map.path;
		int e;

		if (map.start < below)
			return 1;
		below = map.end;

		path[map.path_len] = 0;
		path_unescape(path);
		a.path = path;
		if (a.start >= IMAGE_ZONE && a.end <= IMAGE_ZONE + IMAGE_ZONE_SIZE)
			continue;
		e = area_classify(ws, &a, map.shared);
		if (e)
			return e == AREA_GONE ? 1 : -1;
		if (image_area_is_shared(&a))
			a.object = image_object(makedev(map.major, map.minor), map.ino);
		if (a.kind == IMAGE_AREA_SHARED_ANON)
			area_check_alone(ws, &a, &map);
		if (a.flags & IMAGE_AREA_GROWSDOWN)
			stack_join(ws, &a);
		if (a.kind && area_add_parts(ws, &a, &map))
			return -1;
	}
	return 0;
}

int areas_read(struct workspace *ws)
{
	for (int i = 0; i < AREAS_TRIES; i++) {
		int e;

		ws->why[0] = 0;
		e = areas_read_once(ws);
		if (e <= 0)
			return e;
	}
	return ws->why[0] ? -1 : image_say(ws->why, "its mappings change all the time: no list of them could be read");
}

int areas_read_announced(struct workspace *ws)
{
	ws->listed_s = (int64_t)(ms_clock_ns(CLOCK_REALTIME) / 1000000000);
	if (areas_read(ws))
		return -1;
	for (uint32_t i = 0; ws->tracking && i < ws->area_count; i++)
		if (ws->areas[i].young)
			tracking_leave(ws, &ws->areas[i]);
	return 0;
}

int areas_read_final(struct workspace *ws)
{
	if (areas_read(ws))
		return -1;
	for (uint32_t i = 0; i < ws->area_count; i++)
		if (ws->areas[i].young && !(ws->tracking && pages_are_tracked(ws, &ws->areas[i])))
			ws->areas[i].flags |= IMAGE_AREA_NEW;
	return 0;
}
