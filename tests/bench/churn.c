/* SPDX-License-Identifier: MIT */
/* churn - blocks of 1 to 2000 bytes, taken and given back by one thread; prints nanoseconds for a pair of calls. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BLOCKS = 1024, ROUNDS = 30000000 };

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(void)
{
	static char *block[BLOCKS];
	unsigned x = 1;
	double start = now_ns();

	for (long i = 0; i < ROUNDS; i++) {
		char **b;

		x = x * 1664525u + 1013904223u;
		b = &block[x >> 22];
		free(*b);
		*b = malloc((x >> 8) % 2000 + 1);
		if (!*b)
			return 1;
		**b = 1;
	}
	printf("churn 0 %.3f\n", (now_ns() - start) / ROUNDS);
	return 0;
}
