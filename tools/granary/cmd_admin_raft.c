/* admin raft: the masters: who they are, one more, one less, another leader. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "tools/granary/admin_call.h"
#include "tools/granary/admin_status.h"
#include "tools/granary/commands.h"

#define POLL_MS 200

#define ADD 1u
#define REMOVE 2u
#define TRANSFER 3u

static const Granary__RaftMember *find(const Granary__ClusterStatus *status, uint64_t id)
{
	for (size_t i = 0; i < status->n_members; i++) {
		if (status->members[i]->id == id)
			return status->members[i];
	}
	return NULL;
}

static const char *role_of(const Granary__ClusterStatus *status, const Granary__RaftMember *member)
{
	if (member->id == status->leader)
		return "leader";
	if (!member->learner)
		return "follower";
	return member->snapshot ? "snapshot" : "learner";
}

static int show(struct cli *cli, bool as_json)
{
	Granary__ClusterStatus *status = NULL;
	int result = admin_fetch_status(cli, &status);
	if (result == EXIT_DONE && as_json) {
		struct json json;
		json_init(&json, stdout);
		json_open(&json, NULL, '{');
		admin_json_members(&json, status);
		json_close(&json, '}');
	} else if (result == EXIT_DONE) {
		printf("term %" PRIu64 ", commit %" PRIu64 ", applied %" PRIu64 ", log %" PRIu64 " to %" PRIu64 "\n",
		       status->term, status->commit, status->applied, status->log_first, status->log_last);
		printf("%4s  %-21s  %-8s  %-16s  %12s  %s\n", "id", "address", "role", "node", "match", "last heard");
		for (size_t i = 0; i < status->n_members; i++) {
			const Granary__RaftMember *m = status->members[i];
			printf("%4" PRIu64 "  %-21s  %-8s  %016" PRIx64 "  %12" PRIu64 "  ", m->id, m->address,
			       role_of(status, m), m->node, m->match);
			if (m->id == status->leader)
				puts("-");
			else
				printf("%" PRIu64 " ms ago\n", m->contact_ms);
		}
	}
	cluster_status_free(status);
	return result;
}

/* ---- changes */

static enum err status_of(struct admin *admin, Granary__ClusterStatus **out)
{
	Granary__ClusterStatusRequest request = GRANARY__CLUSTER_STATUS_REQUEST__INIT;
	return admin_call(admin, MESSAGE_CLUSTER_STATUS, &request.base, (ProtobufCMessage **)out);
}

static const char *reason(enum err err, unsigned kind)
{
	switch (err) {
	case ERR_NOT_FOUND:
		return "no master has this id (granary admin raft status lists them)";
	case ERR_EXISTS:
		return kind == TRANSFER ? "it leads already" : "this id is another master's: remove it first, or choose another";
	case ERR_WRONG_MASTER:
		return "no master of this id answers at that address (start it with --id, --members naming the others, and an "
		       "empty folder)";
	case ERR_WRONG_CLUSTER:
		return "the master at that address belongs to another cluster";
	case ERR_TOO_MANY:
		return "there are as many masters as there may be";
	case ERR_INVALID:
		return kind == TRANSFER ? "it has no vote yet" : err_text(err);
	case ERR_CANCELLED:
		return kind == TRANSFER ? "leadership did not move in time" : err_text(err);
	default:
		return err_text(err);
	}
}

static int change(struct admin *admin, unsigned kind, uint64_t id, const char *address, const char *what)
{
	Granary__MembersChange message = GRANARY__MEMBERS_CHANGE__INIT;
	ProtobufCMessage *reply = NULL;
	message.kind = kind;
	message.id = id;
	message.address = (char *)(uintptr_t)address;
	enum err err = admin_call(admin, MESSAGE_MEMBERS_CHANGE, &message.base, &reply);
	message_free(reply);
	if (err == OK)
		return EXIT_DONE;
	cli_error_text(admin->cli, what, reason(err, kind));
	return err == ERR_NO_LEADER ? EXIT_NO_CLUSTER : EXIT_FAILED;
}

/* Until the new one has a vote, for --timeout without progress at most. */
static int wait_for_vote(struct admin *admin, uint64_t id, const char *what)
{
	uint64_t best = 0;
	double since = monotonic_seconds();
	const char *shown = "";
	while (monotonic_seconds() - since < (double)admin->cli->timeout_ms / 1000) {
		Granary__ClusterStatus *status = NULL;
		enum err err = status_of(admin, &status);
		if (err)
			return admin_error(admin, what, err);
		const Granary__RaftMember *member = find(status, id);
		bool votes = member && !member->learner;
		const char *now = !member ? "" : member->snapshot ? "is being sent the state" : "catches up";
		if (member && member->match > best) {
			best = member->match;
			since = monotonic_seconds();
		}
		if (member && member->snapshot)
			since = monotonic_seconds();
		if (!votes && strcmp(now, shown) != 0)
			printf("master %" PRIu64 " %s\n", id, now);
		fflush(stdout);
		shown = now;
		cluster_status_free(status);
		if (votes) {
			printf("master %" PRIu64 " has a vote\n", id);
			return EXIT_DONE;
		}
		admin_pause(admin, POLL_MS);
	}
	return cli_error_text(admin->cli, what, "it is added and does not catch up: does it run, and reach the others?");
}

/* "ID" or "ID=HOST:PORT"; false after a usage error. */
static bool parse_member(struct cli *cli, const char *text, bool with_address, uint64_t *id, const char **address,
			 int *result)
{
	char *end;
	*id = strtoull(text, &end, 10);
	*address = *end == '=' ? end + 1 : "";
	if (end == text || *id == 0 || *id > MEMBER_ID_MAX || (with_address ? !**address : *end)) {
		*result = cli_usage_error(cli, text, with_address ? "a master is given as ID=HOST:PORT" : "a master is given by its id");
		return false;
	}
	return true;
}

static int run_change(struct cli *cli, unsigned kind, int argc, char **argv)
{
	struct admin admin = {0};
	uint64_t id = 0;
	const char *address = "", *what = argc > 1 ? argv[1] : "transfer";
	int result = EXIT_DONE;
	if (argc < 2 && kind != TRANSFER)
		return cli_usage_error(cli, argv[0], kind == ADD ? "needs ID=HOST:PORT" : "needs the id of a master");
	if (argc > 1 && !parse_member(cli, argv[1], kind == ADD, &id, &address, &result))
		return result;
	result = admin_open(cli, &admin);
	if (result == EXIT_DONE)
		result = change(&admin, kind, id, address, what);
	if (result == EXIT_DONE && kind == ADD)
		result = wait_for_vote(&admin, id, what);
	else if (result == EXIT_DONE && kind == REMOVE)
		printf("master %" PRIu64 " is removed\n", id);
	else if (result == EXIT_DONE)
		printf("leadership was handed over\n");
	admin_close(&admin);
	return result;
}

int admin_raft_add(struct cli *cli, char *member)
{
	char *words[] = {(char[]){"add"}, member};
	return run_change(cli, ADD, 2, words);
}

int cmd_admin_raft(struct cli *cli, int argc, char **argv)
{
	bool as_json = false;
	const struct cli_option options[] = {
	    {"json", 0, CLI_FLAG, &as_json, NULL, "status: an object"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (strcmp(argv[0], "status") == 0 && argc == 1)
		return show(cli, as_json);
	if (strcmp(argv[0], "add") == 0)
		return run_change(cli, ADD, argc, argv);
	if (strcmp(argv[0], "remove") == 0)
		return run_change(cli, REMOVE, argc, argv);
	if (strcmp(argv[0], "transfer") == 0)
		return run_change(cli, TRANSFER, argc, argv);
	return cli_usage_error(cli, argv[0], "unknown (there are: raft status, add, remove, transfer)");
}
