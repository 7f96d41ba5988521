/* SPDX-License-Identifier: MIT */
#include "proto/channel.h"

#include "proto/log.h"

static struct evbuffer *buffer_new(void)
{
	struct evbuffer *b = evbuffer_new();

	if (!b)
		log_die("out of memory");
	return b;
}

void channel_out_init(struct channel_out *c)
{
	*c = (struct channel_out){ .bytes = buffer_new() };
}

void channel_out_clear(struct channel_out *c)
{
	if (c->bytes)
		evbuffer_free(c->bytes);
	c->bytes = NULL;
}

size_t channel_out_room(const struct channel_out *c)
{
	size_t held = evbuffer_get_length(c->bytes);

	return c->eof || held >= CHANNEL_WINDOW ? 0 : CHANNEL_WINDOW - held;
}

void channel_out_send(struct channel_out *c, struct link *l, uint32_t member, unsigned channel)
{
	uint8_t chunk[CHANNEL_CHUNK];
	struct evbuffer_ptr at;

	for (;;) {
		uint64_t end = c->base + evbuffer_get_length(c->bytes);
		size_t n = end - c->sent > sizeof(chunk) ? sizeof(chunk) : (size_t)(end - c->sent);
		Ms__Data data = MS__DATA__INIT;

		if (n == 0 && (!c->eof || c->eof_sent))
			return;
		if (n > 0) {
			evbuffer_ptr_set(c->bytes, &at, (size_t)(c->sent - c->base), EVBUFFER_PTR_SET);
			evbuffer_copyout_from(c->bytes, &at, chunk, n);
		}
		data.member = member;
		data.channel = channel;
		data.offset = c->sent;
		data.bytes = (ProtobufCBinaryData){ n, chunk };
		c->sent += n;
		data.eof = c->eof && c->sent == end;
		c->eof_sent = data.eof;
		link_send(l, LINK_MSG(DATA, data, &data));
	}
}

void channel_out_ack(struct channel_out *c, uint64_t offset)
{
	uint64_t end = c->base + evbuffer_get_length(c->bytes);

	if (offset <= c->base || offset > end)
		return; /* old, or of somebody who is ahead of us: nothing to drop */
	evbuffer_drain(c->bytes, (size_t)(offset - c->base));
	c->base = offset;
	if (c->sent < offset)
		c->sent = offset;
}

void channel_out_rewind(struct channel_out *c)
{
	c->sent = c->base;
	c->eof_sent = false;
}

void channel_in_init(struct channel_in *c)
{
	*c = (struct channel_in){ .bytes = buffer_new() };
}

void channel_in_clear(struct channel_in *c)
{
	if (c->bytes)
		evbuffer_free(c->bytes);
	c->bytes = NULL;
}

bool channel_in_take(struct channel_in *c, const Ms__Data *data)
{
	uint64_t skip;

	if (c->eof || data->offset > c->next || data->offset + data->bytes.len < c->next)
		return false;
	skip = c->next - data->offset;
	if (skip == data->bytes.len && !data->eof)
		return false;
	if (!c->closed)
		evbuffer_add(c->bytes, data->bytes.data + skip, data->bytes.len - (size_t)skip);
	c->next = data->offset + data->bytes.len;
	c->eof = data->eof;
	return true;
}

void channel_in_close(struct channel_in *c)
{
	c->closed = true;
	evbuffer_drain(c->bytes, evbuffer_get_length(c->bytes));
}

void channel_in_ack(const struct channel_in *c, struct link *l, uint32_t member, unsigned channel)
{
	Ms__Ack ack = MS__ACK__INIT;

	ack.member = member;
	ack.channel = channel;
	ack.offset = c->next - evbuffer_get_length(c->bytes);
	ack.closed = c->closed;
	link_send(l, LINK_MSG(ACK, ack, &ack));
}
