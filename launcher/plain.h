/* SPDX-License-Identifier: MIT */
/* plain.h - text that can be shown on one line and written as JSON. */
#ifndef LAUNCHER_PLAIN_H
#define LAUNCHER_PLAIN_H

/* Each byte that is of a control character, or not of UTF-8, becomes a question mark. */
void plain_text(char *text);

#endif
