/* SPDX-License-Identifier: MIT */
/* What the mover tells its daemon of a move's course. */
#include "lib/move.h"

#include "lib/conn.h"
#include "lib/control.h"
#include "lib/log.h"
#include "lib/sys.h"

static uint8_t packet[MS_CTL_MAX]; /* the mover's */

void move_say_failed(void)
{
	struct ms_codec c;

	ms_log(LOG_INFO, "move %lu failed: %s", move.m, move.why);
	control_begin(&c, packet, sizeof(packet), MS_M_MOVE_FAILED);
	ms_put_u64(&c, move.m);
	ms_put_str(&c, move.why);
	if (move.phase == MOVE_FROZEN)
		control_send_now(&c, packet, NULL, 0);
	else
		control_send(&c, packet);
}

int move_say_frozen(void)
{
	struct ms_codec c;

	control_begin(&c, packet, sizeof(packet), MS_M_FROZEN);
	ms_put_u64(&c, move.m);
	ms_put_u32(&c, move.drained);
	ms_put_u32(&c, move.mirrored);
	return control_send_now(&c, packet, NULL, 0);
}

int move_say_sent(void)
{
	enum { ENTRY = 13, ROOM = (MS_CTL_MAX - 128) / ENTRY };
	struct ms_codec c, n;
	uint32_t listed = 0, left = 0;
	uint8_t *count;

	control_begin(&c, packet, sizeof(packet), MS_M_IMAGE_SENT);
	ms_put_u64(&c, move.m);
	ms_put_u64(&c, move.stats.sum);
	ms_put_u64(&c, move.stats.bytes);
	ms_put_u32(&c, move.stats.rounds);
	count = ms_codec_skip(&c, 2);
	for (struct conn *s = conn_first(); s; s = s->next) {
		if (s->phase != CONN_OPEN || s->s.state == STREAM_OVER)
			continue;
		if (listed == ROOM) {
			left++;
			continue;
		}
		listed++;
		ms_put_u64(&c, s->s.id);
		ms_put_u32(&c, s->s.leg);
		ms_put_u8(&c, move_by_mirror(s));
	}
	ms_put_u32(&c, left);
	ms_put_u64(&c, move.stats.pages);
	ms_put_u64(&c, move.stats.zero_pages);
	ms_put_u64(&c, move.stats.backed_pages);
	ms_put_u64(&c, move.stats.packed_bytes);
	ms_put_u64(&c, move.stats.saved_bytes);
	ms_codec_init(&n, count, 2);
	ms_put_u16(&n, (uint16_t)listed);
	return control_send_now(&c, packet, NULL, 0);
}

void move_say_checked(const struct image_forecast *f)
{
	uint8_t buf[64];
	struct ms_codec c;

	control_begin(&c, buf, sizeof(buf), MS_M_CHECKED);
	ms_put_u64(&c, move.m);
	ms_put_u64(&c, f->bytes);
	ms_put_u64(&c, f->rate);
	ms_put_u64(&c, f->dirty_rate);
	ms_put_u64(&c, f->freeze_ns);
	ms_put_u64(&c, f->total_ns);
	control_send(&c, buf);
}

/* For people and for the record: lost when the daemon is slow to read, never waited for. */
void move_step(enum ms_step step, const uint64_t figures[MS_STEP_FIGURES])
{
	uint8_t buf[80];
	struct ms_codec c;

	control_begin(&c, buf, sizeof(buf), MS_M_STEP);
	ms_put_u64(&c, move.m);
	ms_put_u8(&c, (uint8_t)step);
	ms_put_u64(&c, ms_clock_ns(CLOCK_MONOTONIC));
	ms_put_u64(&c, ms_clock_ns(CLOCK_REALTIME));
	for (int i = 0; i < MS_STEP_FIGURES; i++)
		ms_put_u64(&c, figures[i]);
	control_send_quick(&c, buf);
}

void move_step_done(enum ms_step step, uint64_t a, uint64_t b, uint64_t c)
{
	const uint64_t figures[MS_STEP_FIGURES] = { a, b, c, 0 };
	enum ms_fault act = ms_fault_at(move.fault, step);

	move_step(step, figures);
	if (act == MS_FAULT_DIE)
		ms_kill(ms_getpid(), SIGKILL);
	else if (act == MS_FAULT_CUT)
		ms_shutdown(move.image_fd, SHUT_RDWR);
}
