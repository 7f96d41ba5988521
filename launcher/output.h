/* SPDX-License-Identifier: MIT */
/* output.h - a tool's standard output: whether what was printed has been written. */
#ifndef LAUNCHER_OUTPUT_H
#define LAUNCHER_OUTPUT_H

/* What was printed so far goes out; a failure is kept for output_end(). */
void output_flush(void);
/* The tool's exit status: rc, or 1 if something could not be written, with a line on stderr from `who` to `note`. */
int output_end(int rc, const char *who, const char *note);

#endif
