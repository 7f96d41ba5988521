/* SPDX-License-Identifier: MIT */
/*
 * joined - two jobs that talk by MPI_Comm_connect, until a file is there.
 *
 * usage: joined serve STOPFILE CALLERS     opens a port, says `port NAME`, and talks with one caller after the other
 *        joined call STOPFILE PORT         calls it
 *        joined try PORT                   calls it, and says the class of the error that it got
 *        joined hear                       listens on TCP, says `tcp PORT`; MPI_Comm_join, one message each way
 *        joined dial PORT
 *
 * In each round every rank sends a message to every rank of the other job and
 * gets one, of lengths that change; every byte is looked at.  Each job's rank 0
 * says `talking` when all have had their first round, then `rounds N` and `checksum HEX` over
 * what its job has received, which the test can work out from N.
 */
#include <arpa/inet.h>
#include <mpi.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LENGTH_MAX = 150000, PEERS_MAX = 64 };

static int rank, ranks;

static void die(const char *what)
{
	printf("rank %d: %s\n", rank, what);
	fflush(stdout);
	MPI_Abort(MPI_COMM_WORLD, 1);
}

static uint32_t mix(uint32_t x)
{
	x ^= x >> 16;
	x *= 0x7feb352du;
	x ^= x >> 15;
	x *= 0x846ca68bu;
	return x ^ x >> 16;
}

/* Lengths below and above the limit between the eager way and the rendezvous. */
static int length(uint32_t key)
{
	return key % 8 ? (int)(key % 3000) + 1 : (int)(key % LENGTH_MAX) + 1;
}

static void fill(unsigned char *bytes, uint32_t key)
{
	for (int i = 0; i < length(key); i++)
		bytes[i] = (unsigned char)mix(key + (uint32_t)i);
}

static void check(const unsigned char *bytes, int got, uint32_t key)
{
	if (got != length(key))
		die("a message of wrong length");
	for (int i = 0; i < got; i++)
		if (bytes[i] != (unsigned char)mix(key + (uint32_t)i))
			die("a message with wrong bytes");
}

/* What the message of a round between two ranks is made of: side 0 serves, 1 calls. */
static uint32_t key_of(int side, int from, int to, uint32_t round)
{
	return mix(round * 8191u + (uint32_t)(side * PEERS_MAX * PEERS_MAX + from * PEERS_MAX + to) + 1u);
}

static void talk(MPI_Comm other, int side, int peers, uint32_t round, uint32_t *sum)
{
	static unsigned char out[PEERS_MAX][LENGTH_MAX], in[PEERS_MAX][LENGTH_MAX];
	MPI_Request requests[2 * PEERS_MAX];
	MPI_Status states[2 * PEERS_MAX];
	int got;

	for (int p = 0; p < peers; p++) {
		uint32_t key = key_of(side, rank, p, round);

		fill(out[p], key);
		MPI_Irecv(in[p], LENGTH_MAX, MPI_BYTE, p, (int)(round % 1000), other, &requests[p]);
		MPI_Isend(out[p], length(key), MPI_BYTE, p, (int)(round % 1000), other, &requests[peers + p]);
	}
	MPI_Waitall(2 * peers, requests, states);
	for (int p = 0; p < peers; p++) {
		uint32_t key = key_of(1 - side, p, rank, round);

		MPI_Get_count(&states[p], MPI_BYTE, &got);
		check(in[p], got, key);
		*sum += key;
	}
}

/* Rounds until rank 0 of the serving side has seen the file; all of both jobs agree on the last one. */
static void conversation(MPI_Comm other, int side, const char *stop)
{
	uint32_t round, sum = 0, total = 0;
	int peers, going = 1;
	MPI_Comm all;

	MPI_Comm_remote_size(other, &peers);
	if (peers > PEERS_MAX)
		die("too many peers");
	MPI_Intercomm_merge(other, side, &all);
	for (round = 0; going; round++) {
		talk(other, side, peers, round, &sum);
		going = side == 0 && rank == 0 ? access(stop, F_OK) != 0 : 0;
		MPI_Allreduce(MPI_IN_PLACE, &going, 1, MPI_INT, MPI_MAX, all);
		if (round == 0 && rank == 0) {
			printf("talking\n");
			fflush(stdout);
		}
	}
	MPI_Comm_free(&all);
	MPI_Reduce(&sum, &total, 1, MPI_UINT32_T, MPI_SUM, 0, MPI_COMM_WORLD);
	if (rank == 0) {
		printf("rounds %u\nchecksum %08x\n", round, total);
		fflush(stdout);
	}
	MPI_Comm_disconnect(&other);
}

static void serve(const char *stop, int callers)
{
	char port[MPI_MAX_PORT_NAME] = "";
	MPI_Comm other;

	if (rank == 0) {
		MPI_Open_port(MPI_INFO_NULL, port);
		printf("port %s\n", port);
		fflush(stdout);
	}
	for (int i = 0; i < callers; i++) {
		MPI_Comm_accept(port, MPI_INFO_NULL, 0, MPI_COMM_WORLD, &other);
		conversation(other, 0, stop);
	}
	if (rank == 0)
		MPI_Close_port(port);
}

static void call(const char *stop, const char *port)
{
	MPI_Comm other;

	MPI_Comm_connect(port, MPI_INFO_NULL, 0, MPI_COMM_WORLD, &other);
	conversation(other, 1, stop);
}

static void attempt(const char *port)
{
	int error, class, size;
	char text[MPI_MAX_ERROR_STRING];
	MPI_Comm other;

	MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
	error = MPI_Comm_connect(port, MPI_INFO_NULL, 0, MPI_COMM_SELF, &other);
	MPI_Error_class(error, &class);
	MPI_Error_string(class, text, &size);
	printf("%s: %s\n", class == MPI_ERR_PORT ? "MPI_ERR_PORT" : "another class", text);
}

static void join(const char *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), caller, number = -1;
	socklen_t size = sizeof(at);
	MPI_Comm other;

	if (port) {
		at.sin_port = htons((uint16_t)atoi(port));
		if (connect(fd, (struct sockaddr *)&at, sizeof(at)))
			die("cannot connect");
	} else {
		if (bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 1) ||
		    getsockname(fd, (struct sockaddr *)&at, &size))
			die("cannot listen");
		printf("tcp %d\n", ntohs(at.sin_port));
		fflush(stdout);
		caller = accept(fd, NULL, NULL);
		close(fd);
		fd = caller;
	}
	MPI_Comm_join(fd, &other);
	close(fd);
	rank = port ? 1 : 0;
	MPI_Sendrecv(&rank, 1, MPI_INT, 0, 0, &number, 1, MPI_INT, 0, 0, other, MPI_STATUS_IGNORE);
	printf("joined with %d\n", number);
	MPI_Comm_disconnect(&other);
}

int main(int argc, char **argv)
{
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	if (argc == 4 && !strcmp(argv[1], "serve"))
		serve(argv[2], atoi(argv[3]));
	else if (argc == 4 && !strcmp(argv[1], "call"))
		call(argv[2], argv[3]);
	else if (argc == 3 && !strcmp(argv[1], "try"))
		attempt(argv[2]);
	else if (argc == 2 && !strcmp(argv[1], "hear"))
		join(NULL);
	else if (argc == 3 && !strcmp(argv[1], "dial"))
		join(argv[2]);
	else
		die("usage: joined serve STOPFILE CALLERS | call STOPFILE PORT | try PORT | hear | dial PORT");
	MPI_Finalize();
	return 0;
}
