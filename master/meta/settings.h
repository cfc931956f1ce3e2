/* The cluster's settings in the state machine: one record, a copy of it in memory. */
#ifndef GRANARY_MASTER_META_SETTINGS_H
#define GRANARY_MASTER_META_SETTINGS_H

#include "master/meta/state.h"

/* Once, when the store is opened: fills meta->settings. */
MUST_USE enum err settings_load(struct meta *meta);

#endif
