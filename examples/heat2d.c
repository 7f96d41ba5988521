/* SPDX-License-Identifier: MIT */
/*
 * heat2d - heat in a square plate, by Jacobi's method.
 *
 * usage: heat2d N STEPS
 *
 * N x N cells inside fixed edges, divided by rows among the ranks.  Each step
 * exchanges the rows at the seams and agrees on the largest change.  The
 * checksum covers every bit of the field and does not depend on the number of
 * ranks.
 */
#include <inttypes.h>
#include <math.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct plate {
	int rank, size;
	int n;              /* cells of a side */
	int first, rows;    /* this rank's rows: first .. first + rows - 1, of 0 .. n - 1 */
	int above, below;   /* ranks that hold the neighbouring rows, or MPI_PROC_NULL */
	size_t width;       /* n + 2: a row with its edges */
	double *now, *next; /* rows + 2 rows of width doubles each; owned */
};

static uint64_t mix64(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static double *plate_row(const struct plate *p, double *field, int row)
{
	return field + (size_t)(row + 1) * p->width;
}

/* Temperature at the start and, outside of the plate, for ever. Row and column from -1 to n. */
static double temperature(int n, int row, int column)
{
	if (row < 0)
		return 100.0;
	if (row >= n)
		return 0.0;
	if (column < 0)
		return 75.0;
	if (column >= n)
		return 50.0;
	return (double)(mix64((uint64_t)row * (uint64_t)n + (uint64_t)column) >> 11) * (100.0 / 9007199254740992.0);
}

static void plate_create(struct plate *p, int n)
{
	int holders, row, column;

	MPI_Comm_rank(MPI_COMM_WORLD, &p->rank);
	MPI_Comm_size(MPI_COMM_WORLD, &p->size);
	holders = p->size < n ? p->size : n; /* ranks beyond have no rows, only the Allreduce */
	p->n = n;
	p->width = (size_t)n + 2;
	p->rows = p->rank < holders ? n / holders + (p->rank < n % holders) : 0;
	p->first = p->rank * (n / holders) + (p->rank < n % holders ? p->rank : n % holders);
	p->above = p->rows > 0 && p->rank > 0 ? p->rank - 1 : MPI_PROC_NULL;
	p->below = p->rows > 0 && p->rank < holders - 1 ? p->rank + 1 : MPI_PROC_NULL;
	p->now = malloc((size_t)(p->rows + 2) * p->width * sizeof(double));
	p->next = malloc((size_t)(p->rows + 2) * p->width * sizeof(double));
	if (!p->now || !p->next) {
		fprintf(stderr, "heat2d: rank %d: no memory for %d rows\n", p->rank, p->rows);
		MPI_Abort(MPI_COMM_WORLD, 1);
	}
	for (row = -1; row <= p->rows; row++)
		for (column = -1; column <= n; column++)
			plate_row(p, p->now, row)[column + 1] = temperature(n, p->first + row, column);
	memcpy(p->next, p->now, (size_t)(p->rows + 2) * p->width * sizeof(double));
}

static void plate_destroy(struct plate *p)
{
	free(p->now);
	free(p->next);
}

/* Returns the largest change of the rows from .. to - 1. */
static double plate_relax(struct plate *p, int from, int to)
{
	double change = 0.0;
	int row;

	for (row = from; row < to; row++) {
		const double *up = plate_row(p, p->now, row - 1), *here = plate_row(p, p->now, row);
		const double *down = plate_row(p, p->now, row + 1);
		double *out = plate_row(p, p->next, row);
		size_t i;

		for (i = 1; i < p->width - 1; i++) {
			double t = 0.25 * ((up[i] + down[i]) + (here[i - 1] + here[i + 1]));
			double d = fabs(t - here[i]);

			out[i] = t;
			change = d > change ? d : change;
		}
	}
	return change;
}

/* One step, the inner rows while the seams are on their way. Returns the whole plate's largest change. */
static double plate_step(struct plate *p)
{
	MPI_Request requests[4];
	MPI_Status statuses[4];
	double change = 0.0, seam, residual;
	int n = p->n;

	MPI_Irecv(plate_row(p, p->now, -1) + 1, n, MPI_DOUBLE, p->above, 1, MPI_COMM_WORLD, &requests[0]);
	MPI_Irecv(plate_row(p, p->now, p->rows) + 1, n, MPI_DOUBLE, p->below, 2, MPI_COMM_WORLD, &requests[1]);
	MPI_Isend(plate_row(p, p->now, 0) + 1, n, MPI_DOUBLE, p->above, 2, MPI_COMM_WORLD, &requests[2]);
	MPI_Isend(plate_row(p, p->now, p->rows - 1) + 1, n, MPI_DOUBLE, p->below, 1, MPI_COMM_WORLD, &requests[3]);
	if (p->rows > 2)
		change = plate_relax(p, 1, p->rows - 1);
	MPI_Waitall(4, requests, statuses);
	if (p->rows > 0) {
		seam = plate_relax(p, 0, 1);
		change = seam > change ? seam : change;
	}
	if (p->rows > 1) {
		seam = plate_relax(p, p->rows - 1, p->rows);
		change = seam > change ? seam : change;
	}
	MPI_Allreduce(&change, &residual, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);

	double *old = p->now;
	p->now = p->next;
	p->next = old;
	return residual;
}

/* A sum over all cells of their bits mixed with their place: equal however the rows are divided. */
static uint64_t plate_checksum(struct plate *p)
{
	uint64_t mine = 0, sum = 0;
	int row, column;

	for (row = 0; row < p->rows; row++)
		for (column = 0; column < p->n; column++) {
			uint64_t bits, cell = (uint64_t)(p->first + row) * (uint64_t)p->n + (uint64_t)column;

			memcpy(&bits, plate_row(p, p->now, row) + 1 + column, sizeof(bits));
			mine += mix64(bits ^ mix64(cell));
		}
	MPI_Reduce(&mine, &sum, 1, MPI_UINT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
	return sum;
}

int main(int argc, char **argv)
{
	struct plate p;
	uint64_t residuals = 0, sum;
	int n, steps, step;

	MPI_Init(&argc, &argv);
	n = argc == 3 ? atoi(argv[1]) : 0;
	steps = argc == 3 ? atoi(argv[2]) : 0;
	if (n < 1 || n > 100000 || steps < 1) {
		fprintf(stderr, "usage: heat2d N STEPS\n");
		MPI_Abort(MPI_COMM_WORLD, 2);
	}
	plate_create(&p, n);
	if (p.rank == 0)
		printf("heat2d: %d x %d cells, %d steps, %d ranks\n", n, n, steps, p.size);
	for (step = 1; step <= steps; step++) {
		double residual = plate_step(&p);
		uint64_t bits;

		memcpy(&bits, &residual, sizeof(bits));
		residuals = mix64(residuals ^ bits);
		if (steps < 10 || step % (steps / 10) != 0)
			continue;
		if (p.rank == 0)
			printf("step %d of %d: residual %.9g\n", step, steps, residual);
		else if (step <= steps / 2) /* early, so that the last line to arrive is rank 0's */
			printf("rank %d: step %d of %d\n", p.rank, step, steps);
		fflush(stdout);
	}
	sum = plate_checksum(&p) ^ residuals;
	if (p.rank == 0)
		printf("checksum %016" PRIx64 "\n", sum);
	plate_destroy(&p);
	MPI_Finalize();
	return 0;
}
