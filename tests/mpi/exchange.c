/* SPDX-License-Identifier: MIT */
/*
 * exchange - long messages in both directions between neighbours in a ring, until a file appears.
 *
 * usage: exchange BYTES STOPFILE [BALLAST]
 *
 * Each rank prints a line for each round, and every byte is checked.  Rank 0
 * looks for STOPFILE; the round in which it is found is the last.  BALLAST: so
 * many bytes of memory that hold one word again and again, looked at in the end.
 */
#include <inttypes.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t word_of(int from, int to, int round, size_t index)
{
	uint64_t x = ((uint64_t)from << 40 ^ (uint64_t)to << 20 ^ (uint64_t)round) * 0x9e3779b97f4a7c15u + index;

	return (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9u;
}

static void fill(uint64_t *words, size_t count, int from, int to, int round)
{
	size_t i;

	for (i = 0; i < count; i++)
		words[i] = word_of(from, to, round, i);
}

static void check(const uint64_t *words, size_t count, int from, int to, int round)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (words[i] != word_of(from, to, round, i)) {
			fprintf(stderr, "exchange: rank %d, round %d, from rank %d: word %zu is wrong\n", to, round,
				from, i);
			MPI_Abort(MPI_COMM_WORLD, 1);
		}
}

int main(int argc, char **argv)
{
	uint64_t *out[2], *in[2], checked = 0, all = 0;
	MPI_Request requests[4];
	MPI_Status statuses[4];
	int rank, size, round = 0, stop = 0, side, peer[2];
	size_t count, ballast, i;
	uint64_t *heavy;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	if (argc < 3 || argc > 4 || size < 3) {
		fprintf(stderr, "usage: exchange BYTES STOPFILE [BALLAST], with 3 ranks or more\n");
		MPI_Abort(MPI_COMM_WORLD, 2);
	}
	count = strtoul(argv[1], NULL, 0) / sizeof(uint64_t);
	for (side = 0; side < 2; side++) {
		peer[side] = (rank + (side ? 1 : size - 1)) % size;
		out[side] = malloc(count * sizeof(uint64_t));
		in[side] = malloc(count * sizeof(uint64_t));
		if (!out[side] || !in[side])
			MPI_Abort(MPI_COMM_WORLD, 1);
	}
	ballast = argc > 3 ? strtoul(argv[3], NULL, 0) / sizeof(uint64_t) : 0;
	heavy = malloc((ballast + 1) * sizeof(uint64_t));
	if (!heavy)
		MPI_Abort(MPI_COMM_WORLD, 1);
	for (i = 0; i < ballast; i++)
		heavy[i] = 0x0123456789abcdefu;
	while (!stop) {
		round++;
		for (side = 0; side < 2; side++) {
			fill(out[side], count, rank, peer[side], round);
			MPI_Irecv(in[side], (int)count, MPI_UINT64_T, peer[side], round, MPI_COMM_WORLD,
				  &requests[side]);
		}
		for (side = 0; side < 2; side++)
			MPI_Isend(out[side], (int)count, MPI_UINT64_T, peer[side], round, MPI_COMM_WORLD,
				  &requests[2 + side]);
		MPI_Waitall(4, requests, statuses);
		for (side = 0; side < 2; side++)
			check(in[side], count, peer[side], rank, round);
		checked += 2 * count * sizeof(uint64_t);
		printf("rank %d: round %d right\n", rank, round);
		fflush(stdout);
		stop = rank == 0 && access(argv[2], F_OK) == 0;
		MPI_Bcast(&stop, 1, MPI_INT, 0, MPI_COMM_WORLD);
	}
	for (i = 0; i < ballast; i++)
		if (heavy[i] != 0x0123456789abcdefu) {
			fprintf(stderr, "exchange: rank %d: word %zu of the ballast is wrong\n", rank, i);
			MPI_Abort(MPI_COMM_WORLD, 1);
		}
	free(heavy);
	MPI_Reduce(&checked, &all, 1, MPI_UINT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
	if (rank == 0)
		printf("exchanged %" PRIu64 " bytes in %d rounds\n", all, round);
	for (side = 0; side < 2; side++) {
		free(out[side]);
		free(in[side]);
	}
	MPI_Finalize();
	return 0;
}
