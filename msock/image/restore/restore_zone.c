/* SPDX-License-Identifier: MIT */
/* The restorer's own memory, and clearing the rest for the image. */
#include <errno.h>

#include "image/mem.h"
#include "image/proc.h"
#include "image/restore/restore.h"

extern char __executable_start[], _end[];

enum { ZONE_POOL = 64 << 20 }; /* offset of the pool: well behind the program */

static uint64_t zone_next = IMAGE_ZONE + ZONE_POOL;
static char maps_text[256 << 10];

/*
 * The program lies in file mappings, and those keep its file as the process's
 * executable.  A copy in anonymous memory takes their place; the text of both
 * is the same, so execution goes on in it.
 */
void zone_move_self(void)
{
	uint64_t start = (uint64_t)__executable_start & ~4095ull;
	uint64_t size = (((uint64_t)_end + 4095) & ~4095ull) - start;
	char *copy = ms_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (ms_is_error(copy))
		ms_exit_group(3);
	memcpy(copy, (void *)start, size);
	if (ms_mprotect(copy, size, PROT_READ | PROT_WRITE | PROT_EXEC))
		ms_exit_group(3);
	if (ms_is_error(ms_mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start)))
		ms_exit_group(3);
}

void *zone_alloc(size_t bytes)
{
	void *p;

	bytes = (bytes + 4095) & ~4095ul;
	/* An unmapped page between two pieces catches what runs over. */
	p = ms_mmap((void *)zone_next, bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (ms_is_error(p) || zone_next + bytes + 4096 > IMAGE_ZONE + IMAGE_ZONE_SIZE) {
		image_say(restore.why, "no memory for the restorer");
		control_failed();
	}
	zone_next += bytes + 4096;
	return p;
}

static int span_park(const struct proc_map *map, bool vdso)
{
	struct restore_span *s = &restore.span[restore.spans];

	if (restore.spans == sizeof(restore.span) / sizeof(restore.span[0]))
		return image_say(restore.why, "this kernel has more of its own mappings than are known");
	s->start = map->start;
	s->size = map->end - map->start;
	s->vdso = vdso;
	s->parked = zone_next;
	zone_next += s->size;
	if (vdso) {
		restore.vdso_hash = XXH3_64bits((void *)map->start, s->size);
		restore.vdso_bytes = s->size;
	}
	if (ms_is_error(
		    ms_mremap((void *)map->start, s->size, s->size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)s->parked)))
		return image_say(restore.why, "the vdso does not let itself be moved");
	restore.spans++;
	return 0;
}

int zone_clear_rest(void)
{
	long n = proc_read("/proc/self/maps", maps_text, sizeof(maps_text));
	const char *at = maps_text;
	struct proc_map map;

	if (n <= 0)
		return image_say(restore.why, "cannot read /proc/self/maps: %e", (int)n);
	while (proc_map_next(&at, &map)) {
		bool vvar = proc_map_is(&map, "[vvar]") || proc_map_is(&map, "[vvar_vclock]");
		bool vdso = proc_map_is(&map, "[vdso]");

		if (map.start >= IMAGE_ZONE && map.end <= IMAGE_ZONE + IMAGE_ZONE_SIZE)
			continue;
		if (proc_map_is(&map, "[vsyscall]"))
			continue;
		if (vvar || vdso) {
			if (span_park(&map, vdso))
				return -1;
		} else if (ms_munmap((void *)map.start, map.end - map.start)) {
			return image_say(restore.why, "cannot unmap the restorer's old memory");
		}
	}
	return 0;
}
