/* SPDX-License-Identifier: MIT */
/*
 * h5slab - ranks write one HDF5 file together, by HDF5's MPI library, and read it back.
 *
 * usage: h5slab FILE STEPS
 *
 * A step is a plane of the data set; each rank owns every size-th row of it.
 * Even steps are written collectively, odd ones by each rank alone.  After each
 * step the plane before it is read, rows of the next rank, and every number
 * looked at.  The file has no times in it: two runs write the same bytes.
 */
#include <hdf5.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 8, COLUMNS = 512 }; /* ROWS of each rank */

static int rank, ranks;

static void must(int good, const char *what)
{
	if (good)
		return;
	printf("rank %d: %s failed\n", rank, what);
	fflush(stdout);
	MPI_Abort(MPI_COMM_WORLD, 1);
}

static double number(hsize_t step, hsize_t row, hsize_t column)
{
	return (double)(step * 1000003u + row * 1009u + column) * 0.5;
}

/* The rows of `owner` in a plane. */
static hid_t select_rows(hid_t set, hsize_t step, int owner)
{
	hsize_t start[3] = { step, (hsize_t)owner, 0 }, stride[3] = { 1, (hsize_t)ranks, 1 },
		count[3] = { 1, ROWS, COLUMNS };
	hid_t space = H5Dget_space(set);

	must(space >= 0 && H5Sselect_hyperslab(space, H5S_SELECT_SET, start, stride, count, NULL) >= 0,
	     "selecting rows");
	return space;
}

static void write_step(hid_t set, hid_t memory, hid_t how, hsize_t step)
{
	static double rows[ROWS][COLUMNS];
	hid_t space = select_rows(set, step, rank);

	for (int i = 0; i < ROWS; i++)
		for (int k = 0; k < COLUMNS; k++)
			rows[i][k] = number(step, (hsize_t)(rank + i * ranks), (hsize_t)k);
	must(H5Dwrite(set, H5T_NATIVE_DOUBLE, memory, space, how, rows) >= 0, "writing");
	H5Sclose(space);
}

static void check_step(hid_t set, hid_t memory, hid_t how, hsize_t step)
{
	static double rows[ROWS][COLUMNS];
	int owner = (rank + 1) % ranks;
	hid_t space = select_rows(set, step, owner);

	must(H5Dread(set, H5T_NATIVE_DOUBLE, memory, space, how, rows) >= 0, "reading");
	for (int i = 0; i < ROWS; i++)
		for (int k = 0; k < COLUMNS; k++)
			must(rows[i][k] == number(step, (hsize_t)(owner + i * ranks), (hsize_t)k),
			     "comparing what was read");
	H5Sclose(space);
}

static void work(hid_t file, hsize_t steps)
{
	hsize_t size[3] = { steps, (hsize_t)ranks * ROWS, COLUMNS }, part[3] = { 1, ROWS, COLUMNS };
	hid_t whole = H5Screate_simple(3, size, NULL), memory = H5Screate_simple(3, part, NULL);
	hid_t plain = H5Pcreate(H5P_DATASET_CREATE),
	      how[2] = { H5Pcreate(H5P_DATASET_XFER), H5Pcreate(H5P_DATASET_XFER) };
	hid_t set;

	H5Pset_obj_track_times(plain, 0);
	H5Pset_dxpl_mpio(how[0], H5FD_MPIO_COLLECTIVE);
	H5Pset_dxpl_mpio(how[1], H5FD_MPIO_INDEPENDENT);
	set = H5Dcreate2(file, "planes", H5T_IEEE_F64LE, whole, H5P_DEFAULT, plain, H5P_DEFAULT);
	must(set >= 0, "making the data set");
	for (hsize_t step = 0; step < steps; step++) {
		write_step(set, memory, how[step % 2], step);
		must(H5Fflush(file, H5F_SCOPE_GLOBAL) >= 0, "flushing");
		MPI_Barrier(MPI_COMM_WORLD); /* what a rank wrote alone is there for others after this */
		if (step > 0)
			check_step(set, memory, how[step / 2 % 2], step - 1);
	}
	H5Dclose(set);
	H5Pclose(plain);
	H5Pclose(how[0]);
	H5Pclose(how[1]);
	H5Sclose(whole);
	H5Sclose(memory);
}

int main(int argc, char **argv)
{
	hid_t access, file;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	must(argc == 3 && atoi(argv[2]) > 1, "usage: h5slab FILE STEPS:");
	access = H5Pcreate(H5P_FILE_ACCESS);
	H5Pset_fapl_mpio(access, MPI_COMM_WORLD, MPI_INFO_NULL);
	file = H5Fcreate(argv[1], H5F_ACC_TRUNC, H5P_DEFAULT, access);
	must(file >= 0, "making the file");
	work(file, (hsize_t)atoi(argv[2]));
	must(H5Pclose(access) >= 0 && H5Fclose(file) >= 0, "closing the file");
	if (rank == 0)
		printf("written by %d ranks\n", ranks);
	MPI_Finalize();
	return 0;
}
