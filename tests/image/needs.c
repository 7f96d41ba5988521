/* SPDX-License-Identifier: MIT */
/* needs: what image_needs says of a file that is the same, changed, longer, or gone at the other host. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

int main(void)
{
	char path[] = "/tmp/msock-needs-XXXXXX", why[IMAGE_WHY] = "";
	struct image_needs_blob needs = { 0 };
	int fd = mkstemp(path);
	char *sse2;

	content(path, "as it is");
	close(fd);
	fd = open(path, O_RDONLY);
	ok(image_needs_collect(getpid(), &needs, why) == 0, "collect", why);
	ok(image_needs_check(needs.bytes, needs.size, why) == 0, "this host has all", why);
	sse2 = memmem(needs.bytes, needs.size, " sse2 ", 6);
	if (sse2) {
		memcpy(sse2, " sse9 ", 6);
		ok(image_needs_check(needs.bytes, needs.size, why) && strstr(why, "the processor here lacks sse9"),
		   "a processor without something the source's has is refused by its name", why);
		memcpy(sse2, " sse2 ", 6);
	}
	content(path, "as it IS");
	ok(image_needs_check(needs.bytes, needs.size, why) && strstr(why, path) && strstr(why, "other content"),
	   "other content is named", why);
	content(path, "longer than it was");
	ok(image_needs_check(needs.bytes, needs.size, why) && strstr(why, path) && strstr(why, "bytes"),
	   "another size is named", why);
	unlink(path);
	ok(image_needs_check(needs.bytes, needs.size, why) && strstr(why, path), "a file that is not there is named",
	   why);
	ok(image_needs_check(needs.bytes, needs.size / 2, why) == -1, "half a list is refused", why);
	needs.bytes[0]++;
	ok(image_needs_check(needs.bytes, needs.size, why) == -1, "another version is refused", why);
	image_needs_free(&needs);
	close(fd);
	printf("1..%d\n", number);
	return 0;
}
