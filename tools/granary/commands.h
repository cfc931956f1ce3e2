/* The commands by the file that holds them; the table is in main.c. Each returns an exit status. */
#ifndef GRANARY_TOOLS_GRANARY_COMMANDS_H
#define GRANARY_TOOLS_GRANARY_COMMANDS_H

#include "tools/granary/cli.h"

int cmd_put(struct cli *cli, int argc, char **argv);
int cmd_get(struct cli *cli, int argc, char **argv);
int cmd_cat(struct cli *cli, int argc, char **argv);
int cmd_cp(struct cli *cli, int argc, char **argv);

int cmd_ls(struct cli *cli, int argc, char **argv);
int cmd_tree(struct cli *cli, int argc, char **argv);
int cmd_du(struct cli *cli, int argc, char **argv);
int cmd_df(struct cli *cli, int argc, char **argv);
int cmd_find(struct cli *cli, int argc, char **argv);

int cmd_explain(struct cli *cli, int argc, char **argv);

int cmd_stat(struct cli *cli, int argc, char **argv);
int cmd_chmod(struct cli *cli, int argc, char **argv);
int cmd_chown(struct cli *cli, int argc, char **argv);
int cmd_touch(struct cli *cli, int argc, char **argv);
int cmd_truncate(struct cli *cli, int argc, char **argv);
int cmd_xattr_get(struct cli *cli, int argc, char **argv);
int cmd_xattr_set(struct cli *cli, int argc, char **argv);
int cmd_xattr_list(struct cli *cli, int argc, char **argv);
int cmd_xattr_rm(struct cli *cli, int argc, char **argv);

int cmd_rm(struct cli *cli, int argc, char **argv);
int cmd_mv(struct cli *cli, int argc, char **argv);
int cmd_mkdir(struct cli *cli, int argc, char **argv);
int cmd_rmdir(struct cli *cli, int argc, char **argv);
int cmd_ln(struct cli *cli, int argc, char **argv);
int cmd_readlink(struct cli *cli, int argc, char **argv);
int cmd_undelete(struct cli *cli, int argc, char **argv);

int cmd_admin_status(struct cli *cli, int argc, char **argv);
int cmd_admin_servers(struct cli *cli, int argc, char **argv);
int cmd_admin_raft(struct cli *cli, int argc, char **argv);
int cmd_admin_scrub(struct cli *cli, int argc, char **argv);
int cmd_admin_what_if(struct cli *cli, int argc, char **argv);
int cmd_admin_cool(struct cli *cli, int argc, char **argv);
int cmd_admin_warm(struct cli *cli, int argc, char **argv);
int cmd_admin_rebalance(struct cli *cli, int argc, char **argv);
int cmd_admin_drain(struct cli *cli, int argc, char **argv);
int cmd_admin_undrain(struct cli *cli, int argc, char **argv);
int cmd_admin_set(struct cli *cli, int argc, char **argv);
int cmd_admin_class(struct cli *cli, int argc, char **argv);
int cmd_admin_tasks(struct cli *cli, int argc, char **argv);
int cmd_admin_fsck(struct cli *cli, int argc, char **argv);
int cmd_admin_trash(struct cli *cli, int argc, char **argv);
/* For `dev up` with more masters than before: "ID=HOST:PORT". */
int admin_raft_add(struct cli *cli, char *member);
int cmd_admin_backup(struct cli *cli, int argc, char **argv);
int cmd_admin_restore(struct cli *cli, int argc, char **argv);

int cmd_dev_up(struct cli *cli, int argc, char **argv);
int cmd_dev_down(struct cli *cli, int argc, char **argv);
int cmd_dev_status(struct cli *cli, int argc, char **argv);
int cmd_dev_kill(struct cli *cli, int argc, char **argv);
int cmd_dev_stop(struct cli *cli, int argc, char **argv);
int cmd_dev_cont(struct cli *cli, int argc, char **argv);
int cmd_dev_restart(struct cli *cli, int argc, char **argv);
int cmd_dev_replace(struct cli *cli, int argc, char **argv);
int cmd_dev_logs(struct cli *cli, int argc, char **argv);

int cmd_bench(struct cli *cli, int argc, char **argv);

#endif
