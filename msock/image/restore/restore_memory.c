/* SPDX-License-Identifier: MIT */
/* The member's memory: mapped from the list before the freeze, corrected by the one after it. */
#include <errno.h>
#include <linux/prctl.h>

#include "image/mem.h"
#include "image/proc.h"
#include "image/restore/restore.h"

enum { HUGE = 2 << 20, HUGE_AREA_MIN = 4 << 20, RESERVE_MAX = 1 << 30, LOCK_ON_FAULT = 1, SYS_MSEAL = 462 };

static struct {
	int fd;
	bool write;
	const char *path;
	uint64_t size;
} last_file = { .fd = -1 };

static uint64_t highest(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t lowest(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int area_error(const struct image_area *a, const char *what, int e)
{
	return image_say(restore.why, "mapping %s at %x: %s: %e", a->path[0] ? a->path : "memory", a->start, what, e);
}

/* Most areas come several in a row from one file. -ENOENT: it is not there, or shorter than it was; restore.why says it. */
static int file_of(const struct image_area *a)
{
	bool write = a->kind == IMAGE_AREA_SHARED_FILE; /* it may be made writable later */
	struct stat st;

	if (last_file.fd >= 0 && last_file.write == write && ms_streq(last_file.path, a->path))
		goto found;
	if (last_file.fd >= 0)
		ms_close(last_file.fd);
	last_file.fd = ms_open(a->path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC, 0);
	if (last_file.fd < 0 && write && !(a->prot & PROT_WRITE))
		last_file.fd = ms_open(a->path, O_RDONLY | O_CLOEXEC, 0);
	if (last_file.fd < 0) {
		area_error(a, "cannot open", last_file.fd);
		return last_file.fd == -ENOENT ? -ENOENT : -1;
	}
	last_file.path = a->path;
	last_file.write = write;
	ms_fstat(last_file.fd, &st);
	last_file.size = (uint64_t)st.st_size;
found:
	if (a->kind == IMAGE_AREA_FILE && last_file.size < a->file_size) {
		image_say(restore.why, "%s is another file here: %u bytes, not %u", a->path, last_file.size,
			  a->file_size);
		return -ENOENT;
	}
	return last_file.fd;
}

/* The object of an area, long enough for it; the first area makes it. */
static int object_of(const struct image_area *a)
{
	struct image_arrival *to = &restore.arrival;
	const char *name = a->path;
	uint64_t end = a->offset + (a->end - a->start);
	uint32_t i = 0;
	char text[64];
	int e = 0;

	while (i < to->objects && to->object[i].number != a->object)
		i++;
	if (i == IMAGE_OBJECTS_MAX)
		return image_say(restore.why, "more than %d objects of shared memory", IMAGE_OBJECTS_MAX);
	if (i == to->objects) {
		proc_memfd_name(name, text, sizeof(text));
		to->object[i].number = a->object;
		to->object[i].fd = (int)ms_sys2(SYS_memfd_create, (long)text, MFD_CLOEXEC | MFD_ALLOW_SEALING);
		if (to->object[i].fd < 0)
			return area_error(a, "no shared memory", to->object[i].fd);
		to->objects++;
	}
	if (end > restore.object_size[i])
		e = (int)ms_sys2(SYS_ftruncate, to->object[i].fd, (long)end);
	if (e)
		return area_error(a, "shared memory cannot have its size", e);
	restore.object_size[i] = highest(end, restore.object_size[i]);
	return to->object[i].fd;
}

static void file_done(void)
{
	if (last_file.fd >= 0)
		ms_close(last_file.fd);
	last_file.fd = -1;
}

static bool area_is_kernels(const struct image_area *a)
{
	return a->kind == IMAGE_AREA_VDSO || a->kind == IMAGE_AREA_VVAR;
}

/* Maps [start, end) of the area. -ENOENT: as file_of. */
static int area_map(const struct image_area *a, uint64_t start, uint64_t end)
{
	int flags = MAP_FIXED_NOREPLACE;
	uint64_t offset = 0;
	int fd = -1;
	void *p;

	if (start >= end || area_is_kernels(a))
		return 0;
	switch (a->kind) {
	case IMAGE_AREA_ANON:
		flags |= MAP_PRIVATE | MAP_ANONYMOUS;
		if (a->flags & IMAGE_AREA_GROWSDOWN)
			flags |= MAP_GROWSDOWN;
		if (a->end - a->start > RESERVE_MAX)
			flags |= MAP_NORESERVE;
		break;
	case IMAGE_AREA_SHARED_ANON:
		flags |= MAP_SHARED | MAP_ANONYMOUS;
		break;
	case IMAGE_AREA_OBJECT:
		flags |= MAP_SHARED;
		offset = a->offset + (start - a->start);
		fd = object_of(a);
		if (fd < 0)
			return -1;
		break;
	default:
		flags |= a->kind == IMAGE_AREA_FILE ? MAP_PRIVATE : MAP_SHARED;
		offset = a->offset + (start - a->start);
		fd = file_of(a);
		if (fd < 0)
			return fd;
	}
	p = ms_mmap((void *)start, end - start, a->prot, flags, fd, (off_t)offset);
	if (ms_is_error(p))
		return area_error(a, "cannot map", (int)(long)p);
	return 0;
}

/*
 * The process goes on: what it had mapped when the list was read it may have removed since.  Pages for it may be on
 * their way all the same, and go where they do no harm.
 */
static int area_map_absent(struct restore_area *area)
{
	struct image_area stand_in = area->a;

	area->absent = true;
	restore.why[0] = 0;
	stand_in.kind = IMAGE_AREA_ANON;
	return area_map(&stand_in, stand_in.start, stand_in.end);
}

int memory_map_early(void)
{
	for (uint32_t i = 0; i < restore.now.count; i++) {
		struct restore_area *area = &restore.now.area[i];
		int e = area_map(&area->a, area->a.start, area->a.end);

		if (e == -ENOENT)
			e = area_map_absent(area);
		if (e)
			return -1;
	}
	file_done();
	return 0;
}

/* The first area of the current list that ends above the address. */
static uint32_t area_index(uint64_t start)
{
	uint32_t low = 0, high = restore.now.count;

	while (low < high) {
		uint32_t mid = (low + high) / 2;

		if (restore.now.area[mid].a.end <= start)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* The area of the current list that holds all of [start, end) and takes pages; NULL if there is none. */
struct restore_area *memory_area_of(uint64_t start, uint64_t end)
{
	uint32_t low = area_index(start);

	if (low == restore.now.count || restore.now.area[low].a.start > start || restore.now.area[low].a.end < end)
		return NULL;
	switch (restore.now.area[low].a.kind) {
	case IMAGE_AREA_ANON:
	case IMAGE_AREA_FILE:
	case IMAGE_AREA_SHARED_ANON:
	case IMAGE_AREA_OBJECT:
		return &restore.now.area[low];
	}
	return NULL;
}

int memory_open(struct restore_area *area)
{
	const struct image_area *a = &area->a;
	int e;

	if (area->opened || (a->prot & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE))
		return 0;
	e = ms_mprotect((void *)a->start, a->end - a->start, PROT_READ | PROT_WRITE);
	if (e)
		return area_error(a, "cannot be made writable", e);
	area->opened = true;
	return 0;
}

int memory_close(void)
{
	for (uint32_t i = 0; i < restore.now.count; i++) {
		struct restore_area *area = &restore.now.area[i];
		int e;

		if (!area->opened)
			continue;
		e = ms_mprotect((void *)area->a.start, area->a.end - area->a.start, area->a.prot);
		if (e)
			return area_error(&area->a, "cannot be given its protection", e);
		area->opened = false;
	}
	return 0;
}

/* Pages will come: their areas are made writable, and large ones take huge pages. */
void memory_touch(void)
{
	for (uint32_t i = 0; i < restore.run_count; i++) {
		struct restore_run *r = &restore.runs[i];
		struct restore_area *area = memory_area_of(r->start, r->start + r->pages * IMAGE_PAGE);

		if (area && memory_open(area) == 0)
			area->touched += r->pages;
	}
	for (uint32_t i = 0; i < restore.now.count; i++) {
		struct restore_area *area = &restore.now.area[i];
		uint64_t size = area->a.end - area->a.start;

		if (area->a.kind == IMAGE_AREA_ANON && !(area->a.flags & IMAGE_AREA_GROWSDOWN) &&
		    size >= HUGE_AREA_MIN && area->touched * IMAGE_PAGE >= size / 2)
			ms_madvise((void *)area->a.start, size, MADV_HUGEPAGE);
	}
}

/*
 * May what is mapped for `old` stay where `new` overlaps it?  Pages may have
 * come already, so whatever is the same but for its bounds has to.
 */
static bool area_keeps(const struct restore_area *from, const struct image_area *new)
{
	const struct image_area *old = &from->a;

	if (from->absent || old->kind != new->kind || old->flags != new->flags)
		return false;
	switch (old->kind) {
	case IMAGE_AREA_ANON:
		return true;
	case IMAGE_AREA_FILE:
	case IMAGE_AREA_SHARED_FILE:
		return old->start - old->offset == new->start - new->offset &&ms_streq(old->path, new->path);
	}
	return old->start == new->start && old->end == new->end && old->object == new->object &&
	       old->offset == new->offset;
}

/*
 * Unmap the parts of old areas that no new area keeps.  Both lists are in
 * order of address and neither overlaps itself.
 */
static void unmap_gone(void)
{
	uint32_t k = 0;

	for (uint32_t i = 0; i < restore.now.count; i++) {
		const struct image_area *old = &restore.now.area[i].a;
		uint64_t at = old->start;

		if (area_is_kernels(old))
			continue;
		while (k < restore.next.count && restore.next.area[k].a.end <= old->start)
			k++;
		for (uint32_t j = k; j < restore.next.count && restore.next.area[j].a.start < old->end; j++) {
			const struct image_area *new = &restore.next.area[j].a;

			if (!area_keeps(&restore.now.area[i], new))
				continue;
			if (new->start > at)
				ms_munmap((void *)at, new->start - at);
			at = lowest(new->end, old->end);
		}
		if (at < old->end)
			ms_munmap((void *)at, old->end - at);
	}
}

/*
 * A stack that has grown since it was announced: let it grow here too.  A
 * second mapping below would not become one with it, and then neither grows.
 */
static int stack_grow(const struct image_area *a)
{
	struct rlimit limit;

	ms_sys4(SYS_prlimit64, 0, RLIMIT_STACK, 0, (long)&limit);
	limit.rlim_cur = limit.rlim_max;
	ms_sys4(SYS_prlimit64, 0, RLIMIT_STACK, (long)&limit, 0);
	if (limit.rlim_cur < a->end - a->start)
		return area_error(a, "the stack is larger than the limit here", ENOMEM);
	*(volatile char *)a->start = 0;
	return 0;
}

/* What stood in for it has got its pages, which will not come once more. */
static bool is_back(const struct restore_area *from, const struct image_area *new)
{
	return from->absent && new->kind == IMAGE_AREA_FILE && !(new->flags &IMAGE_AREA_NEW) &&
	       ms_streq(from->a.path, new->path);
}

/* Keep what is there, with the new protection; map the rest. */
static int map_new(void)
{
	uint32_t k = 0;

	for (uint32_t i = 0; i < restore.next.count; i++) {
		struct restore_area *to = &restore.next.area[i];
		uint64_t at = to->a.start;

		if (area_is_kernels(&to->a))
			continue;
		while (k < restore.now.count && restore.now.area[k].a.end <= to->a.start)
			k++;
		for (uint32_t j = k; j < restore.now.count && restore.now.area[j].a.start < to->a.end; j++) {
			const struct restore_area *from = &restore.now.area[j];
			uint64_t start = highest(from->a.start, to->a.start);
			uint64_t end = lowest(from->a.end, to->a.end);
			int e = 0;

			if (is_back(from, &to->a))
				return image_say(restore.why, "%s was not there for a moment", to->a.path);
			if (!area_keeps(from, &to->a))
				continue;
			if ((to->a.flags & IMAGE_AREA_GROWSDOWN) && at < start && end == to->a.end) {
				if (stack_grow(&to->a))
					return -1;
			} else if (area_map(&to->a, at, start)) {
				return -1;
			}
			if (from->a.prot != to->a.prot || from->opened)
				e = ms_mprotect((void *)start, end - start, to->a.prot);
			if (e)
				return area_error(&to->a, "cannot change the protection", e);
			at = end;
		}
		if (area_map(&to->a, at, to->a.end))
			return -1;
	}
	file_done();
	return 0;
}

int memory_map_final(void)
{
	struct restore_list old = restore.now;

	unmap_gone();
	if (map_new())
		return -1;
	restore.now = restore.next;
	restore.next = old;
	return 0;
}

void memory_drop(uint64_t start, uint64_t end)
{
	for (uint32_t i = area_index(start); i < restore.now.count && restore.now.area[i].a.start < end; i++) {
		const struct image_area *a = &restore.now.area[i].a;
		uint64_t from = highest(start, a->start), to = lowest(end, a->end);

		if ((a->kind == IMAGE_AREA_ANON || a->kind == IMAGE_AREA_FILE) && from < to)
			ms_madvise((void *)from, to - from, MADV_DONTNEED);
	}
}

static int area_lock(const struct image_area *a)
{
	struct rlimit limit;
	int e;

	ms_sys4(SYS_prlimit64, 0, RLIMIT_MEMLOCK, 0, (long)&limit);
	limit.rlim_cur = limit.rlim_max;
	ms_sys4(SYS_prlimit64, 0, RLIMIT_MEMLOCK, (long)&limit, 0);
	e = (int)ms_sys3(SYS_mlock2, (long)a->start, (long)(a->end - a->start), LOCK_ON_FAULT);
	if (e)
		return area_error(a, "cannot be locked in memory, by the limit here", e);
	if (!(a->advice & IMAGE_ADVICE_LOCK_ON_FAULT))
		ms_sys2(SYS_mlock, (long)a->start, (long)(a->end - a->start)); /* what may not be touched stays so */
	return 0;
}

/* A kernel without some of these has no harm from doing without. */
int memory_advise(void)
{
	static const struct {
		uint16_t advice;
		int call;
	} calls[] = {
		{ IMAGE_ADVICE_DONTFORK, MADV_DONTFORK },     { IMAGE_ADVICE_WIPEONFORK, MADV_WIPEONFORK },
		{ IMAGE_ADVICE_MERGEABLE, MADV_MERGEABLE },   { IMAGE_ADVICE_HUGE, MADV_HUGEPAGE },
		{ IMAGE_ADVICE_NOHUGE, MADV_NOHUGEPAGE },     { IMAGE_ADVICE_DONTDUMP, MADV_DONTDUMP },
		{ IMAGE_ADVICE_SEQUENTIAL, MADV_SEQUENTIAL }, { IMAGE_ADVICE_RANDOM, MADV_RANDOM },
	};

	for (uint32_t i = 0; i < restore.now.count; i++) {
		const struct image_area *a = &restore.now.area[i].a;

		if (!a->advice || area_is_kernels(a))
			continue;
		for (size_t k = 0; k < sizeof(calls) / sizeof(calls[0]); k++)
			if (a->advice & calls[k].advice)
				ms_madvise((void *)a->start, a->end - a->start, calls[k].call);
		if ((a->advice & IMAGE_ADVICE_LOCKED) && area_lock(a))
			return -1;
		if (a->advice & IMAGE_ADVICE_SEALED)
			ms_sys3(SYS_MSEAL, (long)a->start, (long)(a->end - a->start), 0);
	}
	return 0;
}

/* Are they as many, as large and in the same order as the member's? */
static bool spans_match(void)
{
	int i = 0;

	for (uint32_t k = 0; k < restore.now.count; k++) {
		const struct image_area *a = &restore.now.area[k].a;
		const struct restore_span *s = &restore.span[i];

		if (!area_is_kernels(a))
			continue;
		if (i++ == restore.spans || s->size != a->end - a->start || s->vdso != (a->kind == IMAGE_AREA_VDSO))
			return false;
	}
	return i == restore.spans;
}

/* The kernel's own mappings go to where the member has them; those of another kernel elsewhere. */
int memory_place_spans(void)
{
	bool other = restore.vdso_other || !spans_match();
	int i = 0;

	for (uint32_t k = 0; k < restore.now.count; k++) {
		const struct image_area *a = &restore.now.area[k].a;
		struct restore_span *s = &restore.span[i];

		if (!area_is_kernels(a))
			continue;
		if (other && a->kind == IMAGE_AREA_VDSO)
			return vdso_replace(a->start);
		if (other)
			continue;
		if (ms_is_error(ms_mremap((void *)s->parked, s->size, s->size, MREMAP_MAYMOVE | MREMAP_FIXED,
					  (void *)a->start)))
			return image_say(restore.why, "the vdso cannot be put at %x", a->start);
		i++;
	}
	return 0;
}

int memory_program(void)
{
	const uint64_t *m = restore.mark;
	struct prctl_mm_map map = {
		.start_code = m[IMAGE_CODE_START],
		.end_code = m[IMAGE_CODE_END],
		.start_data = m[IMAGE_DATA_START],
		.end_data = m[IMAGE_DATA_END],
		.start_brk = m[IMAGE_BRK_START],
		.brk = m[IMAGE_BRK],
		.start_stack = m[IMAGE_STACK_START],
		.arg_start = m[IMAGE_ARG_START],
		.arg_end = m[IMAGE_ARG_END],
		.env_start = m[IMAGE_ENV_START],
		.env_end = m[IMAGE_ENV_END],
		.auxv = (void *)restore.auxv,
		.auxv_size = restore.auxv_bytes,
		.exe_fd = (uint32_t)-1,
	};
	int fd = restore.exe[0] ? ms_open(restore.exe, O_RDONLY | O_CLOEXEC, 0) : -1;
	int e = -1;

	if (fd >= 0) {
		map.exe_fd = (uint32_t)fd;
		e = (int)ms_prctl(PR_SET_MM, PR_SET_MM_MAP, (long)&map, sizeof(map), 0);
		ms_close(fd);
		map.exe_fd = (uint32_t)-1;
	}
	/* Where the link to the program may not be set, the rest still may. */
	if (e)
		e = (int)ms_prctl(PR_SET_MM, PR_SET_MM_MAP, (long)&map, sizeof(map), 0);
	return e ? image_say(restore.why, "cannot set the program's marks (PR_SET_MM_MAP): %e", e) : 0;
}
