/* SPDX-License-Identifier: MIT */
/* msrestore MODE TID: started by image_spawn, which see for its descriptors. */
#include "image/restore/restore.h"

#include "image/mem.h"
#include "image/proc.h"

struct restore restore;

static uint8_t main_stack[256 << 10] __attribute__((aligned(64)));

void restore_start(long *sp);
void restore_enter(void (*fn)(void), void *top);

__asm__(".globl _start\n"
	"_start:\n"
	"	xorl %ebp, %ebp\n"
	"	movq %rsp, %rdi\n"
	"	andq $-16, %rsp\n"
	"	call restore_start\n"
	"	hlt\n"
	"restore_enter:\n"
	"	movq %rsi, %rsp\n"
	"	xorl %ebp, %ebp\n"
	"	call *%rdi\n"
	"	hlt\n");

static int spawn_tid;

static void on_own_stack(void)
{
	place_spawn(restore.mode, spawn_tid);
}

void restore_start(long *sp)
{
	char **argv = (char **)(sp + 1);
	const uint64_t all = ~0ull;
	const char *s;

	if (sp[0] != 3) {
		static const char text[] = "msrestore is started by msdaemon\n";

		ms_write(2, text, sizeof(text) - 1);
		ms_exit_group(2);
	}
	s = argv[1];
	restore.mode = (enum image_mode)proc_number(&s, 10);
	s = argv[2];
	spawn_tid = (int)proc_number(&s, 10);
	ms_sigprocmask(SIG_SETMASK, &all, NULL);
	zone_move_self();
	libc_stand_in();
	restore_enter(on_own_stack, main_stack + sizeof(main_stack));
}
