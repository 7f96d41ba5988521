/* SPDX-License-Identifier: MIT */
/*
 * basic.c - msock.h between two processes that stand alone: every byte, every end, every refusal.
 */
#include "msock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { STREAMS = 20, BYTES = 3 << 20, PIECE = 100000, PATIENCE_MS = 30000 };

/* One end of a stream that sends and receives BYTES numbered bytes. */
struct flow {
	int sd;
	uint32_t sent, got;
	bool shut, ended;
};

static uint8_t byte_at(uint32_t stream, uint32_t at)
{
	return (uint8_t)((at * 2654435761u >> 13) + stream);
}

static void flow_write(struct flow *f, uint32_t tag)
{
	uint8_t buf[PIECE];
	struct iovec iov[2];
	ssize_t n;

	while (f->sent < BYTES) {
		uint32_t len = BYTES - f->sent < PIECE ? BYTES - f->sent : PIECE;

		for (uint32_t i = 0; i < len; i++)
			buf[i] = byte_at(tag, f->sent + i);
		iov[0] = (struct iovec){ buf, len / 3 };
		iov[1] = (struct iovec){ buf + len / 3, len - len / 3 };
		n = msock_writev(f->sd, iov, 2);
		if (n < 0 && errno == EAGAIN)
			return;
		assert_true(n > 0);
		f->sent += (uint32_t)n;
	}
	if (!f->shut) {
		assert_int_equal(msock_shutdown(f->sd), 0);
		f->shut = true;
		assert_int_equal(msock_want(f->sd, MSOCK_READ, f), 0);
	}
}

static void flow_read(struct flow *f, uint32_t tag)
{
	uint8_t buf[PIECE];
	struct iovec iov = { buf, sizeof(buf) };
	ssize_t n;

	while ((n = msock_readv(f->sd, &iov, 1)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(buf[i], byte_at(tag, f->got + (uint32_t)i));
		f->got += (uint32_t)n;
	}
	if (n == 0) {
		assert_int_equal(f->got, BYTES);
		f->ended = true;
	} else {
		assert_int_equal(errno, EAGAIN);
	}
}

static void run_flows(struct flow *flows, uint32_t out, uint32_t in)
{
	struct msock_event events[8];
	int left = STREAMS;

	while (left) {
		int n = msock_wait(events, 8, PATIENCE_MS);

		assert_true(n > 0);
		for (int i = 0; i < n; i++) {
			struct flow *f = events[i].user;

			assert_true(f >= flows && f < flows + STREAMS);
			assert_int_equal(msock_error(f->sd), 0);
			if (events[i].events & MSOCK_READ)
				flow_read(f, in);
			if (events[i].events & MSOCK_WRITE)
				flow_write(f, out);
			if (f->ended && f->shut) {
				assert_int_equal(msock_close(f->sd), 0);
				left--;
			}
		}
	}
}

static void client(const struct sockaddr_in *to)
{
	struct flow flows[STREAMS] = { 0 };

	assert_int_equal(msock_init(), 0);
	for (int i = 0; i < STREAMS; i++) {
		flows[i].sd = msock_connect(to);
		assert_true(flows[i].sd >= 0);
		assert_int_equal(msock_want(flows[i].sd, MSOCK_READ | MSOCK_WRITE, &flows[i]), 0);
	}
	run_flows(flows, 1, 2);
	assert_int_equal(msock_finalize(), 0);
}

static void test_streams(void **state)
{
	struct flow flows[STREAMS] = { 0 };
	struct msock_event event;
	struct sockaddr_in at, from;
	int listener, to_child[2], status = 0;
	pid_t pid;

	assert_int_equal(pipe(to_child), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		close(to_child[1]);
		assert_int_equal(read(to_child[0], &at, sizeof(at)), sizeof(at));
		client(&at);
		_exit(0);
	}
	assert_int_equal(msock_init(), 0);
	listener = msock_listen(64, &at);
	assert_true(listener >= 0);
	assert_int_equal(msock_want(listener, MSOCK_READ, &listener), 0);
	assert_int_equal(write(to_child[1], &at, sizeof(at)), sizeof(at));
	for (int i = 0; i < STREAMS;) {
		assert_int_equal(msock_wait(&event, 1, PATIENCE_MS), 1);
		assert_int_equal(event.sd, listener);
		assert_ptr_equal(event.user, &listener);
		flows[i].sd = msock_accept(listener, &from);
		assert_true(flows[i].sd >= 0);
		i++;
	}
	assert_int_equal(msock_accept(listener, NULL), -1);
	assert_int_equal(errno, EAGAIN);
	for (int i = 0; i < STREAMS; i++)
		assert_int_equal(msock_want(flows[i].sd, MSOCK_READ | MSOCK_WRITE, &flows[i]), 0);
	run_flows(flows, 2, 1);
	assert_int_equal(msock_close(listener), 0);
	assert_int_equal(msock_finalize(), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(to_child[0]);
	close(to_child[1]);
}

static void test_connect_to_self(void **state)
{
	struct msock_event event;
	struct sockaddr_in at;
	char word[8] = "hello";
	struct iovec iov = { word, 6 };
	int listener, there, here;

	assert_int_equal(msock_init(), 0);
	listener = msock_listen(4, &at);
	there = msock_connect(&at);
	assert_true(listener >= 0 && there >= 0);
	assert_int_equal(msock_want(there, MSOCK_WRITE, NULL), 0);
	assert_int_equal(msock_want(listener, MSOCK_READ, NULL), 0);
	assert_int_equal(msock_wait(&event, 1, PATIENCE_MS), 1);
	if (event.sd == there) {
		assert_int_equal(msock_want(there, 0, NULL), 0);
		assert_int_equal(msock_wait(&event, 1, PATIENCE_MS), 1);
	}
	assert_int_equal(event.sd, listener);
	here = msock_accept(listener, NULL);
	assert_true(here >= 0);
	assert_int_equal(msock_writev(there, &iov, 1), 6);
	assert_int_equal(msock_close(there), 0);
	memset(word, 0, sizeof(word));
	assert_int_equal(msock_want(listener, 0, NULL), 0);
	assert_int_equal(msock_want(here, MSOCK_READ, word), 0);
	assert_int_equal(msock_wait(&event, 1, PATIENCE_MS), 1);
	assert_ptr_equal(event.user, word);
	assert_int_equal(msock_readv(here, &iov, 1), 6);
	assert_string_equal(word, "hello");
	assert_int_equal(msock_wait(&event, 1, PATIENCE_MS), 1);
	assert_int_equal(msock_readv(here, &iov, 1), 0);
	msock_close(here);
	msock_close(listener);
	assert_int_equal(msock_finalize(), 0);
}

static void test_refused(void **state)
{
	struct msock_event event;
	struct sockaddr_in at;
	struct iovec iov = { &event, 1 };
	int listener, sd;

	assert_int_equal(msock_init(), 0);
	listener = msock_listen(4, &at);
	assert_true(listener >= 0);
	msock_close(listener);
	sd = msock_connect(&at);
	assert_true(sd >= 0);
	assert_int_equal(msock_want(sd, MSOCK_WRITE, NULL), 0);
	assert_int_equal(msock_wait(&event, 1, PATIENCE_MS), 1);
	assert_int_equal(event.sd, sd);
	assert_int_equal(msock_error(sd), ECONNREFUSED);
	assert_int_equal(msock_readv(sd, &iov, 1), -1);
	assert_int_equal(errno, ECONNREFUSED);
	assert_int_equal(msock_close(sd), 0);
	assert_int_equal(msock_close(sd), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(msock_finalize(), 0);
}

static void test_wait_and_wakeup(void **state)
{
	struct msock_event event;

	assert_int_equal(msock_init(), 0);
	assert_int_equal(msock_wait(&event, 1, 0), 0);
	assert_int_equal(msock_wait(&event, 1, 20), 0);
	msock_wakeup();
	assert_int_equal(msock_wait(&event, 1, PATIENCE_MS), 1);
	assert_int_equal(event.sd, -1);
	assert_int_equal(msock_wait(&event, 1, 0), 0);
	assert_int_equal(msock_finalize(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_connect_to_self),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_wait_and_wakeup),
	};

	unsetenv("MSOCK_FD");
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
