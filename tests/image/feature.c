/* SPDX-License-Identifier: MIT */
/* feature NAME DIR: runs one; without arguments lists their names. MOVES: how often each moves. Exit 77: not to be had here. */
#include "feature.h"

#include <time.h>

static const struct feature *const all[] = { memory_features,  signal_features, thread_features,
					     file_features,    lock_features,   context_features,
					     process_features, object_features, more_features };
static const char *dir;

int feature_moves = 3;

const char *feature_dir(void)
{
	return dir;
}

void feature_skip(const char *reason)
{
	printf("skip: %s\n", reason);
	exit(77);
}

double feature_clock(int clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	dir = argc > 2 ? argv[2] : ".";
	if (getenv("MOVES"))
		feature_moves = atoi(getenv("MOVES"));
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		for (const struct feature *f = all[i]; f->name; f++) {
			if (argc < 2) {
				puts(f->name);
			} else if (strcmp(argv[1], f->name) == 0) {
				f->run();
				return 0;
			}
		}
	return argc < 2 ? 0 : 2;
}
