/* SPDX-License-Identifier: MIT */
#include "shell.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/log.h"
#include "proto/net.h"

static const char *const passed_env[] = { "MSOCK_HELPERDIR", "MSOCK_LIBDIR", "MSOCK_DEBUG", "MSOCK_FAULT" };
static const char *const own_names[] = { "msdaemon", "msmirror", "msrestore", "msock" };

static void tell_start(struct coord *c, int fd, uint32_t ip)
{
	char hex[2 * SEAL_SECRET + 1], own[NET_IP_TEXT], its[NET_IP_TEXT];
	FILE *f = fdopen(dup(fd), "w");

	if (!f)
		return;
	sodium_bin2hex(hex, sizeof(hex), c->secret, sizeof(c->secret));
	fprintf(f, "secret %s\ncoordinator %s %u\nip %s\n", hex, net_text(c->ip, own), (unsigned)c->port,
		net_text(ip, its));
	for (size_t i = 0; i < sizeof(passed_env) / sizeof(*passed_env); i++)
		if (getenv(passed_env[i]))
			fprintf(f, "env %s=%s\n", passed_env[i], getenv(passed_env[i]));
	fprintf(f, "end\n");
	fclose(f);
	sodium_memzero(hex, sizeof(hex));
}

/* Ours starts with a program's name, or with the time when MSOCK_DEBUG asks for much. */
static bool is_own(const char *line)
{
	for (size_t i = 0; i < sizeof(own_names) / sizeof(*own_names); i++)
		if (!strncmp(line, own_names[i], strlen(own_names[i])))
			return true;
	return log_wanted(LOG_DEBUG);
}

static void end_line(struct shell *s)
{
	s->line[s->size] = 0;
	s->size = 0;
	if (is_own(s->line))
		dprintf(STDERR_FILENO, "%s\n", s->line);
	else
		memcpy(s->last, s->line, sizeof(s->last));
}

static bool read_some(struct shell *s)
{
	char buf[4096];
	ssize_t n = s->err_fd < 0 ? 0 : read(s->err_fd, buf, sizeof(buf));

	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] == '\n' || s->size + 1 == sizeof(s->line))
			end_line(s);
		if (buf[i] != '\n' && buf[i] != '\r')
			s->line[s->size++] = buf[i];
	}
	if (n == 0 && s->readable)
		event_del(s->readable);
	return n > 0;
}

static void readable_cb(evutil_socket_t fd, short what, void *arg)
{
	read_some(arg);
}

const char *shell_last_words(struct shell *s)
{
	while (read_some(s))
		;
	return s->last;
}

static void child(char *const argv[], int in, int err)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	dup2(in, STDIN_FILENO);
	if (err >= 0)
		dup2(err, STDERR_FILENO);
	dup2(STDERR_FILENO, STDOUT_FILENO); /* stdout is our answer to mpiexec */
	close_range(3, ~0u, 0);
	execvp(argv[0], argv);
	log_die("cannot run %s: %s", argv[0], strerror(errno));
}

char *shell_word(const struct coord *c, const char *word, bool remote)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-";
	char *text = malloc(4 * strlen(word) + 3), *at = text;

	if (!text)
		log_die("out of memory");
	if (!remote || !c->launcher_exec || (*word && !word[strspn(word, plain)]))
		return strcpy(text, word);
	*at++ = '\'';
	for (; *word; word++) {
		if (*word == '\'')
			at = stpcpy(at, "'\\''");
		else
			*at++ = *word;
	}
	strcpy(at, "'");
	return text;
}

size_t shell_remote(const struct coord *c, char **argv, char *host)
{
	size_t n = 0;

	if (!c->launcher_exec)
		return allocation_shell(c, argv, host);
	argv[n++] = c->launcher_exec;
	for (size_t i = 0; i < c->launch_count; i++)
		argv[n++] = c->launch_args[i];
	argv[n++] = host;
	return n;
}

int shell_start(struct coord *c, struct shell *s, char *const argv[], uint32_t ip, bool remote)
{
	int in[2] = { -1, -1 }, err[2] = { -1, -1 };

	*s = (struct shell){ .stdin_fd = -1, .err_fd = -1 };
	if (pipe2(in, O_CLOEXEC) || (remote && pipe2(err, O_CLOEXEC)))
		return -1;
	s->pid = fork();
	if (s->pid == 0)
		child(argv, in[0], err[1]);
	close(in[0]);
	if (err[1] >= 0)
		close(err[1]);
	s->stdin_fd = in[1];
	s->err_fd = err[0];
	if (s->pid < 0) {
		s->pid = 0;
		return -1;
	}
	if (s->err_fd >= 0) {
		evutil_make_socket_nonblocking(s->err_fd);
		s->readable = event_new(c->base, s->err_fd, EV_READ | EV_PERSIST, readable_cb, s);
		event_add(s->readable, NULL);
	}
	tell_start(c, s->stdin_fd, ip);
	return 0;
}

void shell_close(struct shell *s)
{
	/* A daemon that is not told waits for the coordinator that comes after one that was killed. */
	if (s->stdin_fd >= 0 && write(s->stdin_fd, "bye\n", 4) < 0 && errno != EPIPE)
		log_say(LOG_INFO, "a child cannot be told that it is over: %s", strerror(errno));
	if (s->stdin_fd >= 0)
		close(s->stdin_fd);
	s->stdin_fd = -1;
}

void shell_end(struct shell *s)
{
	shell_close(s);
	if (s->readable)
		event_free(s->readable);
	if (s->err_fd >= 0)
		close(s->err_fd);
	*s = (struct shell){ .stdin_fd = -1, .err_fd = -1 };
}
