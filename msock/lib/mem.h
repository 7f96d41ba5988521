/* SPDX-License-Identifier: MIT */
/*
 * mem.h - memory for the library's own objects, straight from mmap.
 *
 * The heap of the C library is out of bounds: a parked thread may hold its
 * locks.  Callers hold the library's lock.  Memory comes zeroed.
 */
#ifndef MSOCK_LIB_MEM_H
#define MSOCK_LIB_MEM_H

#include <stddef.h>

/* NULL when the kernel has none. mem_free wants the size that was asked for. */
void *mem_alloc(size_t size);
void mem_free(void *p, size_t size);

#endif
