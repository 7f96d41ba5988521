/* SPDX-License-Identifier: MIT */
/*
 * hold - preloaded into ranks: MPI_Init returns when somebody has opened the FIFO MSOCK_TEST_HOLD for writing.
 *
 * The first that waits makes a file of the same name and .held.
 * The wait is one open() in the kernel, so what is held can be moved like anything that computes or sleeps.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef int init_function(int *argc, char ***argv);
typedef int init_thread_function(int *argc, char ***argv, int required, int *provided);

static void hold(void)
{
	const char *path = getenv("MSOCK_TEST_HOLD");
	char held[4096];
	int fd;

	if (!path)
		return;
	snprintf(held, sizeof(held), "%s.held", path);
	fd = open(held, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		perror(path);
	else
		close(fd);
}

/* Fortran's bindings call the PMPI names, C programs the others. */
int PMPI_Init(int *argc, char ***argv)
{
	int err = ((init_function *)dlsym(RTLD_NEXT, "PMPI_Init"))(argc, argv);

	hold();
	return err;
}

int PMPI_Init_thread(int *argc, char ***argv, int required, int *provided)
{
	int err = ((init_thread_function *)dlsym(RTLD_NEXT, "PMPI_Init_thread"))(argc, argv, required, provided);

	hold();
	return err;
}

int MPI_Init(int *argc, char ***argv)
{
	return PMPI_Init(argc, argv);
}

int MPI_Init_thread(int *argc, char ***argv, int required, int *provided)
{
	return PMPI_Init_thread(argc, argv, required, provided);
}
