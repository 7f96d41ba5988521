/* SPDX-License-Identifier: MIT */
/* The configuration file: what is taken has no subnet twice and can be written down again. */
#include "proto/conf.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct conf conf = { .count = 0 };
	char why[200];

	if (conf_parse("f", (const char *)data, size, "job-1", &conf, why, sizeof(why))) {
		if (!memchr(why, 0, sizeof(why)) || strncmp(why, "f:", 2))
			abort();
		return 0;
	}
	if (conf.count < 1 || conf.count > CONF_SUBNETS)
		abort();
	for (size_t i = 0; i < conf.count; i++) {
		const struct conf_subnet *s = &conf.subnets[i];

		if (s->bits < CONF_BITS_MIN || s->bits > CONF_BITS_MAX || s->net & ~mask_of(s->bits))
			abort();
		for (size_t k = 0; k < i; k++)
			if ((s->net & mask_of(conf.subnets[k].bits)) == conf.subnets[k].net)
				abort();
	}
	return 0;
}
