/* SPDX-License-Identifier: MIT */
/* mem.h - memory functions without the C library's symbols. */
#ifndef MSOCK_IMAGE_MEM_H
#define MSOCK_IMAGE_MEM_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)
void *memcpy(void *restrict dst, const void *restrict src, size_t n);
void *memset(void *dst, int value, size_t n);
void *memmove(void *dst, const void *src, size_t n);
int memcmp(const void *a, const void *b, size_t n);
#pragma GCC visibility pop

#endif
