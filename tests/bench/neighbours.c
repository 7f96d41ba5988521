/* SPDX-License-Identifier: MIT */
/*
 * neighbours - ranks that are connected in a ring, or each with each, and pass a token round the ring.
 *
 * usage: neighbours ring|all STOPFILE
 *
 * Only one rank has anything to do at a time, so that what a move costs shows.
 */
#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PAUSE_US = 2000 };

static int rank, ranks;

/* A message each way opens the connection. */
static void connect_all(void)
{
	int mine = rank, other;

	for (int step = 1; step < ranks; step++)
		MPI_Sendrecv(&mine, 1, MPI_INT, (rank + step) % ranks, 0, &other, 1, MPI_INT,
			     (rank + ranks - step) % ranks, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

/* The token is 1 in its last turn. */
static void pass(const char *stop)
{
	int left = (rank + ranks - 1) % ranks, right = (rank + 1) % ranks, token = 0, first = 1;

	while (!token) {
		if (rank == 0) {
			usleep(PAUSE_US);
			token = access(stop, F_OK) == 0;
			MPI_Send(&token, 1, MPI_INT, right, 0, MPI_COMM_WORLD);
		}
		MPI_Recv(&token, 1, MPI_INT, left, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		if (rank != 0)
			MPI_Send(&token, 1, MPI_INT, right, 0, MPI_COMM_WORLD);
		if (rank == 0 && first) {
			printf("round\n");
			fflush(stdout);
		}
		first = 0;
	}
}

int main(int argc, char **argv)
{
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	if (argc != 3 || ranks < 2) {
		fprintf(stderr, "usage: neighbours ring|all STOPFILE, with 2 ranks or more\n");
		MPI_Abort(MPI_COMM_WORLD, 2);
	}
	if (!strcmp(argv[1], "all"))
		connect_all();
	pass(argv[2]);
	MPI_Finalize();
	return 0;
}
