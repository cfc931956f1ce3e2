/* What the `admin` commands that show the cluster's state share. */
#ifndef GRANARY_TOOLS_GRANARY_ADMIN_STATUS_H
#define GRANARY_TOOLS_GRANARY_ADMIN_STATUS_H

#include "tools/granary/cli.h"
#include "tools/granary/cluster_status.h"
#include "tools/granary/json.h"

/* From the leader; freed with cluster_status_free. An exit status, after it has said why. */
int admin_fetch_status(struct cli *cli, Granary__ClusterStatus **out);
void admin_json_drain(struct json *json, const Granary__Drain *drain);
/* The masters, into an open object. */
void admin_json_members(struct json *json, const Granary__ClusterStatus *s);

#endif
