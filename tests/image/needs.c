/* SPDX-License-Identifier: MIT */
/* needs: what image_needs says of a file that is the same, changed, longer, or gone at the other host. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "image/image_needs.h"

static int number;

static void ok(int good, const char *what, const char *why)
{
	printf("%sok %d - %s\n", good ? "" : "not ", ++number, what);
	if (!good)
		printf("# %s\n", why);
}

static void content(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		exit(99);
	close(fd);
}

/* Refused for the sake of a file, whose number in the list this is; 0: not refused, or for something else. */
static uint32_t refused(const struct image_needs_blob *needs, const char *path, const char *word, char why[IMAGE_WHY])
{
	uint32_t which = 0;

	return image_needs_check(needs->bytes, needs->size, &which, why) && strstr(why, path) && strstr(why, word)
		       ? which
		       : 0;
}

static int fits(const struct image_needs_blob *needs, char why[IMAGE_WHY])
{
	uint32_t which;

	return image_needs_check(needs->bytes, needs->size, &which, why) == 0;
}

static void collect(struct image_needs_blob *needs)
{
	char why[IMAGE_WHY] = "";

	image_needs_free(needs);
	ok(image_needs_collect(getpid(), needs, why) == 0, "collect", why);
}

/* What was written this very moment is not compared. */
static void let_it_age(void)
{
	nanosleep(&(struct timespec){ 0, 150000000 }, NULL);
}

/* A file that is open for reading: under `path`, "as it is". */
static void what_differs(struct image_needs_blob *needs, const char *path)
{
	char why[IMAGE_WHY] = "";

	content(path, "as it IS");
	ok(refused(needs, path, "other content", why) > 0, "other content is named", why);
	content(path, "as it is, and longer");
	ok(fits(needs, why), "a file open for reading may have grown", why);
	content(path, "as it");
	ok(refused(needs, path, "bytes", why) > 0, "one that has shrunk is named", why);
}

static void what_holds(struct image_needs_blob *needs, const char *path)
{
	char why[IMAGE_WHY] = "", away[64];
	uint32_t which;
	int fd;

	/* Another host's file is another one; here the one file is there, is not, and is there again. */
	snprintf(away, sizeof(away), "%s-away", path);
	content(path, "as it is");
	let_it_age();
	collect(needs);
	rename(path, away);
	which = refused(needs, path, "No such file", why);
	ok(which > 0, "a file that is not there is named", why);
	ok(!image_needs_holds(needs, getpid(), which) && fits(needs, why),
	   "if it has another name by now, it is not needed", why);
	rename(away, path);
	let_it_age();
	collect(needs);
	content(path, "as it IS");
	which = refused(needs, path, "other content", why);
	ok(which && !image_needs_holds(needs, getpid(), which) && fits(needs, why),
	   "if it was written to, only its name is needed", why);
	collect(needs);
	ok(fits(needs, why), "what was written just now is there", why);
	content(path, "AS IT IS");
	ok(fits(needs, why), "and what is in it is not compared", why);
	unlink(path);
	which = refused(needs, path, "No such file", why);
	fd = open(path, O_RDONLY | O_CREAT, 0600);
	ok(which && !image_needs_holds(needs, getpid(), which) && fits(needs, why),
	   "another file of that name is another file", why);
	close(fd);
	unlink(path);
}

/* A refusal that holds: of a file that is as it was. The list is changed, not the file. */
static void what_stands(struct image_needs_blob *needs, const char *path)
{
	char why[IMAGE_WHY] = "", *name;
	uint32_t which;
	int fd;

	content(path, "as it is");
	fd = open(path, O_RDONLY);
	let_it_age();
	collect(needs);
	name = memmem(needs->bytes, needs->size, path, strlen(path));
	name[0] = '!';
	which = refused(needs, path + 1, "No such file", why);
	name[0] = '/';
	ok(which && image_needs_holds(needs, getpid(), which), "a file that is as it was is missing", why);
	name[strlen(path)]++; /* the size's first byte */
	which = refused(needs, path, "bytes", why);
	ok(which && image_needs_holds(needs, getpid(), which), "a file that is as it was differs", why);
	close(fd);
	unlink(path);
}

int main(void)
{
	char path[] = "/tmp/msock-needs-XXXXXX", why[IMAGE_WHY] = "";
	struct image_needs_blob needs = { 0 };
	int fd = mkstemp(path);
	uint32_t which;
	char *sse2;

	content(path, "as it is");
	close(fd);
	fd = open(path, O_RDONLY);
	let_it_age();
	collect(&needs);
	ok(fits(&needs, why), "this host has all", why);
	sse2 = memmem(needs.bytes, needs.size, " sse2 ", 6);
	if (sse2) {
		memcpy(sse2, " sse9 ", 6);
		ok(!fits(&needs, why) && strstr(why, "the processor here lacks sse9"),
		   "a processor without something the source's has is refused by its name", why);
		memcpy(sse2, " sse2 ", 6);
	}
	what_differs(&needs, path);
	what_holds(&needs, path);
	close(fd);
	what_stands(&needs, path);
	ok(image_needs_check(needs.bytes, needs.size / 2, &which, why) == -1, "half a list is refused", why);
	needs.bytes[0]++;
	ok(image_needs_check(needs.bytes, needs.size, &which, why) == -1, "another version is refused", why);
	image_needs_free(&needs);
	printf("1..%d\n", number);
	return 0;
}
