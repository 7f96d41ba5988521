/* SPDX-License-Identifier: MIT */
/*
 * msrank-top - shows a job's hosts, ranks and moves as they are, and moves ranks at a key.
 *
 *   msrank-top [JOB] [--every S]
 *
 * A move is made by msrank-move, as a child: what that says is shown in the last line.
 */
#include <curses.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <locale.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "proto/link.h"
#include "proto/wire.h"
#include "show.h"

enum { ANSWER_MS = 10000, LINE = 512, BAR = 20, HOST_WIDTH = 20 };

static const char usage[] =
	"usage: msrank-top [JOB] [--every S]\n"
	"Shows the hosts, ranks and moves of a job as they are; S is 2 by default.\n"
	"Keys: up and down choose a rank, m moves it (to a host whose name or number is asked for),\n"
	"e empties a host, q ends.\n";

struct top {
	struct client *client;
	Ms__Msg *msg;                  /* the last answer; owned */
	size_t chosen;                 /* rank */
	char question[64], input[256]; /* while a line is typed; question "": none */
	int verb;                      /* 'm' or 'e' */
	char said[LINE];               /* the last line */
	pid_t mover;                   /* 0: none */
	int mover_fd;                  /* what it says */
};

static int by_member(const void *a, const void *b)
{
	uint32_t x = (*(Ms__Rank *const *)a)->member, y = (*(Ms__Rank *const *)b)->member;

	return x < y ? -1 : x > y;
}

static bool look(struct top *t)
{
	Ms__PsRequest ask = MS__PS_REQUEST__INIT;
	Ms__Msg *msg = client_ask(t->client, LINK_MSG(PS_REQUEST, ps_request, &ask), ANSWER_MS);

	if (!msg || msg->body_case != MS__MSG__BODY_PS_REPLY)
		return false;
	if (t->msg)
		ms__msg__free_unpacked(t->msg, NULL);
	t->msg = msg;
	qsort(msg->ps_reply->ranks, msg->ps_reply->n_ranks, sizeof(*msg->ps_reply->ranks), by_member);
	if (t->chosen >= msg->ps_reply->n_ranks)
		t->chosen = msg->ps_reply->n_ranks ? msg->ps_reply->n_ranks - 1 : 0;
	return true;
}

/* One digit for each sample: tenths of the processors in use. */
static void history(const Ms__HostState *h, char text[BAR + 1])
{
	size_t n = h->n_busy < BAR ? h->n_busy : BAR;
	double cores = h->now && h->now->cores > 0 ? h->now->cores : 1;

	for (size_t i = 0; i < n; i++) {
		double share = h->busy[h->n_busy - n + i] / cores;

		text[i] = share < 0 ? ' ' : share >= 1 ? '#' : (char)('0' + (int)(share * 10));
	}
	text[n] = 0;
}

static int draw_hosts(const Ms__PsReply *p, int y)
{
	char before[BAR + 1];

	attron(A_BOLD);
	mvprintw(y++, 0, "%3s %-*s %5s %6s %6s %9s %9s  %s", "NO", HOST_WIDTH, "HOST", "RANKS", "CORES", "BUSY",
		 "PRESSURE", "FREE MB", "HISTORY");
	attroff(A_BOLD);
	for (size_t i = 0; i < p->n_hosts && y < LINES - 1; i++) {
		const Ms__HostState *h = p->hosts[i];
		unsigned ranks = 0;

		for (size_t k = 0; k < p->n_ranks; k++)
			ranks += !strcmp(p->ranks[k]->host, h->name) && strcmp(p->ranks[k]->state, "ended");
		history(h, before);
		if (!h->up)
			mvprintw(y++, 0, "%3zu %-*.*s %s", i + 1, HOST_WIDTH, HOST_WIDTH, h->name, show_host_state(h));
		else if (h->silent || !h->now)
			mvprintw(y++, 0, "%3zu %-*.*s %5u %s", i + 1, HOST_WIDTH, HOST_WIDTH, h->name, ranks,
				 h->silent ? show_host_state(h) : "");
		else
			mvprintw(y++, 0, "%3zu %-*.*s %5u %6.2f %6.2f %9.2f %9.0f  %s", i + 1, HOST_WIDTH, HOST_WIDTH,
				 h->name, ranks, h->now->cores, h->now->busy < 0 ? 0 : h->now->busy,
				 h->now->pressure < 0 ? 0 : h->now->pressure, (double)h->now->free_bytes / 1e6, before);
	}
	return y + 1;
}

static int draw_ranks(const struct top *t, const Ms__PsReply *p, int y)
{
	int room = LINES - y - 6; /* for the moves and the last line */
	size_t first = room > 0 && t->chosen >= (size_t)room ? t->chosen - (size_t)room + 1 : 0;

	attron(A_BOLD);
	mvprintw(y++, 0, "%-8s %-*s %8s %-8s %9s %6s %10s %8s %6s", "RANK", HOST_WIDTH, "HOST", "PID", "STATE", "CPU s",
		 "LOAD", "MEMORY MB", "STREAMS", "MOVES");
	attroff(A_BOLD);
	for (size_t i = first; i < p->n_ranks && room-- > 0; i++) {
		const Ms__Rank *r = p->ranks[i];
		char member[SHOW_TEXT], cpu[SHOW_TEXT], load[SHOW_TEXT];

		show_member(r->member, member);
		if (i == t->chosen)
			attron(A_REVERSE);
		mvprintw(y++, 0, "%-8s %-*.*s %8d %-8s %9s %6s %10.1f %8u %6u", member, HOST_WIDTH, HOST_WIDTH, r->host,
			 r->pid, r->state, show_known(r->cpu_s, cpu), show_known(r->load, load),
			 (double)r->rss_bytes / 1e6, r->streams, r->moves);
		attroff(A_REVERSE);
	}
	return y + 1;
}

static void draw_moves(const Ms__PsReply *p, int y)
{
	attron(A_BOLD);
	mvprintw(y++, 0, "LAST MOVES");
	attroff(A_BOLD);
	for (size_t i = 0; i < p->n_moves && y < LINES - 2; i++) {
		const Ms__MoveMade *m = p->moves[i];

		mvprintw(y++, 0, "%u.%u %s -> %s %s %.0f s ago", MS_MEMBER_WORLD(m->member), MS_MEMBER_RANK(m->member),
			 m->from, m->to, m->state, m->ago_s);
		if (!strcmp(m->state, "moved"))
			printw(", freeze %.1f ms, %.1f MB", m->freeze_ms, (double)m->image_bytes / 1e6);
	}
}

static void draw(const struct top *t)
{
	const Ms__PsReply *p = t->msg->ps_reply;
	int y = 2;

	erase();
	mvprintw(0, 0, "msrank-top  job %s  %zu ranks on %zu hosts    up/down m(ove) e(mpty a host) q(uit)", p->job,
		 p->n_ranks, p->n_hosts);
	y = draw_hosts(p, y);
	y = draw_ranks(t, p, y);
	draw_moves(p, y);
	if (*t->question)
		mvprintw(LINES - 1, 0, "%s%s", t->question, t->input);
	else
		mvprintw(LINES - 1, 0, "%.*s", COLS - 1, t->said);
	refresh();
}

/* msrank-move beside us, else wherever the shell would find it. */
static void exec_mover(char *const argv[], int out)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - sizeof("msrank-move"));
	char *slash;

	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	path[n > 0 ? n : 0] = 0;
	slash = strrchr(path, '/');
	if (slash) {
		strcpy(slash + 1, "msrank-move");
		execv(path, argv);
	}
	execvp("msrank-move", argv);
	dprintf(STDERR_FILENO, "cannot run msrank-move: %s\n", strerror(errno));
	_exit(1);
}

static void start_mover(struct top *t, char *const argv[])
{
	int out[2];

	if (pipe2(out, O_CLOEXEC))
		return;
	t->mover = fork();
	if (t->mover == 0)
		exec_mover(argv, out[1]);
	close(out[1]);
	if (t->mover < 0) {
		t->mover = 0;
		close(out[0]);
		return;
	}
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	t->mover_fd = out[0];
}

/* The typed line: a host by name or by its number in the table. */
static void begin(struct top *t)
{
	const Ms__PsReply *p = t->msg->ps_reply;
	char member[SHOW_TEXT], *end, *host = t->input;
	size_t number = strtoul(t->input, &end, 10);

	if (!*t->input || t->mover)
		return;
	if (!*end && number >= 1 && number <= p->n_hosts)
		host = p->hosts[number - 1]->name;
	if (t->verb == 'e') {
		char *argv[] = { "msrank-move", "--job", p->job, "--evacuate", host, NULL };

		snprintf(t->said, sizeof(t->said), "%.200s is being emptied ...", host);
		start_mover(t, argv);
	} else if (t->chosen < p->n_ranks) {
		char *argv[] = { "msrank-move", "--job", p->job, member, host, NULL };
		uint32_t m = p->ranks[t->chosen]->member;

		show_member(m, member);
		snprintf(t->said, sizeof(t->said), "rank %s moves to %.200s ...", member, host);
		start_mover(t, argv);
	}
}

/* What the mover says: its last line stays. */
static void hear(struct top *t)
{
	char buf[4 * LINE];
	ssize_t n = read(t->mover_fd, buf, sizeof(buf) - 1);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		char *line;

		buf[n] = 0;
		if (buf[n - 1] == '\n')
			buf[n - 1] = 0;
		line = strrchr(buf, '\n');
		snprintf(t->said, sizeof(t->said), "%.500s", line ? line + 1 : buf);
		return;
	}
	close(t->mover_fd);
	waitpid(t->mover, NULL, 0);
	t->mover = 0;
}

static void ask(struct top *t, int verb, const char *question)
{
	if (t->mover)
		return;
	t->verb = verb;
	*t->input = 0;
	snprintf(t->question, sizeof(t->question), "%s", question);
}

static void type(struct top *t, int key)
{
	size_t n = strlen(t->input);

	if (key == '\n' || key == '\r' || key == KEY_ENTER) {
		*t->question = 0;
		begin(t);
	} else if (key == 27) {
		*t->question = 0;
	} else if (key == KEY_BACKSPACE || key == 127 || key == '\b') {
		t->input[n ? n - 1 : 0] = 0;
	} else if (key > ' ' && key < 127 && n + 1 < sizeof(t->input)) {
		t->input[n] = (char)key;
		t->input[n + 1] = 0;
	}
}

/* False: end. */
static bool key_pressed(struct top *t, int key)
{
	if (*t->question)
		type(t, key);
	else if (key == 'q')
		return false;
	else if ((key == KEY_UP || key == 'k') && t->chosen > 0)
		t->chosen--;
	else if ((key == KEY_DOWN || key == 'j') && t->chosen + 1 < t->msg->ps_reply->n_ranks)
		t->chosen++;
	else if (key == 'm')
		ask(t, 'm', "move it to host: ");
	else if (key == 'e')
		ask(t, 'e', "empty host: ");
	return true;
}

/* False: the user has had enough. */
static bool wait_keys(struct top *t, int ms)
{
	struct pollfd fds[2] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .fd = -1, .events = POLLIN } };
	int key;

	fds[1].fd = t->mover ? t->mover_fd : -1;
	if (poll(fds, 2, ms) < 0 && errno != EINTR)
		return false;
	if (fds[0].revents & (POLLHUP | POLLERR) && !(fds[0].revents & POLLIN))
		return false;
	if (fds[1].revents)
		hear(t);
	while ((key = getch()) != ERR)
		if (!key_pressed(t, key))
			return false;
	return true;
}

static void run(struct top *t, double every_s)
{
	setlocale(LC_ALL, "");
	initscr();
	cbreak();
	noecho();
	keypad(stdscr, TRUE);
	nodelay(stdscr, TRUE);
	set_escdelay(50);
	curs_set(0);
	do
		draw(t);
	while (wait_keys(t, (int)(every_s * 1000)) && look(t));
	endwin();
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "every", required_argument, NULL, 'e' },
						 { "help", no_argument, NULL, 'h' },
						 { NULL, 0, NULL, 0 } };
	struct top t = { .mover_fd = -1 };
	double every_s = 2;
	const char *job;
	char why[4096];
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'e' && (every_s = atof(optarg)) >= 0.1 && every_s <= 3600)
			continue;
		fputs(usage, opt == 'h' ? stdout : stderr);
		return opt == 'h' ? 0 : 2;
	}
	job = client_word("msrank-top", argc, argv);
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
		fputs("msrank-top: needs a terminal; msrank-ps shows the same once\n", stderr);
		return 1;
	}
	t.client = client_open(job, why, sizeof(why));
	if (!t.client || !look(&t)) {
		fprintf(stderr, "msrank-top: %s\n", t.client ? "the job does not answer" : why);
		return 1;
	}
	run(&t, every_s);
	if (t.msg)
		ms__msg__free_unpacked(t.msg, NULL);
	client_close(t.client);
	return 0;
}
