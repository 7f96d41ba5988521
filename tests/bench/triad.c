/* SPDX-License-Identifier: MIT */
/*
 * triad - rank 1 computes a = b + 3 c over three arrays again and again and prints when each round ended.
 *
 * usage: triad MEGABYTES STOPFILE
 *
 * MEGABYTES is of one array. Lines "round NS", by CLOCK_MONOTONIC.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	double *a, *b, *c;
	size_t n, i;
	int rank;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	if (argc != 3) {
		fprintf(stderr, "usage: triad MEGABYTES STOPFILE\n");
		MPI_Abort(MPI_COMM_WORLD, 2);
	}
	if (rank == 1) {
		n = strtoul(argv[1], NULL, 0) * 1000000 / sizeof(*a);
		a = malloc(n * sizeof(*a));
		b = malloc(n * sizeof(*b));
		c = malloc(n * sizeof(*c));
		if (!a || !b || !c)
			MPI_Abort(MPI_COMM_WORLD, 1);
		for (i = 0; i < n; i++)
			a[i] = 0, b[i] = (double)i, c[i] = (double)(n - i);
		while (access(argv[2], F_OK)) {
			struct timespec t;

			for (i = 0; i < n; i++)
				a[i] = b[i] + 3 * c[i];
			clock_gettime(CLOCK_MONOTONIC, &t);
			printf("round %lld\n", t.tv_sec * 1000000000LL + t.tv_nsec);
			fflush(stdout);
		}
		free(a);
		free(b);
		free(c);
	}
	MPI_Barrier(MPI_COMM_WORLD);
	MPI_Finalize();
	return 0;
}
