/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "feature.h"

static uint32_t mix(uint64_t i)
{
	return (uint32_t)((i * 0x9e3779b97f4a7c15ull) >> 29);
}

static uint32_t in_data = 17, in_bss;

static void pattern(void)
{
	size_t n = 5 << 18;
	uint32_t *heap = malloc(n * 4),
		 *map = mmap(NULL, n * 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t stack[1000];

	for (int k = 0; k < MOVES; k++) {
		for (size_t i = 0; i < n; i++) {
			heap[i] = mix(i + (unsigned)k);
			map[i] = i % 3000 < 1500 ? 0 : mix(i);
		}
		for (size_t i = 0; i < 1000; i++)
			stack[i] = mix(i + 5);
		in_bss = in_data++;
		CHECK(member_move() == 0);
		for (size_t i = 0; i < n; i++) {
			CHECK(heap[i] == mix(i + (unsigned)k));
			CHECK(map[i] == (i % 3000 < 1500 ? 0 : mix(i)));
		}
		for (size_t i = 0; i < 1000; i++)
			CHECK(stack[i] == mix(i + 5));
		CHECK(in_bss + 1 == in_data);
	}
	munmap(map, n * 4);
	free(heap);
}

static void heap(void)
{
	void *keep[300];
	char *at = sbrk(0);

	for (int k = 0; k < MOVES; k++) {
		for (int i = 0; i < 300; i++) {
			keep[i] = malloc((size_t)(i + 1) * 997);
			memset(keep[i], i, (size_t)(i + 1) * 997);
		}
		CHECK(member_move() == 0);
		for (int i = 0; i < 300; i++) {
			char *p = keep[i];

			for (int j = 0; j < (i + 1) * 997; j++)
				CHECK(p[j] == (char)i);
			free(keep[i]);
		}
		CHECK((char *)sbrk(0) >= at);
		at = sbrk(1 << 20);
		CHECK(at != (void *)-1);
		memset(at, 3, 1 << 20);
		CHECK(sbrk(-(1 << 19)) == at + (1 << 20));
	}
}

static int deeper(int n)
{
	volatile char page[4096];

	page[0] = (char)n;
	return n ? deeper(n - 1) + page[0] * 0 + 1 : 0;
}

static void stack(void)
{
	CHECK(deeper(100) == 100);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(deeper(400 * (k + 1)) == 400 * (k + 1)); /* grows beyond what was moved */
	}
}

static uint64_t sum_down(int n, uint64_t seed)
{
	volatile uint64_t frame[200];

	for (int i = 0; i < 200; i++)
		frame[i] = seed + (uint64_t)i;
	if (n) {
		CHECK(sum_down(n - 1, seed * 31 + 7) != 1);
		for (int i = 0; i < 200; i++)
			CHECK(frame[i] == seed + (uint64_t)i);
	}
	return seed | 2;
}

/* Deep and flat again and again, also between what is sent before the freeze and the freeze. */
static void stack_live(void)
{
	uint64_t seed = 99;

	for (int k = 0; k < MOVES; k++) {
		unsigned before = member_moves;
		int deepest = 20;

		CHECK(write(1, "move\n", 5) == 5);
		while (member_moves == before) {
			sum_down((int)(seed >> 33) % deepest, seed);
			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			deepest += deepest < 2000;
		}
	}
}

/* A private mapping of a file whose pieces change their protection all the time. */
static void file_live(void)
{
	enum { N = 64 };
	char path[512];
	uint64_t seed = 7, count[N] = { 0 };
	uint64_t *p;
	int fd;

	snprintf(path, sizeof(path), "%s/live", feature_dir());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && ftruncate(fd, N * 4096) == 0);
	p = mmap(NULL, N * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	for (int k = 0; k < MOVES; k++) {
		unsigned before = member_moves;

		CHECK(write(1, "move\n", 5) == 5);
		while (member_moves == before) {
			size_t i = (seed = seed * 6364136223846793005ull + 1442695040888963407ull) >> 58;
			uint64_t *page = p + i * 512;

			CHECK(page[i] == count[i]);
			CHECK(mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0);
			page[i] = ++count[i];
			CHECK(mprotect(page, 4096, seed & 1 << 20 ? PROT_READ : PROT_READ | PROT_WRITE) == 0);
		}
		for (size_t i = 0; i < N; i++)
			CHECK(p[i * 512 + i] == count[i]);
	}
	unlink(path);
}

static void protections(void)
{
	const size_t page = 4096;
	char *p = mmap(NULL, 8 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int null = open("/dev/null", O_WRONLY);

	memset(p, 5, 8 * page);
	mprotect(p + page, page, PROT_NONE);
	mprotect(p + 3 * page, page, PROT_READ);
	munmap(p + 5 * page, page);
	for (int k = 0; k < MOVES; k++) {
		int fd[2];

		CHECK(member_move() == 0);
		CHECK(pipe(fd) == 0);
		CHECK(write(fd[1], p + page, 1) == -1 && errno == EFAULT);
		CHECK(write(fd[1], p + 5 * page, 1) == -1 && errno == EFAULT);
		CHECK(write(fd[1], "x", 1) == 1);
		CHECK(read(fd[0], p + 3 * page, 1) == -1 && errno == EFAULT);
		close(fd[0]);
		close(fd[1]);
		mprotect(p + page, page, PROT_READ);
		CHECK(p[page] == 5 && p[page + 4095] == 5 && p[4 * page] == 5);
		mprotect(p + page, page, PROT_NONE);
	}
	close(null);
}

static void jit(void)
{
	static const unsigned char code[] = { 0x8d, 0x47, 0x2a, 0xc3 }; /* lea 42(%rdi), %eax; ret */
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int (*fn)(int);

	memcpy(p, code, sizeof(code));
	mprotect(p, 4096, PROT_READ | PROT_EXEC);
	memcpy(&fn, &p, sizeof(fn));
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		CHECK(fn(k) == k + 42);
	}
}

static void sparse(void)
{
	size_t size = 64ul << 30;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(p != MAP_FAILED);
	for (size_t i = 0; i < 64; i++)
		p[(i << 30) + 12345 * i] = (char)(i + 1);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		for (size_t i = 0; i < 64; i++)
			CHECK(p[(i << 30) + 12345 * i] == (char)(i + 1));
	}
}

/* One area with so many runs of pages that the kernel lists them in several pieces, more or fewer at each move. */
static void runs(void)
{
	enum { RUNS = 4500, STEP = 2 * 4096 };
	char *p = mmap(NULL, RUNS * STEP, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int used = 0;

	CHECK(p != MAP_FAILED && madvise(p, RUNS * STEP, MADV_NOHUGEPAGE) == 0);
	for (int k = 0; k < MOVES; k++) {
		int more = k % 2 ? RUNS : 1500;

		for (; used < more; used++)
			memset(p + used * STEP, used % 255 + 1, 4096);
		for (int i = 0; i < used; i += 3)
			p[i * STEP + 17] = (char)(k + 1);
		CHECK(member_move() == 0);
		for (int i = 0; i < used; i++) {
			CHECK(p[i * STEP] == (char)(i % 255 + 1) && p[i * STEP + 4096] == 0);
			CHECK(p[i * STEP + 17] == (i % 3 ? (char)(i % 255 + 1) : (char)(k + 1)));
		}
	}
}

static void file_maps(void)
{
	char path[512];
	int fd;
	char *private, *shared;

	snprintf(path, sizeof(path), "%s/maps", feature_dir());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && ftruncate(fd, 5 * 4096 + 100) == 0);
	CHECK(pwrite(fd, "first", 5, 0) == 5 && pwrite(fd, "third", 5, 8192) == 5);
	private = mmap(NULL, 6 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	shared = mmap(NULL, 6 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	strcpy(private, "mine");
	for (int k = 0; k < MOVES; k++) {
		shared[4096] = (char)('a' + k);
		CHECK(member_move() == 0);
		CHECK(strcmp(private, "mine") == 0 && strcmp(private + 8192, "third") == 0);
		CHECK(strcmp(shared, "first") == 0 && shared[4096] == 'a' + k);
		CHECK(private[4096] == 'a' + k);
	}
	unlink(path);
}

static void shared_anonymous(void)
{
	char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	for (int k = 0; k < MOVES; k++) {
		for (int i = 0; i < 1 << 20; i += 8192)
			p[i] = (char)(i / 8192 + k);
		CHECK(member_move() == 0);
		for (int i = 0; i < 1 << 20; i += 8192)
			CHECK(p[i] == (char)(i / 8192 + k) && p[i + 4096] == 0);
	}
}

/* Values that are nowhere but in registers while the move happens. */
__attribute__((target("avx2"))) static void avx2(void)
{
	for (int k = 0; k < MOVES; k++) {
		uint8_t out[32 * 4];
		uint8_t in[32 * 4];
		unsigned before = member_moves;

		for (size_t i = 0; i < sizeof(in); i++)
			in[i] = (uint8_t)mix(i + (unsigned)k);
		CHECK(write(1, "move\n", 5) == 5);
		__asm__ volatile("vmovdqu 0(%1), %%ymm8\n vmovdqu 32(%1), %%ymm9\n"
				 "vmovdqu 64(%1), %%ymm14\n vmovdqu 96(%1), %%ymm15\n"
				 "1: pause\n cmpl %2, (%3)\n je 1b\n"
				 "vmovdqu %%ymm8, 0(%0)\n vmovdqu %%ymm9, 32(%0)\n"
				 "vmovdqu %%ymm14, 64(%0)\n vmovdqu %%ymm15, 96(%0)\n"
				 :
				 : "r"(out), "r"(in), "r"(before), "r"(&member_moves)
				 : "xmm8", "xmm9", "xmm14", "xmm15", "memory");
		CHECK(memcmp(in, out, sizeof(in)) == 0);
	}
}

__attribute__((target("avx512f"))) static void avx512_loop(const uint8_t *in, uint8_t *out, unsigned before)
{
	__asm__ volatile("vmovdqu64 0(%1), %%zmm3\n vmovdqu64 64(%1), %%zmm30\n"
			 "movl $0x5a5a, %%eax\n kmovw %%eax, %%k5\n"
			 "1: pause\n cmpl %2, (%3)\n je 1b\n"
			 "vmovdqu64 %%zmm3, 0(%0)\n vmovdqu64 %%zmm30, 64(%0)\n"
			 "kmovw %%k5, %%eax\n movl %%eax, 128(%0)\n"
			 :
			 : "r"(out), "r"(in), "r"(before), "r"(&member_moves)
			 : "eax", "xmm3", "xmm30", "k5", "memory");
}

static void avx512(void)
{
	uint8_t in[128], out[132];
	uint32_t mask;

	if (!__builtin_cpu_supports("avx512f"))
		feature_skip("the processor has no AVX-512");
	for (int k = 0; k < MOVES; k++) {
		unsigned before = member_moves;

		for (size_t i = 0; i < sizeof(in); i++)
			in[i] = (uint8_t)mix(i + 7 * (unsigned)k);
		CHECK(write(1, "move\n", 5) == 5);
		avx512_loop(in, out, before);
		memcpy(&mask, out + 128, 4);
		CHECK(memcmp(in, out, 128) == 0 && mask == 0x5a5a);
	}
}

static void rounding(void)
{
	volatile double a = 1, b = 3;
	double up;
	long double x;

	fesetround(FE_UPWARD);
	up = a / b;
	__asm__ volatile("fldpi\n" : "=t"(x));
	for (int k = 0; k < MOVES; k++) {
		unsigned before = member_moves;
		long double y;

		CHECK(write(1, "move\n", 5) == 5);
		__asm__ volatile("fldpi\n 1: pause\n cmpl %1, (%2)\n je 1b\n fstpt %0\n"
				 : "=m"(y)
				 : "r"(before), "r"(&member_moves)
				 : "memory");
		CHECK(fegetround() == FE_UPWARD && a / b == up && y == x);
	}
	fesetround(FE_TONEAREST);
	CHECK(a / b < up);
}

static void huge(void)
{
	size_t n = 48ul << 20;
	char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(p, n, MADV_HUGEPAGE);
	for (size_t i = 0; i < n; i += 1000)
		p[i] = (char)mix(i);
	for (int k = 0; k < MOVES; k++) {
		CHECK(member_move() == 0);
		for (size_t i = 0; i < n; i += 1000)
			CHECK(p[i] == (char)mix(i));
		p = mremap(p, n, n + (4 << 20), MREMAP_MAYMOVE);
		CHECK(p != MAP_FAILED);
		n += 4 << 20;
		memset(p + n - (4 << 20), 0, 4 << 20);
		for (size_t i = (n - (4 << 20) + 999) / 1000 * 1000; i < n; i += 1000)
			p[i] = (char)mix(i);
	}
}

static void growing(void)
{
	/* The layout changes all the time, also between what is announced and the freeze. */
	char *p[64] = { NULL };
	unsigned from = member_moves;
	uint64_t seed = 1;

	for (int k = 0; k < MOVES; k++) {
		CHECK(write(1, "move\n", 5) == 5);
		while (member_moves == from + (unsigned)k) {
			size_t i = (seed = seed * 6364136223846793005ull + 1442695040888963407ull) >> 58;
			size_t n = ((seed >> 40 & 31) + 1) * 4096;

			if (p[i]) {
				size_t had;

				memcpy(&had, p[i], sizeof(had));
				CHECK(p[i][had - 1] == (char)had && had >= 4096 && had <= 32 * 4096);
				CHECK(munmap(p[i], had) == 0);
			}
			p[i] = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			CHECK(p[i] != MAP_FAILED);
			memcpy(p[i], &n, sizeof(n));
			p[i][n - 1] = (char)n;
		}
	}
}

enum { TABLE = 8192, PAGE_WORDS = 512 };

static uint64_t (*table)[PAGE_WORDS];
static uint32_t writes[TABLE]; /* 0: the page is zero */

static void table_check(uint32_t i)
{
	uint64_t want = writes[i] ? (uint64_t)i << 32 | writes[i] : 0;

	CHECK(table[i][0] == want && table[i][i % PAGE_WORDS] == want && table[i][PAGE_WORDS - 1] == want);
}

static void table_change(uint64_t seed)
{
	uint32_t i = (uint32_t)(seed >> 40) % TABLE, n = (uint32_t)(seed >> 20) % 16 + 1;

	table_check(i);
	switch (seed >> 60) {
	case 0: /* given back: zero again */
		if (i + n > TABLE)
			break;
		madvise(table[i], n * 4096ul, MADV_DONTNEED);
		memset(&writes[i], 0, n * sizeof(writes[0]));
		break;
	case 1: /* another mapping at the same place */
		if (i + n > TABLE)
			break;
		CHECK(mmap(table[i], n * 4096ul, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			   0) == table[i]);
		memset(&writes[i], 0, n * sizeof(writes[0]));
		break;
	case 2: /* pages change their places */
		if (i + 2 * n > TABLE)
			break;
		for (uint32_t k = i; k < i + 2 * n; k++)
			table_check(k);
		if (mremap(table[i], n * 4096ul, n * 4096ul, MREMAP_MAYMOVE | MREMAP_FIXED, table[i + n]) ==
		    MAP_FAILED) {
			/* Not one mapping. What has been moved before that was seen depends on the kernel. */
			CHECK(mmap(table[i], 2 * n * 4096ul, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == table[i]);
			memset(&writes[i], 0, 2 * n * sizeof(writes[0]));
			break;
		}
		CHECK(mmap(table[i], n * 4096ul, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			   0) == table[i]);
		for (uint32_t k = i; k < i + n; k++) {
			if (writes[k])
				for (int w = 0; w < PAGE_WORDS; w++)
					table[k + n][w] = (uint64_t)(k + n) << 32 | writes[k];
			writes[k + n] = writes[k];
			writes[k] = 0;
		}
		break;
	case 3: /* zeros that are written */
		memset(table[i], 0, 4096);
		writes[i] = 0;
		break;
	default:
		writes[i]++;
		for (int w = 0; w < PAGE_WORDS; w++)
			table[i][w] = (uint64_t)i << 32 | writes[i];
	}
}

/* Memory that changes in every way all the time, also between the rounds. */
static void writer(void)
{
	uint64_t seed = 12345;

	table = mmap(NULL, TABLE * 4096ul, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(table != MAP_FAILED);
	for (int k = 0; k < MOVES; k++) {
		unsigned before = member_moves;

		CHECK(write(1, "move\n", 5) == 5);
		while (member_moves == before)
			table_change(seed = seed * 6364136223846793005ull + 1442695040888963407ull);
		for (uint32_t i = 0; i < TABLE; i++)
			table_check(i);
	}
}

const struct feature memory_features[] = {
	{ "writer", writer },
	{ "pattern", pattern },
	{ "heap", heap },
	{ "stack", stack },
	{ "stack-live", stack_live },
	{ "file-live", file_live },
	{ "protections", protections },
	{ "jit", jit },
	{ "sparse", sparse },
	{ "runs", runs },
	{ "file-maps", file_maps },
	{ "shared-anonymous", shared_anonymous },
	{ "avx2", avx2 },
	{ "avx512", avx512 },
	{ "rounding", rounding },
	{ "huge", huge },
	{ "growing", growing },
	{ NULL, NULL },
};
