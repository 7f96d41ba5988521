/* SPDX-License-Identifier: MIT */
/* fake_image.h - what the test's daemon writes to the image connection when it wants no commit. */
#ifndef TESTS_MSOCK_FAKE_IMAGE_H
#define TESTS_MSOCK_FAKE_IMAGE_H

/* Else: u32 ip of the new host, then the bytes of MS_D_RESUME; the port of the new listener is answered. */
enum { FAKE_SENT = 's', FAKE_FAILS = 'f' };

/* Why image_check refuses. */
#define FAKE_RACED "a socket came meanwhile"

#endif
