/* SPDX-License-Identifier: MIT */
/*
 * failing - what ranks that fail, and communicators that are revoked, leave to the others.
 *
 * usage: failing HOW FILE, two ranks
 *
 * revoke     rank 1 gets, in one piece, a REVOKE and messages behind it, then messages for a communicator that it has
 *            revoked and others behind those.  Both times it says `all there`.
 * ssend      rank 0 is killed when it has a small synchronous message that it has not received: rank 1's MPI_Ssend ends in error
 * partial    rank 0 is killed in the middle of a message that rank 1 has not asked for: a receive that asks for it ends in error
 *
 * A rank tells the other that it may go on by FILE.N, so that MPI has no hand in it.
 */
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	MESSAGES = 8,
	WORDS = 100,
	DEAD_COUNTS = 4,
	DEAD_WORDS = 25000,
	LARGE = 100 * 1000,
	LARGE_MESSAGES = 200,
	LIMIT_S = 60
};

static const char *file;
static int rank;
static MPI_Comm dead; /* of both ranks; will be revoked */

static void die(const char *what)
{
	printf("rank %d: %s\n", rank, what);
	fflush(stdout);
	MPI_Abort(MPI_COMM_WORLD, 1);
}

static void name_of(int n, char *path, size_t size)
{
	snprintf(path, size, "%s.%d", file, n);
}

static void say(int n)
{
	char path[4096];
	FILE *made;

	name_of(n, path, sizeof(path));
	made = fopen(path, "w");
	if (!made || fclose(made))
		die("cannot make its file");
}

/* Without MPI: nothing is read from the peer. */
static void hear(int n)
{
	char path[4096];

	name_of(n, path, sizeof(path));
	alarm(LIMIT_S);
	while (access(path, F_OK) != 0)
		usleep(1000);
	alarm(0);
}

static void send_all(void)
{
	int words[WORDS];

	for (int i = 0; i < MESSAGES; i++) {
		for (int k = 0; k < WORDS; k++)
			words[k] = i * WORDS + k;
		if (MPI_Send(words, WORDS, MPI_INT, !rank, i, MPI_COMM_WORLD))
			die("cannot send");
	}
}

static void receive_all(void)
{
	int words[WORDS];

	alarm(LIMIT_S);
	for (int i = 0; i < MESSAGES; i++) {
		MPI_Recv(words, WORDS, MPI_INT, !rank, i, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		for (int k = 0; k < WORDS; k++)
			if (words[k] != i * WORDS + k)
				die("got something else");
	}
	alarm(0);
	printf("rank %d: all there\n", rank);
	fflush(stdout);
}

/*
 * For a communicator of which only the other rank knows that it is revoked: no data, little, some, and more than one read
 * takes. Nothing here may make MPI read, or it learns of it.
 */
static void send_dead(MPI_Request requests[2 * DEAD_COUNTS])
{
	static const int counts[DEAD_COUNTS] = { 0, 1, WORDS, DEAD_WORDS };
	static int words[DEAD_WORDS];

	for (int i = 0; i < DEAD_COUNTS; i++) {
		if (MPI_Isend(words, counts[i], MPI_INT, !rank, 0, dead, &requests[2 * i]))
			die("cannot send to the communicator that it does not know to be revoked");
		if (MPI_Issend(words, counts[i], MPI_INT, !rank, 0, dead, &requests[2 * i + 1]))
			die("cannot send to it synchronously");
	}
}

static void revoked(void)
{
	MPI_Request requests[2 * DEAD_COUNTS];
	MPI_Comm second;

	MPI_Comm_dup(MPI_COMM_WORLD, &dead);
	MPI_Comm_dup(MPI_COMM_WORLD, &second);
	MPI_Comm_set_errhandler(dead, MPI_ERRORS_RETURN);
	MPI_Barrier(MPI_COMM_WORLD);
	if (rank == 0) {
		MPIX_Comm_revoke(second);
		send_all();
		say(0);
		hear(1);
		send_dead(requests);
		send_all();
		say(2);
		for (int i = 0; i < 2 * DEAD_COUNTS; i++)
			MPI_Request_free(&requests[i]); /* nobody answers the synchronous ones */
	} else {
		hear(0);
		receive_all();
		MPIX_Comm_revoke(dead);
		say(1);
		hear(2);
		receive_all();
	}
	MPI_Barrier(MPI_COMM_WORLD);
}

static void expect_failure(int err)
{
	int class = MPI_SUCCESS;

	MPI_Error_class(err, &class);
	printf("rank %d: %s\n", rank, class == MPIX_ERR_PROC_FAILED ? "the process has failed" : "another error");
	fflush(stdout);
}

static void synchronous(void)
{
	MPI_Request request;
	char byte = 0;
	int err;

	if (rank == 0) {
		hear(0);
		raise(SIGKILL);
	}
	err = MPI_Issend(&byte, 1, MPI_CHAR, 0, 0, MPI_COMM_WORLD, &request);
	say(0);
	alarm(LIMIT_S);
	expect_failure(err ? err : MPI_Wait(&request, MPI_STATUS_IGNORE));
}

/* More than the connection takes; the receive of the first that is not whole ends in error. */
static void partial(void)
{
	static char large[LARGE];
	MPI_Request request;
	int err = MPI_SUCCESS;

	if (rank == 0) {
		for (int i = 0; i < LARGE_MESSAGES; i++)
			MPI_Isend(large, LARGE, MPI_CHAR, 1, 0, MPI_COMM_WORLD, &request);
		raise(SIGKILL);
	}
	alarm(LIMIT_S);
	expect_failure(MPI_Recv(large, LARGE, MPI_CHAR, 0, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE));
	for (int i = 0; i < LARGE_MESSAGES && !err; i++)
		err = MPI_Recv(large, LARGE, MPI_CHAR, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
	expect_failure(err);
}

int main(int argc, char **argv)
{
	MPI_Init(&argc, &argv);
	signal(SIGUSR1, SIG_IGN); /* Hydra's word to the others that one has failed; MPI tells us */
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	if (argc != 3)
		die("usage: failing revoke|ssend|partial FILE");
	file = argv[2];
	MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
	MPI_Barrier(MPI_COMM_WORLD);
	if (strcmp(argv[1], "revoke") == 0)
		revoked();
	else if (strcmp(argv[1], "ssend") == 0)
		synchronous();
	else
		partial();
	MPI_Finalize();
	return 0;
}
