/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "image/say.h"
#include "image/workspace.h"

static void iov_advance(struct iovec **iov, int *count, size_t n)
{
	while (n) {
		size_t step = (*iov)->iov_len < n ? (*iov)->iov_len : n;

		(*iov)->iov_base = (char *)(*iov)->iov_base + step;
		(*iov)->iov_len -= step;
		n -= step;
		if (!(*iov)->iov_len) {
			(*iov)++;
			(*count)--;
		}
	}
}

int frame_write(struct workspace *ws, const struct iovec *iov, int count, size_t bytes)
{
	struct iovec *at = (struct iovec *)iov; /* ours: in the workspace or on its stack */

	ws->all_bytes += bytes;
	while (bytes) {
		struct msghdr m = { .msg_iov = at, .msg_iovlen = (size_t)count };
		long n = ms_sendmsg(ws->src->sock, &m, MSG_NOSIGNAL);

		if (n == -EINTR)
			continue;
		if (n == -EAGAIN) {
			struct pollfd p = { .fd = ws->src->sock, .events = POLLOUT };

			ms_poll(&p, 1, 60000);
			continue;
		}
		if (n <= 0)
			return image_say(ws->why, "the image cannot be sent to the target: %e", (int)n);
		bytes -= (size_t)n;
		iov_advance(&at, &count, (size_t)n);
	}
	return 0;
}

int frame_read(struct workspace *ws, void *buf, size_t bytes, int timeout_ms)
{
	uint8_t *at = buf;

	while (bytes) {
		struct pollfd p = { .fd = ws->src->sock, .events = POLLIN };
		long n = ms_poll(&p, 1, timeout_ms);

		if (n == -EINTR)
			continue;
		if (n == 0)
			return image_say(ws->why, "the target does not answer");
		n = ms_recv(ws->src->sock, at, bytes, MSG_DONTWAIT);
		if (n == -EAGAIN || n == -EINTR)
			continue;
		if (n == 0)
			return image_say(ws->why, "the target has closed the image connection");
		if (n < 0)
			return image_say(ws->why, "the image connection: %e", (int)n);
		at += n;
		bytes -= (size_t)n;
	}
	return 0;
}

void frame_begin(struct workspace *ws, struct ms_codec *c)
{
	ms_codec_init(c, ws->frame, sizeof(ws->frame));
	ms_codec_skip(c, IMAGE_FRAME_HEAD);
}

int frame_end(struct workspace *ws, struct ms_codec *c, uint8_t type)
{
	size_t bytes = (size_t)(c->at - ws->frame);
	struct iovec iov = { ws->frame, bytes };
	struct ms_codec head;

	if (c->bad)
		return image_say(ws->why, "a part of the image's description is too long");
	ms_codec_init(&head, ws->frame, IMAGE_FRAME_HEAD);
	image_frame_put(&head, type, bytes - IMAGE_FRAME_HEAD);
	return frame_write(ws, &iov, 1, bytes);
}
