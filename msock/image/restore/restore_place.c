/* SPDX-License-Identifier: MIT */
/*
 * Namespaces: a helper makes them and puts two processes in, both children of
 * its own parent, then ends: pid 1, which only waits, and the member under its
 * old number.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <sys/mount.h>

#include "image/mem.h"
#include "image/proc.h"
#include "image/restore/restore.h"
#include "image/restore/spawn_report.h"

__attribute__((noreturn)) static void member_run(void)
{
	if (control_restore() || zone_clear_rest() || control_ready() || stream_receive())
		control_failed();
	if (control_wait_resume())
		control_failed();
	threads_go();
}

static int init_pid; /* once it runs; the caller has to reap it */

__attribute__((noreturn)) static void helper_fail(const char *what, int e)
{
	struct spawn_report r = { .init = init_pid };

	image_say(r.why, "%s: %e", what, e);
	ms_write(SPAWN_REPORT_FD, &r, sizeof(r));
	ms_exit_group(1);
}

static int write_text(const char *path, const char *text)
{
	int fd = ms_open(path, O_WRONLY | O_CLOEXEC, 0);
	long n;

	if (fd < 0)
		return fd;
	n = ms_write(fd, text, ms_strlen(text));
	ms_close(fd);
	return n < 0 ? (int)n : 0;
}

static void map_ids(uint64_t uid, uint64_t gid)
{
	char line[64];
	int e;

	write_text("/proc/self/setgroups", "deny");
	image_print(line, sizeof(line), "%u %u 1", uid, uid);
	e = write_text("/proc/self/uid_map", line);
	if (e)
		helper_fail("cannot map the user id in a user namespace", e);
	image_print(line, sizeof(line), "%u %u 1", gid, gid);
	e = write_text("/proc/self/gid_map", line);
	if (e)
		helper_fail("cannot map the group id in a user namespace", e);
}

static void enter_namespaces(void)
{
	int flags = CLONE_NEWPID | (restore.mode <= IMAGE_MODE_NO_TIME ? CLONE_NEWNS : 0);
	uint64_t uid = (uint64_t)ms_sys0(SYS_getuid), gid = (uint64_t)ms_sys0(SYS_getgid);
	int e = ms_unshare(flags);

	if (e != -EPERM && e != 0)
		helper_fail("no pid and mount namespace", e);
	if (e == 0)
		return;
	e = ms_unshare(flags | CLONE_NEWUSER);
	if (e)
		helper_fail("no user namespace", e);
	restore.user_ns = true;
	map_ids(uid, gid);
}

static long fork_beside(const int *tid)
{
	struct clone_args args = { .flags = CLONE_PARENT };

	if (tid) {
		args.set_tid = (uint64_t)tid;
		args.set_tid_size = 1;
	}
	return ms_sys2(SYS_clone3, (long)&args, sizeof(args));
}

/* Pid 1. Lives until the daemon, or its own death, closes the pipe; all others of the namespace die with it. */
__attribute__((noreturn)) static void init_run(int ready)
{
	const struct ms_ksigaction ignore = { .handler = (void *)SIG_IGN };
	int32_t result = 0;
	char byte;

	ms_prctl(PR_SET_NAME, (long)"msrestore-init", 0, 0, 0);
	ms_sys0(SYS_setsid);
	ms_sigaction(SIGCHLD, &ignore, NULL);
	if (restore.mode <= IMAGE_MODE_NO_TIME) {
		/* Slave, not private: what is mounted later outside arrives here too. */
		ms_sys5(SYS_mount, (long)"none", (long)"/", 0, MS_REC | MS_SLAVE, 0);
		result = (int32_t)ms_sys5(SYS_mount, (long)"proc", (long)"/proc", (long)"proc",
					  MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
	}
	ms_write(ready, &result, sizeof(result));
	ms_dup3(SPAWN_ALIVE_FD, 0, 0);
	ms_close_range(1, ~0u, 0);
	while (ms_read(0, &byte, 1) == -EINTR)
		;
	ms_exit_group(0);
}

static void start_init(void)
{
	int32_t result = -EIO;
	int ready[2];
	long pid;

	if (ms_pipe2(ready, O_CLOEXEC))
		helper_fail("no pipe", EMFILE);
	pid = fork_beside(NULL);
	if (pid == 0)
		init_run(ready[1]);
	if (pid < 0)
		helper_fail("no first process in the pid namespace", (int)pid);
	init_pid = (int)pid;
	ms_close(ready[1]);
	ms_read(ready[0], &result, sizeof(result));
	ms_close(ready[0]);
	if (result)
		helper_fail("cannot mount /proc in the new namespace", result);
}

/* What the probe wants to know beyond the start: that a clock can be set. */
__attribute__((noreturn)) static void probe_member(void)
{
	const int64_t offset[2] = { 1000000000, 1000000000 };
	int e = restore.mode == IMAGE_MODE_FULL ? place_clock(offset) : 0;
	struct spawn_report r = { .pid = e ? 0 : ms_getpid() };

	memcpy(r.why, restore.why, sizeof(r.why));
	ms_write(SPAWN_REPORT_FD, &r, sizeof(r));
	ms_exit_group(0);
}

void place_spawn(enum image_mode mode, int tid)
{
	struct spawn_report r = { 0 };
	bool probe = tid == 0;
	int want = probe ? 300 : tid;
	long pid;

	ms_prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	if (mode != IMAGE_MODE_PLAIN) {
		enter_namespaces();
		start_init();
		r.init = init_pid;
	}
	pid = fork_beside(mode != IMAGE_MODE_PLAIN ? &want : NULL);
	if (pid == 0) {
		ms_close(SPAWN_ALIVE_FD);
		if (probe)
			probe_member();
		ms_close(SPAWN_REPORT_FD);
		ms_sys0(SYS_setsid);
		restore.control_fd = SPAWN_CONTROL_FD;
		member_run();
	}
	if (pid < 0)
		helper_fail("cannot start a process under its old number", (int)pid);
	r.pid = (int)pid;
	if (!probe)
		ms_write(SPAWN_REPORT_FD, &r, sizeof(r));
	ms_exit_group(0);
}

/* "name  seconds  nanoseconds", any of them negative; 0 if the line is not there. */
static int64_t offset_parse(const char *text, const char *name)
{
	size_t n = ms_strlen(name);
	int64_t v[2] = { 0, 0 };

	for (const char *s = text; *s; s++) {
		if (memcmp(s, name, n))
			continue;
		s += n;
		for (int i = 0; i < 2; i++) {
			bool negative;

			while (*s == ' ' || *s == '\t')
				s++;
			negative = *s == '-';
			s += negative;
			v[i] = (int64_t)proc_number(&s, 10);
			if (negative)
				v[i] = -v[i];
		}
		break;
	}
	return v[0] * 1000000000 + v[1];
}

static size_t offset_line(char *buf, size_t size, const char *name, int64_t ns)
{
	int64_t s = ns / 1000000000, rest = ns % 1000000000;

	if (rest < 0) {
		s--;
		rest += 1000000000;
	}
	return image_print(buf, size, "%s %s%u %u\n", name, s < 0 ? "-" : "", (uint64_t)(s < 0 ? -s : s),
			   (uint64_t)rest);
}

/* A time namespace whose clocks are `offset` ahead of ours; single-threaded callers only. */
int place_clock(const int64_t offset[2])
{
	char text[256];
	size_t n;
	int fd;
	int e = ms_unshare(0x80 /* CLONE_NEWTIME */);

	if (e)
		return image_say(restore.why, "no time namespace: %e", e);
	/* The kernel's figures count from the machine's clocks, and ours may be shifted already. */
	if (proc_read("/proc/self/timens_offsets", text, sizeof(text)) <= 0)
		text[0] = 0;
	int64_t mono = offset_parse(text, "monotonic") + offset[0];
	int64_t boot = offset_parse(text, "boottime") + offset[1];

	n = offset_line(text, sizeof(text), "monotonic", mono);
	offset_line(text + n, sizeof(text) - n, "boottime", boot);
	e = write_text("/proc/self/timens_offsets", text);
	if (e)
		return image_say(restore.why, "cannot set the clocks of a time namespace: %e", e);
	fd = ms_open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC, 0);
	e = fd < 0 ? fd : ms_setns(fd, 0x80);
	if (fd >= 0)
		ms_close(fd);
	return e ? image_say(restore.why, "cannot enter a time namespace: %e", e) : 0;
}

void place_drop_rights(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2];

	if (!restore.user_ns)
		return;
	memset(none, 0, sizeof(none));
	ms_sys2(SYS_capset, (long)&head, (long)none);
}
