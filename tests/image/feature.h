/* SPDX-License-Identifier: MIT */
/* feature.h - small programs in one binary: each is a function that moves and looks whether all is as before. */
#ifndef TESTS_IMAGE_FEATURE_H
#define TESTS_IMAGE_FEATURE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "member.h"

/* How often a feature moves; the test's environment says. */
extern int feature_moves;
#define MOVES feature_moves

struct feature {
	const char *name;
	void (*run)(void);
};

extern const struct feature memory_features[], signal_features[], thread_features[], file_features[], lock_features[],
	context_features[], process_features[], object_features[], more_features[];

/* A line to stderr and exit 1 unless `ok`. */
#define CHECK(ok)                                                                                                      \
	do {                                                                                                           \
		if (!(ok)) {                                                                                           \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #ok);                                       \
			exit(1);                                                                                       \
		}                                                                                                      \
	} while (0)

/* This machine lacks what the feature is about: ends the program with 77. */
void feature_skip(const char *reason) __attribute__((noreturn));

/* A directory of the test's own. */
const char *feature_dir(void);

double feature_clock(int clock);

#endif
