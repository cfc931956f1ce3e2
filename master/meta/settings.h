/* The cluster's settings in the state machine: one record, a copy of it in memory. */
#ifndef GRANARY_MASTER_META_SETTINGS_H
#define GRANARY_MASTER_META_SETTINGS_H

#include "master/meta/state.h"

/* When the store is opened, and when a restore has put other ones there: fills meta->settings, which stays as it is with an error. */
MUST_USE enum err settings_load(struct meta *meta);
/* In the store only. */
void settings_clear(struct meta *meta);

#endif
