/* The alphabet of sim_crash: operations of one client, through granary.h. Each step of one is noted in the model before it is done and when
 * it has been acknowledged; when the power is cut, what is under way ends in an error, and nothing more is done. */
#ifndef GRANARY_TESTS_SIM_CRASH_OPS_H
#define GRANARY_TESTS_SIM_CRASH_OPS_H

#include "tests/sim/crash_model.h"
#include "tests/sim/crash_world.h"

struct crash {
	struct crash_world world;
	struct granary_cluster *client;
	struct model done;  /* what has been acknowledged */
	struct model begun; /* and what has been begun */
	uint64_t version;   /* of content written last */
};

struct crash_op {
	const char *name;
	bool (*fits)(struct crash *crash); /* it would succeed */
	void (*run)(struct crash *crash);
};

extern const struct crash_op crash_ops[];
extern const unsigned crash_op_count;

/* What there is before each sequence, all of it durable. */
void crash_set_up(struct crash *crash);
/* After the second start: every file that was synced before can be written and synced, and a new one put. */
void crash_check_writable(struct crash *crash, const struct seen *seen);

#endif
