/* SPDX-License-Identifier: MIT */
/*
 * holder - rank 1 holds memory and answers rank 0's short messages; rank 0 prints each silence.
 *
 * usage: holder MEGABYTES STOPFILE
 *
 * A line "silence MS" for each answer that took more than 5 ms.
 */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char message[64] = "";
	uint64_t *held = NULL, x = 88172645463325252u;
	size_t words = 0, i;
	int rank, round;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	if (argc != 3) {
		fprintf(stderr, "usage: holder MEGABYTES STOPFILE\n");
		MPI_Abort(MPI_COMM_WORLD, 2);
	}
	if (rank == 1) {
		words = strtoul(argv[1], NULL, 0) * 1000000 / sizeof(*held);
		held = malloc(words * sizeof(*held));
		for (i = 0; held && i < words; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			held[i] = x;
		}
	}
	MPI_Barrier(MPI_COMM_WORLD);
	if (rank == 0) {
		printf("holding\n");
		fflush(stdout);
	}
	for (round = 0; message[0] == 0; round++) {
		double start = MPI_Wtime(), took;

		if (rank == 0) {
			message[0] = round % 64 == 0 && access(argv[2], F_OK) == 0;
			MPI_Send(message, sizeof(message), MPI_BYTE, 1, 0, MPI_COMM_WORLD);
			MPI_Recv(message, sizeof(message), MPI_BYTE, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		} else if (rank == 1) {
			MPI_Recv(message, sizeof(message), MPI_BYTE, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
			MPI_Send(message, sizeof(message), MPI_BYTE, 0, 0, MPI_COMM_WORLD);
		} else {
			break;
		}
		took = (MPI_Wtime() - start) * 1e3;
		if (rank == 0 && took > 5.0) {
			printf("silence %.2f\n", took);
			fflush(stdout);
		}
	}
	free(held);
	MPI_Finalize();
	return 0;
}
