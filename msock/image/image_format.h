/* SPDX-License-Identifier: MIT */
/*
 * image_format.h - the stream from a member to the restorer that takes its place.
 *
 * Frames: u32 magic, u8 version, u8 type, u16 0, u64 bytes that follow.  All
 * numbers are little endian (codec.h).  Only the data of IMAGE_PAGES, PACK and TRIAL
 * may be longer than IMAGE_FRAME_MAX.  The restorer answers pings and nothing else;
 * the outcome goes over the control sockets.
 *
 * What belongs to the member's own library (descriptors, signal actions,
 * timers, limits) is not here: it travels as memory, in baggage.h's structures,
 * and is put back by the member's own code (image_entry.h).  The daemons have
 * checked that both ends have the same file of it.
 */
#ifndef MSOCK_IMAGE_FORMAT_H
#define MSOCK_IMAGE_FORMAT_H

#include "proto/codec.h"

#define IMAGE_MAGIC 0x474d494du

enum {
	IMAGE_VERSION = 5,
	IMAGE_FRAME_HEAD = 16,
	IMAGE_FRAME_MAX = 65536,
	IMAGE_RUNS_MAX = 256,    /* runs of pages in one frame */
	IMAGE_BATCH_PAGES = 256, /* pages in one frame: both ends hash what is still in the cache */
	IMAGE_PATH_MAX = 4096,
	IMAGE_THREADS_MAX = 2048,
	IMAGE_AREAS_MAX = 65536,
	IMAGE_PAIRS_MAX = 16384,
	IMAGE_VDSO_MAX = 61440,
	IMAGE_PING_MADE = 999,
};

enum image_frame {
	IMAGE_HELLO = 1, /* u64 m, u32 main tid, u64 hash of the vdso, u64 its bytes, u64 XSAVE features */
	IMAGE_AREAS,     /* u16 n, n x area: sorted, in one list until IMAGE_AREAS_END */
	IMAGE_AREAS_END, /* u8 final: 0 what it was before the freeze, 1 what it is */
	IMAGE_TOUCH,     /* u16 n, n x { u64 address, u64 pages }: will come, make room */
	IMAGE_PING,   /* u64 number: the first, 0, starts to make the announced pages; IMAGE_PING_MADE waits for them */
	IMAGE_PONG,   /* u64 number, u64 CLOCK_MONOTONIC ns, u64 CLOCK_BOOTTIME ns: of the target's daemon */
	IMAGE_FREEZE, /* i64 monotonic, i64 boottime: member's clock less the target's, ns; u64 x 2: the member's
			    clocks at the freeze; u64 address of image_prepare, image_thread; u32 n,
			    n x { u32 tid, u64 address of its slot }; the first is the main thread */
	IMAGE_PROGRAM, /* u64 x 12: start and end of code, data, brk, start of stack, arguments, environment;
			    str exe, u16 bytes of auxv, auxv; u8 dumpable */
	IMAGE_PAGES,   /* u16 n, n x { u64 address, u32 pages }, then their bytes */
	IMAGE_KEEP,    /* u16 n, n x { u64 address, u64 pages }: in order; all private pages that are not in the list
			    were never sent, or are zero, or the file's, again */
	IMAGE_KEEP_END,
	IMAGE_END,    /* u64 sum of page hashes, u64 bytes of pages */
	IMAGE_ZEROS,  /* u16 n, n x { u64 address, u32 pages }: hold nothing but zeros now; part of the sum */
	IMAGE_PACK,   /* as PAGES, but their bytes are one block of LZ4 */
	IMAGE_TRIAL,  /* bytes of no meaning, at most IMAGE_BATCH_PAGES pages: to see how fast they go */
	IMAGE_GUARDS, /* u16 n, n x { u64 address, u64 pages }: may not be touched (MADV_GUARD_INSTALL) */
	IMAGE_VDSO,   /* behind HELLO: the member's vdso, for a host that has another one */
	IMAGE_HASHES, /* u64 address, u32 pages, then a u64 for each, its XXH3: in order; only when memory is compared */
	IMAGE_HASHES_END, /* whatever is not in the list holds zeros, or is the file's */
	IMAGE_PAIRS,      /* u32 n, u32 first: make so many pairs of unix sockets, under the numbers from first on */
};

enum image_area_kind {
	IMAGE_AREA_ANON = 1,    /* private, not of a file */
	IMAGE_AREA_FILE,        /* private, of a file */
	IMAGE_AREA_SHARED_FILE, /* shared, of a file: the file is the content */
	IMAGE_AREA_SHARED_ANON, /* shared with nobody: content in the image */
	IMAGE_AREA_VDSO,
	IMAGE_AREA_VVAR,   /* one for each of the kernel's data areas, in order of address */
	IMAGE_AREA_OBJECT, /* shared, of a memfd or a deleted file: the same object for all areas with this number */
};

enum {
	IMAGE_AREA_GROWSDOWN = 1,
	IMAGE_AREA_NORESERVE = 2,
	IMAGE_AREA_WHOLE = 4, /* all pages, read as from a file */
	IMAGE_AREA_NEW = 8,   /* of a file, in the final list: may not be what was mapped here in the first */
};

/* What the process has told the kernel of its memory, by madvise, mlock, mseal. */
enum image_advice {
	IMAGE_ADVICE_DONTFORK = 1 << 0,
	IMAGE_ADVICE_WIPEONFORK = 1 << 1,
	IMAGE_ADVICE_MERGEABLE = 1 << 2,
	IMAGE_ADVICE_HUGE = 1 << 3,
	IMAGE_ADVICE_NOHUGE = 1 << 4,
	IMAGE_ADVICE_DONTDUMP = 1 << 5,
	IMAGE_ADVICE_SEQUENTIAL = 1 << 6,
	IMAGE_ADVICE_RANDOM = 1 << 7,
	IMAGE_ADVICE_LOCKED = 1 << 8,
	IMAGE_ADVICE_LOCK_ON_FAULT = 1 << 9,
	IMAGE_ADVICE_SEALED = 1 << 10,
};

/* On the wire: u64 start, u64 end, u8 prot, u8 kind, u8 flags, u16 advice, u64 offset, u64 size of the file, u64 object, str path */
struct image_area {
	uint64_t start, end;
	uint8_t prot, kind, flags;
	uint16_t advice; /* enum image_advice; only in the final list */
	bool young;      /* its file may have come after the list that was announced; stays at the source */
	uint64_t offset, file_size;
	uint64_t object;  /* device and inode at the source, of shared memory */
	const char *path; /* borrowed; "" if none */
};

/* Order of the twelve in IMAGE_PROGRAM and in struct prctl_mm_map. */
enum image_program_mark {
	IMAGE_CODE_START,
	IMAGE_CODE_END,
	IMAGE_DATA_START,
	IMAGE_DATA_END,
	IMAGE_BRK_START,
	IMAGE_BRK,
	IMAGE_STACK_START,
	IMAGE_ARG_START,
	IMAGE_ARG_END,
	IMAGE_ENV_START,
	IMAGE_ENV_END,
	IMAGE_MARK_SPARE,
	IMAGE_MARKS,
};

/* Shared memory whose content is in the image. */
static inline bool image_area_is_shared(const struct image_area *a)
{
	return a->kind == IMAGE_AREA_SHARED_ANON || a->kind == IMAGE_AREA_OBJECT;
}

static inline uint64_t image_object(uint64_t dev, uint64_t ino)
{
	return dev << 40 ^ ino;
}

static inline void image_frame_put(struct ms_codec *c, uint8_t type, uint64_t bytes)
{
	ms_put_u32(c, IMAGE_MAGIC);
	ms_put_u8(c, IMAGE_VERSION);
	ms_put_u8(c, type);
	ms_put_u16(c, 0);
	ms_put_u64(c, bytes);
}

/* The type, or 0 for what is not a frame of this version. */
static inline uint8_t image_frame_get(struct ms_codec *c, uint64_t *bytes)
{
	uint32_t magic = ms_get_u32(c);
	uint8_t version = ms_get_u8(c);
	uint8_t type = ms_get_u8(c);

	ms_get_u16(c);
	*bytes = ms_get_u64(c);
	return !c->bad && magic == IMAGE_MAGIC && version == IMAGE_VERSION ? type : 0;
}

static inline void image_area_put(struct ms_codec *c, const struct image_area *a)
{
	ms_put_u64(c, a->start);
	ms_put_u64(c, a->end);
	ms_put_u8(c, a->prot);
	ms_put_u8(c, a->kind);
	ms_put_u8(c, a->flags);
	ms_put_u16(c, a->advice);
	ms_put_u64(c, a->offset);
	ms_put_u64(c, a->file_size);
	ms_put_u64(c, a->object);
	ms_put_str(c, a->path);
}

/* The path is put into `path`, of IMAGE_PATH_MAX bytes. */
static inline void image_area_get(struct ms_codec *c, struct image_area *a, char *path)
{
	a->start = ms_get_u64(c);
	a->end = ms_get_u64(c);
	a->prot = ms_get_u8(c);
	a->kind = ms_get_u8(c);
	a->flags = ms_get_u8(c);
	a->advice = ms_get_u16(c);
	a->offset = ms_get_u64(c);
	a->file_size = ms_get_u64(c);
	a->object = ms_get_u64(c);
	ms_get_str(c, path, IMAGE_PATH_MAX);
	a->path = path;
}

#endif
