/* SPDX-License-Identifier: MIT */
/*
 * msgstorm - every rank sends every other messages of random size and content.
 *
 * usage: msgstorm ROUNDS [MAXBYTES] [SEED]
 *
 * The test of the msocket paper (section 8.2, ms_rndprod and ms_rndcons) for
 * all pairs of ranks: both sides of a pair know the seed of each message, so
 * the receiver knows every byte that must come.  There is no barrier between
 * rounds; a rank may be a round ahead of another.
 */
#include <inttypes.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct storm {
	int rank, size;
	uint64_t seed;
	size_t max_bytes;              /* of one message; a multiple of 8 */
	char *out, *in;                /* size - 1 buffers of max_bytes each; owned */
	uint64_t messages, bytes, sum; /* received and found right */
};

static uint64_t mix64(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t message_seed(const struct storm *s, int from, int to, int round)
{
	return mix64(s->seed ^ mix64((uint64_t)round << 32 ^ (uint64_t)from << 16 ^ (uint64_t)to));
}

/* Any order of magnitude is equally likely, none and the largest included. */
static size_t message_bytes(const struct storm *s, uint64_t seed)
{
	uint64_t r = mix64(seed + 1);
	size_t magnitude = s->max_bytes >> (r % 24);

	return (size_t)(mix64(seed + 2) % (magnitude + 1));
}

static void message_fill(uint64_t seed, char *buffer, size_t bytes)
{
	uint64_t word;
	size_t at;

	for (at = 0; at < bytes; at += sizeof(word)) {
		word = mix64(seed ^ (at + 3));
		memcpy(buffer + at, &word, bytes - at < sizeof(word) ? bytes - at : sizeof(word));
	}
}

/* Returns the index of the first wrong byte, or bytes; adds what it read to *sum. */
static size_t message_check(uint64_t seed, const char *buffer, size_t bytes, uint64_t *sum)
{
	uint64_t hash = seed;
	size_t at, i;

	for (at = 0; at < bytes; at += sizeof(uint64_t)) {
		uint64_t got = 0, want = mix64(seed ^ (at + 3));
		size_t n = bytes - at < sizeof(got) ? bytes - at : sizeof(got);

		memcpy(&got, buffer + at, n);
		if (memcmp(&got, &want, n) != 0) {
			for (i = 0; i < n && ((char *)&got)[i] == ((char *)&want)[i]; i++)
				;
			return at + i;
		}
		hash = (hash ^ got) * 0x100000001b3u;
	}
	*sum += mix64(hash ^ bytes);
	return bytes;
}

static void storm_fail(const struct storm *s, int from, int round, const char *what, size_t got, size_t want)
{
	fprintf(stderr, "msgstorm: rank %d, round %d, from rank %d: %s %zu, not %zu\n", s->rank, round, from, what, got,
		want);
	MPI_Abort(MPI_COMM_WORLD, 1);
}

static void storm_take(struct storm *s, int round, const char *buffer, const MPI_Status *status)
{
	int from = status->MPI_SOURCE, count;
	uint64_t seed = message_seed(s, from, s->rank, round);
	size_t want = message_bytes(s, seed), good;

	MPI_Get_count(status, MPI_BYTE, &count);
	if ((size_t)count != want)
		storm_fail(s, from, round, "bytes:", (size_t)count, want);
	good = message_check(seed, buffer, want, &s->sum);
	if (good != want)
		storm_fail(s, from, round, "wrong from byte", good, want);
	s->messages++;
	s->bytes += want;
}

/* Even rounds have all receives posted; odd rounds probe, so that messages come unexpected. */
static void storm_round(struct storm *s, int round)
{
	int others = s->size - 1, i, at;
	MPI_Request sends[others], receives[others];
	MPI_Status status, sent[others];

	if (round % 2 == 0)
		for (i = 0; i < others; i++)
			MPI_Irecv(s->in + (size_t)i * s->max_bytes, (int)s->max_bytes, MPI_BYTE,
				  (s->rank + 1 + i) % s->size, round, MPI_COMM_WORLD, &receives[i]);
	for (i = 0; i < others; i++) {
		int to = (s->rank + 1 + i) % s->size;
		uint64_t seed = message_seed(s, s->rank, to, round);
		size_t bytes = message_bytes(s, seed);
		char *buffer = s->out + (size_t)i * s->max_bytes;

		message_fill(seed, buffer, bytes);
		MPI_Isend(buffer, (int)bytes, MPI_BYTE, to, round, MPI_COMM_WORLD, &sends[i]);
	}
	for (i = 0; i < others; i++) {
		if (round % 2 == 0) {
			MPI_Waitany(others, receives, &at, &status);
		} else {
			at = 0;
			MPI_Probe(MPI_ANY_SOURCE, round, MPI_COMM_WORLD, &status);
			MPI_Recv(s->in, (int)s->max_bytes, MPI_BYTE, status.MPI_SOURCE, round, MPI_COMM_WORLD, &status);
		}
		storm_take(s, round, s->in + (size_t)at * s->max_bytes, &status);
	}
	MPI_Waitall(others, sends, sent);
}

static void storm_report(struct storm *s)
{
	uint64_t mine[3] = { s->messages, s->bytes, s->sum }, all[3] = { 0, 0, 0 };

	MPI_Reduce(mine, all, 3, MPI_UINT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
	if (s->rank != 0)
		return;
	printf("%" PRIu64 " messages, %" PRIu64 " bytes, each byte right\n", all[0], all[1]);
	printf("checksum %016" PRIx64 "\n", mix64(all[0] ^ mix64(all[1] ^ mix64(all[2]))));
}

int main(int argc, char **argv)
{
	struct storm s = { .seed = 1, .max_bytes = 256 * 1024 };
	int rounds, round;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &s.rank);
	MPI_Comm_size(MPI_COMM_WORLD, &s.size);
	rounds = argc > 1 ? atoi(argv[1]) : 0;
	if (argc > 2)
		s.max_bytes = ((size_t)strtoul(argv[2], NULL, 0) + 7) & ~(size_t)7;
	if (argc > 3)
		s.seed = strtoull(argv[3], NULL, 0);
	if (argc > 4 || rounds < 1 || s.max_bytes < 8 || s.max_bytes > 1u << 30 || s.size < 2) {
		fprintf(stderr, "usage: msgstorm ROUNDS [MAXBYTES] [SEED], with 2 ranks or more\n");
		MPI_Abort(MPI_COMM_WORLD, 2);
	}
	s.out = malloc((size_t)(s.size - 1) * s.max_bytes);
	s.in = malloc((size_t)(s.size - 1) * s.max_bytes);
	if (!s.out || !s.in) {
		fprintf(stderr, "msgstorm: rank %d: no memory\n", s.rank);
		MPI_Abort(MPI_COMM_WORLD, 1);
	}
	if (s.rank == 0)
		printf("msgstorm: %d ranks, %d rounds, up to %zu bytes, seed %" PRIu64 "\n", s.size, rounds,
		       s.max_bytes, s.seed);
	for (round = 0; round < rounds; round++) {
		storm_round(&s, round);
		if (rounds >= 10 && (round + 1) % (rounds / 10) == 0 && (round < rounds / 2 || s.rank == 0)) {
			printf("rank %d: round %d of %d, %" PRIu64 " bytes checked\n", s.rank, round + 1, rounds,
			       s.bytes);
			fflush(stdout);
		}
	}
	storm_report(&s);
	free(s.out);
	free(s.in);
	MPI_Finalize();
	return 0;
}
