/* SPDX-License-Identifier: MIT */
/* capture.h - what other parts of the image layer want of the capture. */
#ifndef MSOCK_IMAGE_CAPTURE_H
#define MSOCK_IMAGE_CAPTURE_H

#include "image/image.h"

/* At the target: the workspace that the image tells of does not exist here. */
void capture_forget(void);

/* XCR0: which register sets the kernel saves for a process. */
uint64_t image_xsave_features(void);

#endif
