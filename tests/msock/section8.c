/* SPDX-License-Identifier: MIT */
/*
 * section8 - the programs of the msocket paper's section 8, written anew; they know nothing of msock.
 *
 *   section8 tcpcons PORT                        one connection; what comes goes to stdout
 *   section8 tcpconsfork PORT COUNT              a child for each of COUNT connections; what comes goes to stdout
 *   section8 tcpprod IP PORT MS COUNT            COUNT messages, one each MS milliseconds
 *   section8 rndcons PORT SIZE SEED              checks what comes against random(), in buffers of SIZE
 *   section8 rndprod IP PORT SIZE COUNT SEED     COUNT buffers of SIZE random bytes; COUNT 0: until SIGUSR1
 *   section8 rndpipe IP PORT LISTEN SIZE         from a connection to LISTEN to one to IP and PORT
 *   section8 pong PORT                           sends back what comes
 *   section8 ping IP PORT SIZE COUNT             COUNT messages there and back; COUNT 0: until SIGUSR1
 *   section8 udpcons PORT SEED                   numbered datagrams, each checked, every 16th answered; ends at an empty one
 *   section8 udpprod IP PORT MS COUNT SEED [c]   sends them, one each MS milliseconds; COUNT 0: until SIGUSR1; c: connected
 *   section8 udppong PORT, section8 udpping IP PORT COUNT [c]: one datagram there and back after the other, sent again
 *                                                when none has come for a second
 *
 * SIGUSR2: say how many bytes (messages) went by: "at N".  At the end "done N" and what there is to say.  What is wrong ends with 1.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	BUFFER_MAX = 1 << 20,
	DATAGRAM_MAX = 1400,
	UDP_WAIT_MS = 1000,
	UDP_LATE = 10, /* times as long for those that are late at the end */
	UDP_WINDOW =
		64, /* datagrams that nobody has told to have come: more would overflow a queue on a busy machine */
	UDP_TELL = 16,
};

static volatile sig_atomic_t ending, asked;
static volatile uint64_t passed;
static unsigned char buffer[BUFFER_MAX], expected[BUFFER_MAX];

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "section8: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, " (errno %d, %lu passed)\n", errno, passed);
	va_end(args);
	exit(1);
}

static void on_signal(int signal)
{
	if (signal == SIGUSR1)
		ending = 1;
	else
		asked = 1;
}

static void say_if_asked(void)
{
	if (!asked)
		return;
	asked = 0;
	printf("at %lu\n", passed);
	fflush(stdout);
}

static size_t size_of(const char *text)
{
	size_t n = strtoul(text, NULL, 0);

	if (!n || n > BUFFER_MAX)
		die("a size of %s", text);
	return n;
}

static struct sockaddr_in address(const char *ip, const char *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };

	if (ip)
		inet_aton(ip, &at.sin_addr);
	return at;
}

static int listen_at(const char *port)
{
	struct sockaddr_in at = address(NULL, port);
	int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(s, (struct sockaddr *)&at, sizeof(at)) || listen(s, 16))
		die("listen");
	printf("listening\n");
	fflush(stdout);
	return s;
}

static int accept_one(int listener)
{
	int fd;

	while ((fd = accept(listener, NULL, NULL)) < 0)
		if (errno != EINTR)
			die("accept");
	printf("accepted\n");
	fflush(stdout);
	return fd;
}

static int take_one(const char *port)
{
	int listener = listen_at(port), fd = accept_one(listener);

	close(listener);
	return fd;
}

static int connect_to(const char *ip, const char *port)
{
	struct sockaddr_in to = address(ip, port);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
		die("connect");
	printf("connected\n");
	fflush(stdout);
	return fd;
}

static void write_all(int fd, const unsigned char *bytes, size_t n)
{
	while (n) {
		ssize_t done = write(fd, bytes, n);

		if (done < 0 && errno != EINTR)
			die("write");
		if (done > 0) {
			bytes += done;
			n -= (size_t)done;
		}
		say_if_asked();
	}
}

/* As many as there are, at most n; 0 at the end. */
static size_t read_some(int fd, unsigned char *bytes, size_t n)
{
	ssize_t done;

	while ((done = read(fd, bytes, n)) < 0) {
		if (errno != EINTR)
			die("read");
		say_if_asked();
	}
	return (size_t)done;
}

static size_t read_full(int fd, unsigned char *bytes, size_t n)
{
	size_t at = 0, more;

	while (at < n && (more = read_some(fd, bytes + at, n - at)) > 0)
		at += more;
	return at;
}

static void pause_ms(long ms)
{
	struct timespec left = { ms / 1000, ms % 1000 * 1000000 };

	while (ms && nanosleep(&left, &left) && errno == EINTR)
		say_if_asked();
}

static void copy_out(int fd)
{
	size_t n;

	while ((n = read_some(fd, buffer, sizeof(buffer))) > 0) {
		fwrite(buffer, 1, n, stdout);
		fflush(stdout);
		passed += n;
	}
}

static int tcpcons(char **args)
{
	copy_out(take_one(args[0]));
	return 0;
}

static int tcpconsfork(char **args)
{
	int listener = listen_at(args[0]), count = atoi(args[1]);

	signal(SIGCHLD, SIG_IGN); /* none stays behind as a zombie */
	for (int i = 0; i < count; i++) {
		int fd = accept_one(listener);
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid == 0) {
			close(listener);
			copy_out(fd);
			exit(0);
		}
		close(fd);
		passed++;
	}
	while (wait(NULL) >= 0 || errno == EINTR)
		;
	return 0;
}

static int tcpprod(char **args)
{
	int fd = connect_to(args[0], args[1]), count = atoi(args[3]);

	for (int i = 1; i <= count && !ending; i++) {
		int n = snprintf((char *)buffer, sizeof(buffer), "message %d\n", i);

		write_all(fd, buffer, (size_t)n);
		passed++;
		pause_ms(atol(args[2]));
	}
	close(fd);
	return 0;
}

static void fill(unsigned char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bytes[i] = (unsigned char)random();
}

static int rndcons(char **args)
{
	size_t size = size_of(args[1]), n;
	int fd = take_one(args[0]);

	srandom((unsigned)atoi(args[2]));
	do {
		n = read_full(fd, buffer, size);
		fill(expected, n);
		for (size_t i = 0; i < n; i++)
			if (buffer[i] != expected[i])
				die("byte %lu is wrong", passed + i);
		passed += n;
		say_if_asked();
	} while (n == size);
	return 0;
}

static int rndprod(char **args)
{
	size_t size = size_of(args[2]);
	long count = atol(args[3]);
	int fd = connect_to(args[0], args[1]);

	srandom((unsigned)atoi(args[4]));
	for (long i = 0; (!count || i < count) && !ending; i++) {
		fill(buffer, size);
		write_all(fd, buffer, size);
		passed += size;
	}
	close(fd);
	return 0;
}

static int rndpipe(char **args)
{
	size_t size = size_of(args[3]), n;
	int from = take_one(args[2]), to = connect_to(args[0], args[1]);

	while ((n = read_some(from, buffer, size)) > 0) {
		write_all(to, buffer, n);
		passed += n;
		say_if_asked();
	}
	close(to);
	return 0;
}

static void no_delay(int fd)
{
	int one = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		die("TCP_NODELAY");
}

static int pong(char **args)
{
	int fd = take_one(args[0]);
	size_t n;

	no_delay(fd);
	while ((n = read_some(fd, buffer, sizeof(buffer))) > 0) {
		write_all(fd, buffer, n);
		passed += n;
	}
	return 0;
}

static int ping(char **args)
{
	size_t size = size_of(args[2]);
	long count = atol(args[3]);
	int fd = connect_to(args[0], args[1]);

	no_delay(fd);
	for (long i = 0; (!count || i < count) && !ending; i++) {
		fill(expected, size);
		write_all(fd, expected, size);
		if (read_full(fd, buffer, size) != size || memcmp(buffer, expected, size))
			die("message %ld did not come back as it was", i);
		passed++;
		say_if_asked();
	}
	close(fd);
	return 0;
}

/* A datagram's content follows from its number, which is in front. */
static size_t datagram(unsigned char *bytes, uint32_t number, unsigned seed)
{
	size_t size = sizeof(number) + (number * 2654435761u ^ seed) % (DATAGRAM_MAX - sizeof(number));

	memcpy(bytes, &number, sizeof(number));
	for (size_t i = sizeof(number); i < size; i++)
		bytes[i] = (unsigned char)((number + i) * 40503u >> 8 ^ seed);
	return size;
}

static int udp_bound(const char *port)
{
	struct sockaddr_in at = address(NULL, port);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (bind(fd, (struct sockaddr *)&at, sizeof(at)))
		die("bind");
	printf("bound\n");
	fflush(stdout);
	return fd;
}

/* Connected, or told the address with each datagram. */
static int udp_open(char **args, const char *how, struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	*to = address(args[0], args[1]);
	if (how && connect(fd, (struct sockaddr *)to, sizeof(*to)))
		die("connect");
	printf("open\n");
	fflush(stdout);
	return fd;
}

static void udp_put(int fd, const unsigned char *bytes, size_t n, const char *how, const struct sockaddr_in *to)
{
	ssize_t done = how ? write(fd, bytes, n) : sendto(fd, bytes, n, 0, (const struct sockaddr *)to, sizeof(*to));

	if (done != (ssize_t)n)
		die("sending a datagram of %zu bytes", n);
}

static int udpcons(char **args)
{
	unsigned seed = (unsigned)atoi(args[1]);
	uint32_t number = 0, highest = 0, late = 0;
	struct sockaddr_in from, first = { 0 };
	int fd = udp_bound(args[0]);

	for (;;) {
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(fd, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &size);

		if (n < 0 && errno != EINTR)
			die("recvfrom");
		say_if_asked();
		if (n < 0)
			continue;
		if (n == 0)
			break;
		if (!first.sin_port)
			first = from;
		memcpy(&number, buffer, sizeof(number));
		if ((size_t)n != datagram(expected, number, seed) || memcmp(buffer, expected, (size_t)n))
			die("datagram %u is wrong", number);
		if (from.sin_port != first.sin_port || from.sin_addr.s_addr != first.sin_addr.s_addr)
			die("datagram %u comes from elsewhere", number);
		late += number < highest;
		highest = number > highest ? number : highest;
		passed++;
		if (passed % UDP_TELL == 0 &&
		    sendto(fd, &highest, sizeof(highest), 0, (struct sockaddr *)&from, size) < 0)
			die("sendto");
	}
	printf("late %u\n", late);
	return 0;
}

/* Until no more than a window's datagrams are on their way; one that was lost, or its answer, ends the waiting in time. */
static void udp_window(int fd, uint32_t sent, uint32_t *told)
{
	while (sent - *told >= UDP_WINDOW && !ending) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int ready = poll(&p, 1, UDP_WAIT_MS);
		uint32_t number;

		say_if_asked();
		if (ready < 0 && errno != EINTR)
			die("poll");
		if (ready == 0)
			*told = sent;
		if (ready > 0 && read(fd, &number, sizeof(number)) == sizeof(number) && number > *told)
			*told = number;
	}
}

static int udpprod(char **args)
{
	unsigned seed = (unsigned)atoi(args[4]);
	uint32_t count = (uint32_t)atol(args[3]);
	const char *how = args[5];
	struct sockaddr_in to;
	int fd = udp_open(args, how, &to);
	uint32_t told = 0;

	for (uint32_t i = 1; (!count || i <= count) && !ending; i++) {
		udp_put(fd, buffer, datagram(buffer, i, seed), how, &to);
		passed++;
		udp_window(fd, i, &told);
		pause_ms(atol(args[2]));
		say_if_asked();
	}
	pause_ms(UDP_WAIT_MS); /* behind all that may still wait */
	udp_put(fd, buffer, 0, how, &to);
	return 0;
}

static int udppong(char **args)
{
	int fd = udp_bound(args[0]);

	for (;;) {
		struct sockaddr_in from;
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(fd, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &size);

		say_if_asked();
		if (n == 0 || ending)
			return 0;
		if (n > 0 && sendto(fd, buffer, (size_t)n, 0, (struct sockaddr *)&from, size) != n)
			die("sendto");
		passed += n > 0;
	}
}

static uint32_t udp_back; /* datagrams that came back, late ones too */

/* False: it did not come back in time. */
static bool udp_comes_back(int fd, uint32_t number)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct timespec now, start;
	long left = UDP_WAIT_MS;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (left > 0) {
		int ready = poll(&p, 1, (int)left);
		ssize_t n = ready > 0 ? read(fd, buffer, sizeof(buffer)) : -1;

		if (ready < 0 && errno != EINTR)
			die("poll");
		if (ready > 0 && n < 0)
			die("read");
		udp_back += n > 0;
		if (n >= 4 && !memcmp(buffer, &number, sizeof(number))) {
			if ((size_t)n != datagram(expected, number, 7) || memcmp(buffer, expected, (size_t)n))
				die("datagram %u is wrong", number);
			return true;
		}
		say_if_asked();
		clock_gettime(CLOCK_MONOTONIC, &now);
		left = UDP_WAIT_MS - (now.tv_sec - start.tv_sec) * 1000 - (now.tv_nsec - start.tv_nsec) / 1000000;
	}
	return false;
}

static int udpping(char **args)
{
	uint32_t count = (uint32_t)atol(args[2]), again = 0, sent = 0;
	const char *how = args[3];
	struct sockaddr_in to;
	int fd = udp_open(args, how, &to);

	for (uint32_t i = 1; (!count || i <= count) && !ending; i++) {
		for (;;) {
			udp_put(fd, buffer, datagram(buffer, i, 7), how, &to);
			sent++;
			if (udp_comes_back(fd, i))
				break;
			again++;
		}
		passed++;
		say_if_asked();
	}
	for (int i = 0; i < UDP_LATE && udp_back < sent; i++) /* what was taken for lost, and is late */
		udp_comes_back(fd, 0);
	udp_put(fd, buffer, 0, how, &to);
	printf("again %u, lost %u\n", again, sent - udp_back);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int arguments;
		int (*run)(char **args);
	} programs[] = {
		{ "tcpcons", 1, tcpcons }, { "tcpconsfork", 2, tcpconsfork },
		{ "tcpprod", 4, tcpprod }, { "rndcons", 3, rndcons },
		{ "rndprod", 5, rndprod }, { "rndpipe", 4, rndpipe },
		{ "pong", 1, pong },       { "ping", 4, ping },
		{ "udpcons", 2, udpcons }, { "udpprod", 5, udpprod },
		{ "udppong", 1, udppong }, { "udpping", 3, udpping },
	};
	struct sigaction act = { .sa_handler = on_signal };
	int status;

	sigaction(SIGUSR1, &act, NULL);
	sigaction(SIGUSR2, &act, NULL);
	for (size_t i = 0; argc > 1 && i < sizeof(programs) / sizeof(*programs); i++) {
		if (strcmp(argv[1], programs[i].name) || argc - 2 < programs[i].arguments)
			continue;
		status = programs[i].run(argv + 2);
		printf("done %lu\n", passed);
		return status;
	}
	return 2;
}
