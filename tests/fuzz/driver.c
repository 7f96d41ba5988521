/* SPDX-License-Identifier: MIT */
/*
 * driver.c - main of the fuzz targets where they are tests: each input of the
 * corpus, then copies of it that are changed in a few places, the same in each
 * run.  `make fuzz` gives the targets libFuzzer's main instead.
 *
 * The program's name is NAME.t; its corpus is tests/fuzz/corpus/NAME.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DRIVER_BYTES = 1 << 16, DRIVER_CHANGED = 400 /* copies of each input */ };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t random_state = 1;

static uint32_t random_below(uint32_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(random_state >> 33) % n;
}

/* The target gets a block of exactly this size, so that a read behind it is seen. */
static void give(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		abort();
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static size_t change(uint8_t *data, size_t size)
{
	static const uint8_t odd[] = { 0, 1, 0x7f, 0x80, 0xfe, 0xff };

	for (uint32_t n = 1 + random_below(4); n > 0 && size > 0; n--) {
		size_t at = random_below((uint32_t)size), to = random_below((uint32_t)size);

		switch (random_below(5)) {
		case 0:
			data[at] = (uint8_t)random_below(256);
			break;
		case 1:
			data[at] = odd[random_below(sizeof(odd))];
			break;
		case 2:
			data[at] ^= (uint8_t)(1u << random_below(8));
			break;
		case 3:
			size = at;
			break;
		default:
			memmove(data + to, data + at, size - (at > to ? at : to));
		}
	}
	return size;
}

static unsigned run_file(const char *path)
{
	static uint8_t data[DRIVER_BYTES], changed[DRIVER_BYTES];
	FILE *f = fopen(path, "rb");
	size_t size;

	if (!f)
		return 0;
	size = fread(data, 1, sizeof(data), f);
	fclose(f);
	give(data, size);
	for (unsigned i = 0; i < DRIVER_CHANGED; i++) {
		memcpy(changed, data, size);
		give(changed, change(changed, size));
	}
	return 1 + DRIVER_CHANGED;
}

int main(int argc, char **argv)
{
	const char *source = getenv("srcdir"), *name = strrchr(argv[0], '/');
	struct dirent **list = NULL;
	unsigned inputs = 0;
	char dir[4096], path[8192];
	int count;

	name = name ? name + 1 : argv[0];
	snprintf(dir, sizeof(dir), "%s/tests/fuzz/corpus/%.*s", source ? source : ".", (int)strcspn(name, "."), name);
	count = scandir(argc > 1 ? argv[1] : dir, &list, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/%s", argc > 1 ? argv[1] : dir, list[i]->d_name);
		if (list[i]->d_name[0] != '.')
			inputs += run_file(path);
		free(list[i]);
	}
	if (count >= 0)
		free(list);
	printf("%s 1 - %s: %u inputs\n1..1\n", inputs ? "ok" : "not ok", name, inputs);
	return 0;
}
