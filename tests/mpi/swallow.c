/* SPDX-License-Identifier: MIT */
/*
 * swallow - rank 0 reads its standard input to the end, all ranks check it.
 *
 * usage: swallow
 *
 * Each piece is broadcast; rank 0 prints a line for each MiB and at the end
 * the number of bytes and their CRC-32, which must be equal in all ranks.
 */
#include <inttypes.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

static uint32_t crc_add(uint32_t crc, const unsigned char *bytes, int count)
{
	static uint32_t table[256];
	int i, bit;

	for (i = 0; table[255] == 0 && i < 256; i++) {
		uint32_t c = (uint32_t)i;

		for (bit = 0; bit < 8; bit++)
			c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
		table[i] = c;
	}
	for (i = 0; i < count; i++)
		crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 255];
	return crc;
}

int main(int argc, char **argv)
{
	static unsigned char piece[40000];
	uint32_t crc = 0xffffffff, lowest, highest;
	uint64_t total = 0;
	int rank, count;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	do {
		count = 0;
		if (rank == 0) {
			count = (int)read(0, piece, sizeof(piece));
			if (count < 0) {
				perror("swallow: read");
				MPI_Abort(MPI_COMM_WORLD, 1);
			}
			if (total >> 20 != (total + (uint64_t)count) >> 20)
				printf("MiB %" PRIu64 "\n", (total + (uint64_t)count) >> 20);
			fflush(stdout);
		}
		MPI_Bcast(&count, 1, MPI_INT, 0, MPI_COMM_WORLD);
		MPI_Bcast(piece, count, MPI_BYTE, 0, MPI_COMM_WORLD);
		crc = crc_add(crc, piece, count);
		total += (uint64_t)count;
	} while (count > 0);
	MPI_Reduce(&crc, &lowest, 1, MPI_UINT32_T, MPI_MIN, 0, MPI_COMM_WORLD);
	MPI_Reduce(&crc, &highest, 1, MPI_UINT32_T, MPI_MAX, 0, MPI_COMM_WORLD);
	if (rank == 0)
		printf("bytes %" PRIu64 " crc %08" PRIx32 "%s\n", total, crc ^ 0xffffffff,
		       lowest == highest ? "" : " and ranks differ");
	MPI_Finalize();
	return 0;
}
