/* SPDX-License-Identifier: MIT */
#include "plain.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A code point of more than a control character's meaning, in no more bytes than it needs; RFC 3629. */
static bool shown(uint32_t code, size_t size)
{
	static const uint32_t least[] = { 0, ' ', 0xa0, 0x800, 0x10000 };

	return code >= least[size] && code != 0x7f && code >> 11 != 0xd800 >> 11 && code <= 0x10ffff;
}

/* How many bytes the character takes; 0: it is none that can be shown. */
static size_t character(const unsigned char *s)
{
	size_t size = *s < 0x80 ? 1 : *s >> 5 == 0x6 ? 2 : *s >> 4 == 0xe ? 3 : *s >> 3 == 0x1e ? 4 : 0;
	uint32_t code = size == 1 ? *s : *s & 0x7fu >> size;

	for (size_t i = 1; i < size; i++) {
		if (s[i] >> 6 != 0x2)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	return size && shown(code, size) ? size : 0;
}

void plain_text(char *text)
{
	while (*text) {
		size_t size = character((const unsigned char *)text);

		if (!size)
			*text = '?';
		text += size ? size : 1;
	}
}
