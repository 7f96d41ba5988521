/* SPDX-License-Identifier: MIT */
/*
 * idle - ranks that do nothing: they end at once, or when rank 0 reads the end of its standard input.
 *
 * usage: idle [wait]
 */
#include <mpi.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int rank;
	char byte;

	MPI_Init(&argc, &argv);
	if (argc > 1) {
		MPI_Comm_rank(MPI_COMM_WORLD, &rank);
		MPI_Barrier(MPI_COMM_WORLD);
		if (rank == 0) {
			puts("all are here");
			fflush(stdout);
			while (read(STDIN_FILENO, &byte, 1) > 0)
				;
		}
		MPI_Barrier(MPI_COMM_WORLD);
	}
	MPI_Finalize();
	return 0;
}
