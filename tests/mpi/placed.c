/* SPDX-License-Identifier: MIT */
/*
 * placed - what MPI says about the place of a rank, while it changes.
 *
 * usage: placed STOPFILE
 *
 * Each rank says where it is when that changes: the processor's name, how
 * often MPI_T says it has moved and that it stood still, the size of its group
 * that shares memory, and whether its shared window has kept what it held.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORDS = 4096 };

static MPI_T_pvar_session session;

static MPI_T_pvar_handle find(const char *name)
{
	MPI_T_pvar_handle handle = MPI_T_PVAR_HANDLE_NULL;
	int index, count;

	if (MPI_T_pvar_get_index(name, MPI_T_PVAR_CLASS_COUNTER, &index) == MPI_SUCCESS)
		MPI_T_pvar_handle_alloc(session, index, NULL, &handle, &count);
	return handle;
}

static unsigned long long value(MPI_T_pvar_handle handle)
{
	unsigned long long n = 0;

	MPI_T_pvar_read(session, handle, &n);
	return n;
}

int main(int argc, char **argv)
{
	char name[MPI_MAX_PROCESSOR_NAME], old[MPI_MAX_PROCESSOR_NAME] = "";
	MPI_T_pvar_handle moves, frozen;
	int rank, length, sharers, again, provided, i, stop = 0, *base;
	MPI_Comm near, nearer;
	MPI_Win window;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	if (argc != 2)
		MPI_Abort(MPI_COMM_WORLD, 2);
	MPI_T_init_thread(MPI_THREAD_SINGLE, &provided);
	MPI_T_pvar_session_create(&session);
	moves = find("msock_moves");
	frozen = find("msock_frozen_ns");
	if (moves == MPI_T_PVAR_HANDLE_NULL || frozen == MPI_T_PVAR_HANDLE_NULL) {
		printf("rank %d: there are no such variables\n", rank);
		MPI_Abort(MPI_COMM_WORLD, 1);
	}
	MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &near);
	MPI_Comm_size(near, &sharers);
	MPI_Win_allocate_shared(WORDS * (MPI_Aint)sizeof(int), sizeof(int), MPI_INFO_NULL, near, &base, &window);
	for (i = 0; i < WORDS; i++)
		base[i] = i ^ rank;
	while (!stop) {
		MPI_Get_processor_name(name, &length);
		if (strcmp(name, old)) {
			MPI_Comm_split_type(MPI_COMM_SELF, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &nearer);
			MPI_Comm_size(nearer, &again);
			MPI_Comm_free(&nearer);
			for (i = 0; i < WORDS && base[i] == (i ^ rank); i++)
				;
			printf("rank %d: on %s, moves %llu, %s, shares with %d then %d, window %s\n", rank, name,
			       value(moves), value(frozen) > 0 ? "stood still" : "never stood still", sharers, again,
			       i == WORDS ? "whole" : "torn");
			fflush(stdout);
			strcpy(old, name);
		}
		usleep(20000);
		if (rank == 0)
			stop = access(argv[1], F_OK) == 0;
		MPI_Bcast(&stop, 1, MPI_INT, 0, MPI_COMM_WORLD);
	}
	MPI_Win_free(&window);
	MPI_Comm_free(&near);
	MPI_T_pvar_session_free(&session);
	MPI_T_finalize();
	MPI_Finalize();
	return 0;
}
