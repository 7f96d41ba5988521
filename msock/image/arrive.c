/* SPDX-License-Identifier: MIT */
/* The member's first own code at the target, called by the restorer. */
#include "image/capture.h"
#include "image/baggage.h"
#include "image/image_entry.h"
#include "image/say.h"

int image_prepare(struct image_arrival *a)
{
	struct image_state *st = &image__state;

	if (a->version != IMAGE_ENTRY_VERSION)
		return image_say(a->why, "msrestore and the member's library are of different versions");
	capture_forget();
	st->arrival = a;
	if (baggage_files_return(st->baggage, a))
		return -1;
	if (baggage_signals_restore(st->baggage, a))
		return -1;
	return baggage_process_return(st->baggage, a);
}
