/* SPDX-License-Identifier: MIT */
/*
 * pingpong - one-way time and bandwidth between two pinned ranks.
 *
 * usage: pingpong CPU0 CPU1
 *
 * Prints "BYTES MICROSECONDS" for each size: half of the mean round trip in
 * the best of several batches.
 */
#define _GNU_SOURCE /* sched_setaffinity */
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int sizes[] = { 1, 64, 1024, 8192, 65536, 1048576, 4194304 };

static double batch(char *buffer, int bytes, int rank, int rounds)
{
	double start = MPI_Wtime();
	int i;

	for (i = 0; i < rounds; i++) {
		if (rank == 0) {
			MPI_Send(buffer, bytes, MPI_BYTE, 1, 0, MPI_COMM_WORLD);
			MPI_Recv(buffer, bytes, MPI_BYTE, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		} else {
			MPI_Recv(buffer, bytes, MPI_BYTE, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
			MPI_Send(buffer, bytes, MPI_BYTE, 0, 0, MPI_COMM_WORLD);
		}
	}
	return (MPI_Wtime() - start) * 1e6 / rounds / 2;
}

int main(int argc, char **argv)
{
	char *buffer = calloc(1, 4194304);
	cpu_set_t cpus;
	int rank;
	size_t i;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	if (argc != 3 || !buffer) {
		fprintf(stderr, "usage: pingpong CPU0 CPU1\n");
		MPI_Abort(MPI_COMM_WORLD, 2);
	}
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[1 + rank % 2]), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus) < 0) {
		perror("pingpong: sched_setaffinity");
		MPI_Abort(MPI_COMM_WORLD, 1);
	}
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		int rounds = sizes[i] <= 8192 ? 500 : sizes[i] <= 65536 ? 100 : 8, n;
		double best = batch(buffer, sizes[i], rank, rounds / 4), us; /* the first warms up, connects */

		for (n = 0; n < 7; n++) {
			us = batch(buffer, sizes[i], rank, rounds);
			best = n == 0 || us < best ? us : best;
		}
		if (rank == 0)
			printf("%d %.2f\n", sizes[i], best);
	}
	free(buffer);
	MPI_Finalize();
	return 0;
}
