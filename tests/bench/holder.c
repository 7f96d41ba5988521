/* SPDX-License-Identifier: MIT */
/*
 * holder - rank 1 holds memory and answers rank 0's short messages; rank 0 prints each silence.
 *
 * usage: holder MEGABYTES STOPFILE [MEGABYTES_A_SECOND]
 *
 * A line "silence MS" for each answer that took more than 5 ms.  With a third
 * argument rank 1 writes to its memory, page after page, at that rate.
 */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* As much as is due since `start`; what a long pause has left undone is not made up for. */
static void dirty(uint64_t *held, size_t words, double rate, double start)
{
	static double written;
	static size_t at;
	const size_t page = 4096 / sizeof(*held);
	double due = (MPI_Wtime() - start) * rate;

	if (due - written > rate / 20)
		written = due - rate / 20;
	for (; written < due; written += 4096, at = (at + page) % (words - page))
		for (size_t i = 0; i < page; i++)
			held[at + i]++;
}

int main(int argc, char **argv)
{
	char message[64] = "";
	uint64_t *held = NULL, x = 88172645463325252u;
	size_t words = 0, i;
	double rate = argc > 3 ? atof(argv[3]) * 1e6 : 0, began;
	int rank, round;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	if (argc < 3 || argc > 4) {
		fprintf(stderr, "usage: holder MEGABYTES STOPFILE [MEGABYTES_A_SECOND]\n");
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
	began = MPI_Wtime();
	for (round = 0; message[0] == 0; round++) {
		double start = MPI_Wtime(), took;

		if (rank == 0) {
			message[0] = round % 64 == 0 && access(argv[2], F_OK) == 0;
			MPI_Send(message, sizeof(message), MPI_BYTE, 1, 0, MPI_COMM_WORLD);
			MPI_Recv(message, sizeof(message), MPI_BYTE, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		} else if (rank == 1) {
			MPI_Recv(message, sizeof(message), MPI_BYTE, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
			MPI_Send(message, sizeof(message), MPI_BYTE, 0, 0, MPI_COMM_WORLD);
			if (rate > 0)
				dirty(held, words, rate, began);
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
