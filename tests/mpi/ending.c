/* SPDX-License-Identifier: MIT */
/*
 * ending - a job that ends in a chosen way once a file appears.
 *
 * usage: ending HOW GOFILE
 *
 * HOW: zero (all ranks exit 0), exit (rank 1 exits with 3), abort (rank 1
 * calls MPI_Abort(7)), segv (rank 1 dies of SIGSEGV), wait (nobody ends by
 * itself).  Until then all ranks talk; when a rank ends in an unusual way the
 * others are quiet, so that only one thing decides mpiexec's exit status.
 */
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void end_unfinished(const char *how, int rank)
{
	MPI_Barrier(MPI_COMM_WORLD);
	printf("rank %d: quiet\n", rank);
	fflush(stdout);
	if (rank == 1 && strcmp(how, "abort") == 0)
		MPI_Abort(MPI_COMM_WORLD, 7);
	if (rank == 1 && strcmp(how, "segv") == 0)
		raise(SIGSEGV);
	alarm(60);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	int rank, mine = 0, go = 0;
	double start;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	if (argc != 3) {
		fprintf(stderr, "usage: ending HOW GOFILE\n");
		MPI_Abort(MPI_COMM_WORLD, 2);
	}
	printf("rank %d: here\n", rank);
	fflush(stdout);
	start = MPI_Wtime();
	while (!go && MPI_Wtime() - start < 120.0) {
		mine = access(argv[2], F_OK) == 0;
		MPI_Allreduce(&mine, &go, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
		usleep(1000);
	}
	if (strcmp(argv[1], "zero") != 0 && strcmp(argv[1], "exit") != 0)
		end_unfinished(argv[1], rank);
	MPI_Finalize();
	return rank == 1 && strcmp(argv[1], "exit") == 0 ? 3 : 0;
}
