/* The processes of a dev cluster: start, find, signal, end. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "tools/granary/dev_cluster.h"

#define POLL_MS 10
#define TERMINATE_SECONDS 10
#define LOG_TAIL_LINES 12
#define ARGUMENTS_MAX 64u

static const char *const programs[] = {"granary-master", "granary-chunkserver", "granary-mount"};

void dev_pause(void)
{
	nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000}, NULL);
}

/* What tells our process from others that run the same program: its data folder or mount point. To be freed. */
static char *mark_of(const struct dev_cluster *dev, const struct dev_process *process)
{
	return process->role == DEV_MOUNT ? mem_string(dev->mount) : dev_path(dev, "data", process->name, "");
}

/* The first bytes of a file of /proc, ended by a zero. */
static size_t read_proc(pid_t pid, const char *name, char *out, size_t size)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	int descriptor = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = descriptor < 0 ? 0 : read(descriptor, out, size - 1);
	if (descriptor >= 0)
		close(descriptor);
	got = got < 0 ? 0 : got;
	out[got] = 0;
	return (size_t)got;
}

static bool is_ours(const struct dev_cluster *dev, const struct dev_process *process, pid_t pid)
{
	char path[64], exe[PATH_MAX + 16], arguments[8192];
	snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
	ssize_t size = readlink(path, exe, sizeof exe - 1);
	if (size <= 0)
		return false; /* gone, or dead and not yet reaped */
	exe[size] = 0;
	char *deleted = strstr(exe, " (deleted)"); /* rebuilt since */
	if (deleted)
		*deleted = 0;
	const char *base = strrchr(exe, '/');
	if (!base || strcmp(base + 1, programs[process->role]) != 0)
		return false;
	size_t got = read_proc(pid, "cmdline", arguments, sizeof arguments);
	char *mark = mark_of(dev, process);
	bool found = false;
	for (size_t at = 0; at < got && !found; at += strlen(arguments + at) + 1)
		found = strcmp(arguments + at, mark) == 0;
	free(mark);
	return found;
}

pid_t dev_pid(const struct dev_cluster *dev, const struct dev_process *process, enum dev_state *state)
{
	char *path = dev_path(dev, "pids", process->name, ".pid"), stat[512];
	FILE *file = fopen(path, "re");
	int pid = 0;
	if (file) {
		if (fscanf(file, "%d", &pid) != 1 || pid <= 1 || !is_ours(dev, process, pid))
			pid = 0;
		fclose(file);
	}
	free(path);
	if (state) {
		*state = pid ? DEV_RUNNING : DEV_ABSENT;
		const char *behind = pid && read_proc(pid, "stat", stat, sizeof stat) ? strrchr(stat, ')') : NULL;
		if (behind && strlen(behind) > 2 && (behind[2] == 'T' || behind[2] == 't'))
			*state = DEV_FROZEN;
	}
	return pid;
}

/* The folder of this executable. */
static bool own_folder(char *out, size_t size)
{
	ssize_t got = readlink("/proc/self/exe", out, size - 1);
	if (got <= 0)
		return false;
	out[got] = 0;
	*strrchr(out, '/') = 0;
	return true;
}

/* Whether the program has the option: its --help says so. */
static bool knows_option(const char *program, const char *key)
{
	char wanted[256], text[16384];
	int ends[2];
	size_t got = 0;
	snprintf(wanted, sizeof wanted, "--%s", key);
	if (pipe2(ends, O_CLOEXEC) != 0)
		return false;
	pid_t child = fork();
	if (child == 0) {
		dup2(ends[1], STDOUT_FILENO);
		execl(program, program, "--help", (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	for (ssize_t more = 1; child > 0 && more > 0 && got + 1 < sizeof text; got += more > 0 ? (size_t)more : 0)
		more = read(ends[0], text + got, sizeof text - 1 - got);
	close(ends[0]);
	if (child > 0)
		waitpid(child, NULL, 0);
	text[got] = 0;
	for (const char *at = strstr(text, wanted); at; at = strstr(at + 1, wanted)) {
		char next = at[strlen(wanted)];
		if (next == ' ' || next == '\n' || next == '=' || next == 0 || next == ',')
			return true;
	}
	return false;
}

struct arguments {
	char *words[ARGUMENTS_MAX];
	size_t count;
};

static void add(struct arguments *arguments, char *word)
{
	check(arguments->count + 1 < ARGUMENTS_MAX);
	arguments->words[arguments->count++] = word;
}

static void add_option(struct arguments *arguments, const char *name, char *value)
{
	add(arguments, mem_string(name));
	add(arguments, value);
}

static void add_sets(struct dev_cluster *dev, const struct dev_process *process, struct arguments *arguments)
{
	static const char *const prefixes[] = {"master.", "chunkserver.", "mount."};
	for (size_t i = 0; i < dev->set_count; i++) {
		const char *set = dev->sets[i], *prefix = NULL;
		for (size_t role = 0; role < 3; role++) {
			if (strncmp(set, prefixes[role], strlen(prefixes[role])) == 0)
				prefix = prefixes[role];
		}
		if (prefix && prefix != prefixes[process->role])
			continue;
		const char *pair = set + (prefix ? strlen(prefix) : 0);
		char key[128];
		snprintf(key, sizeof key, "%.*s", (int)strcspn(pair, "="), pair);
		if (!prefix && !knows_option(arguments->words[0], key))
			continue;
		char name[132];
		snprintf(name, sizeof name, "--%s", key);
		add_option(arguments, name, mem_string(pair + strlen(key) + 1));
	}
}

static void fill_arguments(struct dev_cluster *dev, const struct dev_process *process, struct arguments *arguments)
{
	char number[16];
	struct buf members = {0};
	snprintf(number, sizeof number, "%u", process->number);
	switch (process->role) {
	case DEV_MASTER:
		for (size_t i = 0; i < dev->process_count; i++) {
			const struct dev_process *other = &dev->processes[i];
			if (other->role == DEV_MASTER)
				buf_printf(&members, "%s%u=%s", members.size ? "," : "", other->number, other->address);
		}
		buf_append(&members, "", 1);
		add_option(arguments, "--data", mark_of(dev, process));
		add_option(arguments, "--listen", mem_string(process->address));
		add_option(arguments, "--id", mem_string(number));
		add_option(arguments, "--members", mem_string((const char *)members.bytes));
		break;
	case DEV_CHUNKSERVER:
		add_option(arguments, "--data", mark_of(dev, process));
		add_option(arguments, "--listen", mem_string(process->address));
		add_option(arguments, "--masters", dev_addresses(dev));
		add_option(arguments, "--host", mem_string(process->name));
		if (dev->racks) {
			snprintf(number, sizeof number, "%u", (unsigned)((process->number - 1) % dev->racks + 1));
			add_option(arguments, "--rack", mem_string(number));
		}
		break;
	case DEV_MOUNT:
		add_option(arguments, "--cluster", dev_addresses(dev));
		break;
	}
	buf_deinit(&members);
	add_sets(dev, process, arguments);
	if (process->role == DEV_MOUNT)
		add(arguments, mem_string(dev->mount));
}

/* The child: tells through `failed`, which closes when the program has taken over, if that did not work. */
_Noreturn static void become(const char *log, char *const *words, int failed)
{
	setsid();
	int input = open("/dev/null", O_RDONLY), output = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
	dup2(input, STDIN_FILENO);
	if (output >= 0) {
		dup2(output, STDOUT_FILENO);
		dup2(output, STDERR_FILENO);
	}
	signal(SIGPIPE, SIG_DFL);
	execv(words[0], words);
	int number = errno;
	_exit(write(failed, &number, sizeof number) > 0 ? 127 : 126);
}

/* Returns once the program runs under its own name, so that dev_pid knows it. 0 or an errno. */
static int spawn(const char *log, char *const *words, pid_t *out)
{
	int ends[2], number = 0;
	if (pipe2(ends, O_CLOEXEC) != 0)
		return errno;
	*out = fork();
	if (*out == 0)
		become(log, words, ends[1]);
	if (*out < 0)
		number = errno;
	close(ends[1]);
	ssize_t got = *out > 0 ? read(ends[0], &number, sizeof number) : 0;
	close(ends[0]);
	if (got > 0)
		waitpid(*out, NULL, 0);
	return number;
}

static int write_pid(struct dev_cluster *dev, const struct dev_process *process, pid_t pid)
{
	char *path = dev_path(dev, "pids", process->name, ".pid");
	FILE *file = fopen(path, "we");
	bool written = file && fprintf(file, "%d\n", (int)pid) > 0;
	if (file)
		written = fclose(file) == 0 && written;
	int result = written ? EXIT_DONE : cli_error_errno(dev->cli, path, errno);
	free(path);
	return result;
}

static int remove_one(const char *path, const struct stat *stat, int kind, struct FTW *where)
{
	(void)stat;
	(void)kind;
	(void)where;
	return remove(path);
}

int dev_wipe(struct dev_cluster *dev, const char *path)
{
	if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
		return cli_error_errno(dev->cli, path, errno);
	return EXIT_DONE;
}

int dev_start(struct dev_cluster *dev, struct dev_process *process)
{
	char folder[PATH_MAX];
	if (!own_folder(folder, sizeof folder))
		return cli_error_errno(dev->cli, "/proc/self/exe", errno);
	char *program = path_join(folder, programs[process->role]);
	if (access(program, X_OK) != 0) {
		int result = cli_error_errno(dev->cli, program, errno);
		free(program);
		return result;
	}
	struct arguments arguments = {0};
	add(&arguments, program);
	fill_arguments(dev, process, &arguments);
	char *log = dev_path(dev, "log", process->name, ".log");
	int number = spawn(log, arguments.words, &process->child);
	if (number)
		process->child = 0;
	int result = number ? cli_error_errno(dev->cli, program, number) : write_pid(dev, process, process->child);
	for (size_t i = 0; i < arguments.count; i++)
		free(arguments.words[i]);
	free(log);
	return result;
}

static void print_log_tail(const struct dev_cluster *dev, const struct dev_process *process)
{
	char *path = dev_path(dev, "log", process->name, ".log"), text[8192];
	FILE *file = fopen(path, "re");
	if (file) {
		if (fseek(file, -(long)sizeof text + 1, SEEK_END) != 0)
			rewind(file);
		size_t got = fread(text, 1, sizeof text - 1, file), from = got;
		text[got] = 0;
		for (int lines = 0; from > 0; from--) {
			if (text[from - 1] == '\n' && lines++ == LOG_TAIL_LINES)
				break;
		}
		fprintf(stderr, "end of %s:\n%s", path, text + from);
		fclose(file);
	}
	free(path);
}

bool dev_has_died(struct dev_cluster *dev, struct dev_process *process)
{
	int status;
	if (process->child <= 0 || waitpid(process->child, &status, WNOHANG) != process->child)
		return false;
	process->child = 0;
	char why[64];
	if (WIFSIGNALED(status))
		snprintf(why, sizeof why, "was ended by signal %d", WTERMSIG(status));
	else
		snprintf(why, sizeof why, "ended with status %d", WEXITSTATUS(status));
	print_log_tail(dev, process);
	cli_error_text(dev->cli, process->name, why);
	return true;
}

void dev_watch(const struct dev_cluster *dev, struct dev_process *const *processes, size_t count, int *watches)
{
	for (size_t i = 0; i < count; i++) {
		pid_t pid = dev_pid(dev, processes[i], NULL);
		watches[i] = pid ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	}
}

void dev_wait_gone(int *watches, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct pollfd end = {.fd = watches[i], .events = POLLIN};
		if (watches[i] < 0)
			continue;
		(void)poll(&end, 1, TERMINATE_SECONDS * 1000);
		close(watches[i]);
	}
}

void dev_terminate(struct dev_cluster *dev, struct dev_process **processes, size_t count)
{
	int watches[DEV_PROCESSES_MAX];
	check(count <= DEV_PROCESSES_MAX);
	dev_watch(dev, processes, count, watches);
	for (size_t i = 0; i < count; i++) {
		if (processes[i]->role == DEV_MOUNT && dev_is_mounted(dev, NULL) && dev_pid(dev, processes[i], NULL) &&
		    umount2(dev->mount, 0) != 0)
			dev_detach(dev); /* somebody is in it */
	}
	double deadline = monotonic_seconds() + TERMINATE_SECONDS;
	for (size_t left = count, round = 0; left > 0; round++) {
		left = 0;
		for (size_t i = 0; i < count; i++) {
			if (processes[i]->child > 0)
				(void)waitpid(processes[i]->child, NULL, WNOHANG);
			pid_t pid = dev_pid(dev, processes[i], NULL);
			if (!pid)
				continue;
			left++;
			if (round == 0)
				kill(pid, SIGTERM);
			if (round == 0)
				kill(pid, SIGCONT);
			if (monotonic_seconds() > deadline)
				kill(pid, SIGKILL);
		}
		if (left > 0)
			dev_pause();
	}
	dev_wait_gone(watches, count);
	for (size_t i = 0; i < count; i++) {
		char *path = dev_path(dev, "pids", processes[i]->name, ".pid");
		unlink(path);
		free(path);
		if (processes[i]->role == DEV_MOUNT)
			dev_detach(dev);
	}
}

/* mountinfo writes blanks as \040 and so on (proc(5)). */
static void unescape(char *text)
{
	char *to = text;
	for (const char *from = text; *from; to++) {
		unsigned code;
		if (*from == '\\' && sscanf(from, "\\%3o", &code) == 1) {
			*to = (char)code;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = 0;
}

bool dev_is_mounted(const struct dev_cluster *dev, bool *responding)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char line[PATH_MAX + 1024], point[PATH_MAX + 1];
	bool found = false;
	while (file && !found && fgets(line, sizeof line, file)) {
		if (sscanf(line, "%*s %*s %*s %*s %4096s", point) != 1)
			continue;
		unescape(point);
		found = strcmp(point, dev->mount) == 0 && strstr(line, " - fuse") != NULL;
	}
	if (file)
		fclose(file);
	struct statvfs space;
	if (responding)
		*responding = found && statvfs(dev->mount, &space) == 0;
	return found;
}

void dev_detach(struct dev_cluster *dev)
{
	if (!dev_is_mounted(dev, NULL) || umount2(dev->mount, MNT_DETACH) == 0)
		return;
	pid_t child = fork(); /* not root: only fusermount3 may */
	if (child == 0) {
		execlp("fusermount3", "fusermount3", "-u", "-z", "-q", dev->mount, (char *)NULL);
		_exit(127);
	}
	if (child > 0)
		waitpid(child, NULL, 0);
}
