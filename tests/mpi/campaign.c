/* SPDX-License-Identifier: MIT */
/*
 * campaign - every rank sends every other checked messages, and all do collectives in between, until a file is there.
 *
 * usage: campaign STOPFILE
 *
 * Rank 0 says `going` after the first round, and at the end `rounds N`.  Every
 * byte and every result is looked at.  No round asks for memory that the one
 * before has not given back, so what a process has is the same at any time.
 */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { RANKS_MAX = 128, LONGEST = 6000, WORDS = 256 };

static int rank, ranks;

static void die(const char *what)
{
	printf("rank %d: %s\n", rank, what);
	fflush(stdout);
	MPI_Abort(MPI_COMM_WORLD, 1);
}

static uint32_t mix(uint32_t x)
{
	x ^= x >> 16;
	x *= 0x7feb352du;
	x ^= x >> 15;
	x *= 0x846ca68bu;
	return x ^ x >> 16;
}

static uint32_t key_of(int from, int to, uint32_t round)
{
	return mix(round * 65536u + (uint32_t)(from * RANKS_MAX + to) + 1u);
}

static int length(uint32_t key)
{
	return (int)(key % LONGEST) + 1;
}

static void messages(uint32_t round)
{
	static unsigned char out[RANKS_MAX][LONGEST], in[RANKS_MAX][LONGEST];
	static MPI_Request requests[2 * RANKS_MAX];
	static MPI_Status states[2 * RANKS_MAX];
	int got;

	for (int p = 0; p < ranks; p++) {
		uint32_t key = key_of(rank, p, round);

		for (int i = 0; i < length(key); i++)
			out[p][i] = (unsigned char)mix(key + (uint32_t)i);
		MPI_Irecv(in[p], LONGEST, MPI_BYTE, p, 0, MPI_COMM_WORLD, &requests[p]);
		MPI_Isend(out[p], length(key), MPI_BYTE, p, 0, MPI_COMM_WORLD, &requests[ranks + p]);
	}
	MPI_Waitall(2 * ranks, requests, states);
	for (int p = 0; p < ranks; p++) {
		uint32_t key = key_of(p, rank, round);

		MPI_Get_count(&states[p], MPI_BYTE, &got);
		if (got != length(key))
			die("a message of wrong length");
		for (int i = 0; i < got; i++)
			if (in[p][i] != (unsigned char)mix(key + (uint32_t)i))
				die("a message with wrong bytes");
	}
}

static void reduce(uint32_t round)
{
	uint32_t words[WORDS], sums[WORDS], sum;

	for (int i = 0; i < WORDS; i++)
		words[i] = mix(round + (uint32_t)(i * RANKS_MAX + rank));
	MPI_Allreduce(words, sums, WORDS, MPI_UINT32_T, MPI_SUM, MPI_COMM_WORLD);
	for (int i = 0; i < WORDS; i++) {
		sum = 0;
		for (int p = 0; p < ranks; p++)
			sum += mix(round + (uint32_t)(i * RANKS_MAX + p));
		if (sums[i] != sum)
			die("a wrong sum");
	}
}

static void all_to_all(uint32_t round)
{
	uint32_t out[RANKS_MAX], in[RANKS_MAX];

	for (int p = 0; p < ranks; p++)
		out[p] = key_of(rank, p, ~round);
	MPI_Alltoall(out, 1, MPI_UINT32_T, in, 1, MPI_UINT32_T, MPI_COMM_WORLD);
	for (int p = 0; p < ranks; p++)
		if (in[p] != key_of(p, rank, ~round))
			die("a wrong word of MPI_Alltoall");
}

static int another_round(const char *stop, uint32_t round)
{
	int going = rank == 0 && access(stop, F_OK) != 0;

	MPI_Bcast(&going, 1, MPI_INT, 0, MPI_COMM_WORLD);
	if (round == 0 && rank == 0) {
		printf("going\n");
		fflush(stdout);
	}
	return going;
}

int main(int argc, char **argv)
{
	uint32_t round = 0;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	if (argc != 2 || ranks > RANKS_MAX)
		die("usage: campaign STOPFILE, with at most 128 ranks");
	do {
		messages(round);
		reduce(round);
		all_to_all(round);
		MPI_Barrier(MPI_COMM_WORLD);
	} while (another_round(argv[1], round++));
	if (rank == 0)
		printf("rounds %u\n", round);
	MPI_Finalize();
	return 0;
}
