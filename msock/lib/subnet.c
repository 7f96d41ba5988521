/* SPDX-License-Identifier: MIT */
#include "lib/subnet.h"

static struct {
	uint32_t net, mask;
} subnets[SUBNET_MAX];

static unsigned subnet_count;

bool subnet_is_virtual(uint32_t ip)
{
	for (unsigned i = 0; i < subnet_count; i++)
		if ((ip & subnets[i].mask) == subnets[i].net)
			return true;
	return false;
}

bool subnet_add(uint32_t net, unsigned bits)
{
	uint32_t mask = bits >= 1 && bits <= 30 ? ~0u << (32 - bits) : 0;

	if (!mask || subnet_count == SUBNET_MAX)
		return false;
	subnets[subnet_count].net = net & mask;
	subnets[subnet_count].mask = mask;
	subnet_count++;
	return true;
}
