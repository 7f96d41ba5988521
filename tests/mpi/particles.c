/* SPDX-License-Identifier: MIT */
/*
 * particles - charges in a long box, bound to where they began: some ranks have many, others few.
 *
 * usage: particles STEPS SCALE WEIGHT...
 *
 * The box is divided among the ranks by length; rank r begins with SCALE times the r-th weight (the last one goes for
 * all further ranks).  In each step every charge feels 24 fixed ones, a spring to its own place and friction, moves,
 * and goes to the neighbour if it has left the rank's part; the ranks agree on the energy.  The checksum covers every
 * bit of all charges in whatever order they are.
 */
#include <inttypes.h>
#include <math.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIXED = 24, FIELDS = 4 };

struct charge {
	double x, v, home, id; /* FIELDS doubles: what is sent */
};

struct part {
	int rank, size;
	struct charge *held;
	int count, room;
	struct charge *leaving[2]; /* to the rank below, above; room as in held */
	int gone[2];
};

static uint64_t mix64(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static void make_room(struct part *p, int count)
{
	if (count <= p->room)
		return;
	p->room = 2 * count;
	p->held = realloc(p->held, (size_t)p->room * sizeof(*p->held));
	for (int side = 0; side < 2; side++)
		p->leaving[side] = realloc(p->leaving[side], (size_t)p->room * sizeof(struct charge));
	if (!p->held || !p->leaving[0] || !p->leaving[1])
		MPI_Abort(MPI_COMM_WORLD, 3);
}

static double force(const struct charge *c)
{
	double f = 0.05 * (c->home - c->x), part = floor(c->x);

	for (int i = 0; i < FIXED; i++) {
		double d = c->x - part - (i + 0.5) / FIXED;

		f += (i % 3 - 1) * 2e-3 * d / sqrt(d * d * d * d + 1e-3);
	}
	return f;
}

/* Returns the energy of this rank's charges; sets who leaves. */
static double advance(struct part *p)
{
	double energy = 0;
	int kept = 0;

	p->gone[0] = p->gone[1] = 0;
	for (int i = 0; i < p->count; i++) {
		struct charge *c = &p->held[i];

		c->v = 0.98 * c->v + 0.01 * force(c);
		c->x += c->v;
		energy += c->v * c->v;
		if (c->x < p->rank && p->rank > 0)
			p->leaving[0][p->gone[0]++] = *c;
		else if (c->x >= p->rank + 1 && p->rank < p->size - 1)
			p->leaving[1][p->gone[1]++] = *c;
		else
			p->held[kept++] = *c;
	}
	p->count = kept;
	return energy;
}

static void exchange(struct part *p)
{
	for (int side = 0; side < 2; side++) {
		int to = side ? p->rank + 1 : p->rank - 1, from = side ? p->rank - 1 : p->rank + 1, coming = 0;

		to = to < 0 || to >= p->size ? MPI_PROC_NULL : to;
		from = from < 0 || from >= p->size ? MPI_PROC_NULL : from;
		MPI_Sendrecv(&p->gone[side], 1, MPI_INT, to, 1, &coming, 1, MPI_INT, from, 1, MPI_COMM_WORLD,
			     MPI_STATUS_IGNORE);
		make_room(p, p->count + coming);
		MPI_Sendrecv(p->leaving[side], p->gone[side] * FIELDS, MPI_DOUBLE, to, 2, p->held + p->count,
			     coming * FIELDS, MPI_DOUBLE, from, 2, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		p->count += coming;
	}
}

static uint64_t checksum(const struct part *p)
{
	uint64_t mine = 0, sum = 0;

	for (int i = 0; i < p->count; i++) {
		uint64_t bits[FIELDS], h = 0;

		memcpy(bits, &p->held[i], sizeof(bits));
		for (int k = 0; k < FIELDS; k++)
			h = mix64(h ^ bits[k]);
		mine += h;
	}
	MPI_Reduce(&mine, &sum, 1, MPI_UINT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
	return sum;
}

int main(int argc, char **argv)
{
	struct part p = { 0 };
	int steps = argc > 3 ? atoi(argv[1]) : 0, number, step;
	uint64_t sum;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &p.rank);
	MPI_Comm_size(MPI_COMM_WORLD, &p.size);
	if (steps < 10) {
		fprintf(stderr, "usage: particles STEPS SCALE WEIGHT...\n");
		MPI_Abort(MPI_COMM_WORLD, 2);
	}
	number = 3 + p.rank < argc ? 3 + p.rank : argc - 1;
	make_room(&p, atoi(argv[2]) * atoi(argv[number]) + 1);
	for (p.count = 0; p.count < atoi(argv[2]) * atoi(argv[number]); p.count++) {
		double at =
			p.rank + (double)(mix64((uint64_t)p.rank << 32 | (uint64_t)p.count) >> 11) / 9007199254740992.0;

		p.held[p.count] = (struct charge){ at, 0, at, p.rank * 1e6 + p.count };
	}
	if (p.rank == 0)
		printf("particles: %d steps, %d ranks\n", steps, p.size);
	for (step = 1; step <= steps; step++) {
		double energy = advance(&p), all;

		exchange(&p);
		MPI_Allreduce(&energy, &all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
		if (step % (steps / 10) == 0 && p.rank == 0)
			printf("step %d of %d: energy %.6g\n", step, steps, all);
		fflush(stdout);
	}
	sum = checksum(&p);
	if (p.rank == 0)
		printf("checksum %016" PRIx64 "\n", sum);
	MPI_Finalize();
	return 0;
}
