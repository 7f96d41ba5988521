/* SPDX-License-Identifier: MIT */
/* step.h - steps of a move as JSON: lines of the record, events of msrank-move. */
#ifndef LAUNCHER_STEP_H
#define LAUNCHER_STEP_H

#include <jansson.h>

#include "proto/control.pb-c.h"
#include "proto/steps.h"

/* {"step", "actor", "host", "member", "m", "mono_ns", "wall_ns", and the step's figures by name}; NULL: no such step. */
json_t *step_json(const Ms__Step *s);
/* The step of that name, MS_STEP_NONE if there is none. */
enum ms_step step_of(const char *name);

#endif
