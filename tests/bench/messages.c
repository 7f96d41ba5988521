/* SPDX-License-Identifier: MIT */
/*
 * messages - what messages between pinned ranks cost: one-way time, bandwidth, rate, collectives.
 *
 * usage: messages CPU,CPU,...     rank r runs on the (r modulo how many)th of them
 *
 * Prints "WHAT BYTES VALUE" for each size, the best of several batches:
 *   latency    half of the mean round trip, us                  (ranks 0 and 1)
 *   bandwidth  16 messages in flight, then an answer, MB/s      (ranks 0 and 1)
 *   rate       as that, 64 in flight, thousand messages a second
 *   allreduce, alltoall    one call, us; BYTES is what each rank gives, to each rank for alltoall
 * With more than two ranks only the collectives run.
 */
#define _GNU_SOURCE /* sched_setaffinity */
#include <mpi.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST 4194304
#define BATCHES 7
#define FLIGHT_MOST 64

struct measure {
	const char *what;
	double (*batch)(const struct measure *m, int bytes, int rounds); /* seconds for all rounds */
	double (*value)(int bytes, double seconds_a_round);
	int flight; /* messages under way at a time */
	int sizes[9]; /* up to the first negative one */
	bool collective;
};

static char *out, *in;
static int rank, ranks;

static double latency(const struct measure *m, int bytes, int rounds)
{
	double start = MPI_Wtime();
	int i;

	(void)m;
	for (i = 0; i < rounds; i++) {
		if (rank == 0) {
			MPI_Send(out, bytes, MPI_BYTE, 1, 0, MPI_COMM_WORLD);
			MPI_Recv(in, bytes, MPI_BYTE, 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		} else {
			MPI_Recv(in, bytes, MPI_BYTE, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
			MPI_Send(out, bytes, MPI_BYTE, 0, 0, MPI_COMM_WORLD);
		}
	}
	return (MPI_Wtime() - start) / 2;
}

static double windows(const struct measure *m, int bytes, int rounds)
{
	MPI_Request request[FLIGHT_MOST];
	MPI_Status status[FLIGHT_MOST];
	double start = MPI_Wtime();
	int i, k;

	for (i = 0; i < rounds; i++) {
		for (k = 0; k < m->flight; k++) {
			if (rank == 0)
				MPI_Isend(out, bytes, MPI_BYTE, 1, 0, MPI_COMM_WORLD, &request[k]);
			else
				MPI_Irecv(in, bytes, MPI_BYTE, 0, 0, MPI_COMM_WORLD, &request[k]);
		}
		MPI_Waitall(m->flight, request, status);
		if (rank == 0)
			MPI_Recv(in, 0, MPI_BYTE, 1, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		else
			MPI_Send(out, 0, MPI_BYTE, 0, 1, MPI_COMM_WORLD);
	}
	return (MPI_Wtime() - start) / m->flight;
}

static double allreduce(const struct measure *m, int bytes, int rounds)
{
	double start = MPI_Wtime();
	int i;

	(void)m;
	for (i = 0; i < rounds; i++)
		MPI_Allreduce(out, in, bytes / (int)sizeof(double), MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
	return MPI_Wtime() - start;
}

static double alltoall(const struct measure *m, int bytes, int rounds)
{
	double start = MPI_Wtime();
	int i;

	(void)m;
	for (i = 0; i < rounds; i++)
		MPI_Alltoall(out, bytes, MPI_BYTE, in, bytes, MPI_BYTE, MPI_COMM_WORLD);
	return MPI_Wtime() - start;
}

static double microseconds(int bytes, double seconds)
{
	(void)bytes;
	return seconds * 1e6;
}

static double megabytes(int bytes, double seconds)
{
	return bytes / seconds / 1e6;
}

static double thousands(int bytes, double seconds)
{
	(void)bytes;
	return 1e-3 / seconds;
}

static const struct measure measures[] = {
	{ "latency", latency, microseconds, 1, { 0, 8, 64, 1024, 8192, 65536, 1048576, LARGEST, -1 }, false },
	{ "bandwidth", windows, megabytes, 16, { 1024, 8192, 65536, 1048576, LARGEST, -1 }, false },
	{ "rate", windows, thousands, FLIGHT_MOST, { 8, -1 }, false },
	{ "allreduce", allreduce, microseconds, 1, { 8, 1024, 65536, 1048576, -1 }, true },
	{ "alltoall", alltoall, microseconds, 1, { 8, 1024, 65536, -1 }, true },
};

static int rounds_of(const struct measure *m, int bytes)
{
	int rounds = bytes <= 8192 ? 400 : bytes <= 65536 ? 80 : 8;

	rounds = m->flight > 1 ? rounds / 8 : rounds;
	return rounds > 2 ? rounds : 2;
}

static void measure(const struct measure *m, int bytes)
{
	int rounds = rounds_of(m, bytes), n;
	double best = 0, took;

	MPI_Barrier(MPI_COMM_WORLD);
	m->batch(m, bytes, rounds / 2); /* warms up, connects */
	for (n = 0; n < BATCHES; n++) {
		took = m->batch(m, bytes, rounds) / rounds;
		best = n == 0 || took < best ? took : best;
	}
	if (rank == 0)
		printf("%s %d %.2f\n", m->what, bytes, m->value(bytes, best));
}

static int cpu_of(char *list, int which)
{
	char *word, *rest = NULL;
	int cpus[64], count = 0;

	for (word = strtok_r(list, ",", &rest); word && count < 64; word = strtok_r(NULL, ",", &rest))
		cpus[count++] = atoi(word);
	return count ? cpus[which % count] : 0;
}

int main(int argc, char **argv)
{
	cpu_set_t cpus;
	size_t i;
	int k;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	out = calloc(1, LARGEST);
	in = calloc(1, LARGEST);
	if (argc != 2 || ranks < 2 || ranks > LARGEST / 65536 || !out || !in) {
		fprintf(stderr, "usage: messages CPU,CPU,...   with 2 to %d ranks\n", LARGEST / 65536);
		MPI_Abort(MPI_COMM_WORLD, 2);
	}
	CPU_ZERO(&cpus);
	CPU_SET(cpu_of(argv[1], rank), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus) < 0) {
		perror("messages: sched_setaffinity");
		MPI_Abort(MPI_COMM_WORLD, 1);
	}
	for (i = 0; i < sizeof(measures) / sizeof(measures[0]); i++) {
		if (!measures[i].collective && ranks > 2)
			continue;
		for (k = 0; measures[i].sizes[k] >= 0; k++)
			measure(&measures[i], measures[i].sizes[k]);
	}
	free(out);
	free(in);
	MPI_Finalize();
	return 0;
}
