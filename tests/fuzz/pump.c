/* SPDX-License-Identifier: MIT */
/* The state of a member's standard streams, as another daemon sends it. */
#include "msdaemon/pump.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libevent warns of descriptors that are closed already. */
static void on_warning(int severity, const char *text)
{
	if (severity >= EVENT_LOG_WARN)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct link *const nobody = NULL;
	static struct event_base *base;
	Ms__PumpState *state = size ? ms__pump_state__unpack(NULL, size - 1, data + 1) : NULL;
	struct pump *p;

	if (!state)
		return 0;
	if (!base)
		base = event_base_new(), event_set_log_callback(on_warning);
	p = pump_create(base, &nobody, 1, data[0] & 0xf);
	if (!p)
		abort();
	if (pump_state_put(p, state))
		pump_start(p);
	event_base_loop(base, EVLOOP_NONBLOCK);
	pump_destroy(p);
	ms__pump_state__free_unpacked(state, NULL);
	return 0;
}
