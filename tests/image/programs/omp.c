/* SPDX-License-Identifier: MIT */
/* omp ROUNDS - 8 threads: loops of three schedules, a reduction, tasks, a critical section, an ordered one, a barrier. */
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { CELLS = 1 << 16, THREADS = 8 };

static uint64_t cell[2][CELLS];

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t tree(int depth, uint64_t x)
{
	uint64_t a, b;

	if (depth == 0)
		return mix(x);
#pragma omp task shared(a)
	a = tree(depth - 1, 2 * x);
#pragma omp task shared(b)
	b = tree(depth - 1, 2 * x + 1);
#pragma omp taskwait
	return a + 3 * b;
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 10;
	uint64_t total = 0;

	omp_set_dynamic(0);
	omp_set_num_threads(THREADS);
	for (int i = 0; i < CELLS; i++)
		cell[0][i] = mix((uint64_t)i);
	for (int round = 0; round < rounds; round++) {
		const uint64_t *from = cell[round % 2];
		uint64_t *to = cell[1 - round % 2];
		uint64_t sum = 0, folded = 0, chain = (uint64_t)round, branch = 0;
		int members = 0;

#pragma omp parallel
		{
#pragma omp for schedule(dynamic, 512) reduction(+ : sum)
			for (int i = 0; i < CELLS; i++) {
				to[i] = mix(from[i] + from[(i + 1) % CELLS] + (uint64_t)round);
				sum += to[i];
			}
#pragma omp for schedule(guided) nowait
			for (int i = 0; i < CELLS; i += 1024) {
				uint64_t part = mix(to[i]);
#pragma omp critical
				folded ^= part;
			}
#pragma omp barrier
#pragma omp for ordered schedule(static, 1)
			for (int i = 0; i < 64; i++) {
				uint64_t part = mix(to[i * 1000]);
#pragma omp ordered
				chain = mix(chain + part);
			}
#pragma omp single
			branch = tree(8, chain);
#pragma omp atomic
			members++;
		}
		total = mix(total + sum + folded + chain + branch + (uint64_t)members);
		if (round % 50 == 0) {
			printf("%d %016llx %d\n", round, (unsigned long long)total, members);
			fflush(stdout);
		}
	}
	printf("%016llx\n", (unsigned long long)total);
	return 0;
}
