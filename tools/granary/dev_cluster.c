#include "tools/granary/dev_cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/check.h"

/* Below the range from which the kernel takes ports of outgoing connections (32768 on): ours must still be free when a
 * process is started again. */
#define PORT_FIRST 20000u
#define PORT_COUNT 12000u
#define PORT_TRIES 1000

char *dev_path(const struct dev_cluster *dev, const char *kind, const char *name, const char *suffix)
{
	size_t size = strlen(dev->directory) + strlen(kind) + strlen(name) + strlen(suffix) + 3;
	char *out = mem_alloc(size);
	snprintf(out, size, "%s/%s%s%s%s", dev->directory, kind, *kind && *name ? "/" : "", name, suffix);
	return out;
}

char *dev_addresses(const struct dev_cluster *dev)
{
	struct buf text = {0};
	for (size_t i = 0; i < dev->process_count; i++) {
		if (dev->processes[i].role == DEV_MASTER)
			buf_printf(&text, "%s%s", text.size ? "," : "", dev->processes[i].address);
	}
	buf_append(&text, "", 1);
	char *out = mem_string((const char *)text.bytes);
	buf_deinit(&text);
	return out;
}

static struct dev_process *add(struct dev_cluster *dev, enum dev_role role, unsigned number)
{
	struct dev_process *process = &dev->processes[dev->process_count++];
	check(dev->process_count <= DEV_PROCESSES_MAX);
	*process = (struct dev_process){.role = role, .number = number};
	if (role == DEV_MOUNT)
		snprintf(process->name, sizeof process->name, "mount");
	else
		snprintf(process->name, sizeof process->name, "%s-%u", role == DEV_MASTER ? "master" : "chunkserver",
			 number);
	return process;
}

static struct dev_process *by_name(struct dev_cluster *dev, const char *name)
{
	for (size_t i = 0; i < dev->process_count; i++) {
		if (strcmp(dev->processes[i].name, name) == 0)
			return &dev->processes[i];
	}
	return NULL;
}

static bool port_is_free(uint16_t port)
{
	int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = {
	    .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	bool is_free = descriptor >= 0 && bind(descriptor, (struct sockaddr *)&address, sizeof address) == 0 &&
		       listen(descriptor, 1) == 0;
	if (descriptor >= 0)
		close(descriptor);
	return is_free;
}

static int find_port(struct dev_cluster *dev, struct dev_process *process)
{
	for (int i = 0; i < PORT_TRIES; i++) {
		uint32_t random;
		check(getrandom(&random, sizeof random, 0) == sizeof random);
		unsigned port = PORT_FIRST + random % PORT_COUNT;
		char address[32];
		bool taken = false;
		snprintf(address, sizeof address, "127.0.0.1:%u", port);
		for (size_t other = 0; other < dev->process_count; other++)
			taken |= strcmp(dev->processes[other].address, address) == 0;
		if (taken || !port_is_free((uint16_t)port))
			continue;
		memcpy(process->address, address, sizeof address);
		return EXIT_DONE;
	}
	return cli_error_text(dev->cli, process->name, "no free port on 127.0.0.1");
}

/* One line of dev.conf; what is not known is ignored. */
static void load_line(struct dev_cluster *dev, char *key, const char *value)
{
	if (strcmp(key, "masters") == 0)
		dev->masters = strtoull(value, NULL, 10);
	else if (strcmp(key, "chunkservers") == 0)
		dev->chunkservers = strtoull(value, NULL, 10);
	else if (strcmp(key, "racks") == 0)
		dev->racks = strtoull(value, NULL, 10);
	else if (strcmp(key, "mount") == 0)
		dev->mount = mem_string(value);
	else if (strcmp(key, "set") == 0 && dev->set_count < DEV_SETS_MAX)
		dev->sets[dev->set_count++] = mem_string(value);
	else if (strncmp(key, "address.", 8) == 0 && dev->process_count + 1 < DEV_PROCESSES_MAX) {
		unsigned number = 0;
		enum dev_role role = strncmp(key + 8, "master-", 7) == 0 ? DEV_MASTER : DEV_CHUNKSERVER;
		if (sscanf(key + 8, role == DEV_MASTER ? "master-%u" : "chunkserver-%u", &number) == 1 && number > 0)
			snprintf(add(dev, role, number)->address, sizeof dev->processes->address, "%s", value);
	}
}

static void load(struct dev_cluster *dev, FILE *file)
{
	char line[PATH_MAX + 64];
	while (fgets(line, sizeof line, file)) {
		line[strcspn(line, "\n")] = 0;
		char *equals = strstr(line, " = ");
		if (!equals || line[0] == '#')
			continue;
		*equals = 0;
		load_line(dev, line, equals + 3);
	}
	if (dev->mount)
		add(dev, DEV_MOUNT, 0);
}

static int dev_load(struct cli *cli, const char *directory, struct dev_cluster *out)
{
	*out = (struct dev_cluster){.cli = cli, .lock = -1};
	out->directory = realpath(directory, NULL);
	if (!out->directory)
		return EXIT_NOT_FOUND;
	out->lock = open(out->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (out->lock < 0 || flock(out->lock, LOCK_EX) != 0)
		return cli_error_errno(cli, directory, errno);
	char *path = dev_path(out, "dev.conf", "", "");
	FILE *file = fopen(path, "re");
	free(path);
	if (!file)
		return errno == ENOENT ? EXIT_NOT_FOUND : cli_error_errno(cli, directory, errno);
	load(out, file);
	fclose(file);
	return EXIT_DONE;
}

int dev_open(struct cli *cli, const char *directory, struct dev_cluster *out)
{
	int result = dev_load(cli, directory, out);
	if (result == EXIT_NOT_FOUND)
		result = cli_error_text(cli, directory, "no cluster there (granary dev up makes one)");
	if (result != EXIT_DONE)
		dev_close(out);
	return result;
}

static int make_directory(struct cli *cli, const char *path)
{
	char *copy = mem_string(path);
	int result = EXIT_DONE;
	for (char *slash = strchr(copy + 1, '/');; slash = strchr(slash + 1, '/')) {
		if (slash)
			*slash = 0;
		if (mkdir(copy, 0777) != 0 && errno != EEXIST && (!slash || errno != EROFS))
			result = cli_error_errno(cli, copy, errno);
		if (!slash || result != EXIT_DONE)
			break;
		*slash = '/';
	}
	free(copy);
	return result;
}

int dev_create(struct cli *cli, const char *directory, struct dev_cluster *out)
{
	int result = make_directory(cli, directory);
	if (result == EXIT_DONE) {
		result = dev_load(cli, directory, out);
		if (result != EXIT_DONE && result != EXIT_NOT_FOUND)
			dev_close(out);
	}
	static const char *const folders[] = {"pids", "log", "data"};
	for (size_t i = 0; i < 3 && result == EXIT_NOT_FOUND; i++) {
		char *path = dev_path(out, folders[i], "", "");
		int made = make_directory(cli, path);
		free(path);
		if (made != EXIT_DONE) {
			dev_close(out);
			return made;
		}
	}
	return result == EXIT_NOT_FOUND ? EXIT_DONE : result;
}

void dev_close(struct dev_cluster *dev)
{
	for (size_t i = 0; i < dev->set_count; i++)
		free(dev->sets[i]);
	free(dev->directory);
	free(dev->mount);
	if (dev->lock >= 0)
		close(dev->lock);
	*dev = (struct dev_cluster){.lock = -1};
}

static int write_file(struct dev_cluster *dev, const char *name, const struct buf *text)
{
	char *path = dev_path(dev, name, "", ""), *temporary = dev_path(dev, name, "", ".new");
	int descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	bool written = descriptor >= 0 && write(descriptor, text->bytes, text->size) == (ssize_t)text->size;
	if (descriptor >= 0)
		written = close(descriptor) == 0 && written;
	int result = written && rename(temporary, path) == 0 ? EXIT_DONE : cli_error_errno(dev->cli, path, errno);
	free(path);
	free(temporary);
	return result;
}

int dev_save(struct dev_cluster *dev)
{
	const uint64_t counts[] = {[DEV_MASTER] = dev->masters, [DEV_CHUNKSERVER] = dev->chunkservers};
	for (int role = DEV_MASTER; role <= DEV_CHUNKSERVER; role++) {
		for (unsigned number = 1; number <= counts[role]; number++) {
			char name[32];
			snprintf(name, sizeof name, "%s-%u", role == DEV_MASTER ? "master" : "chunkserver", number);
			if (by_name(dev, name))
				continue;
			int result = find_port(dev, add(dev, role, number));
			if (result != EXIT_DONE)
				return result;
		}
	}
	if (dev->mount && !by_name(dev, "mount"))
		add(dev, DEV_MOUNT, 0);

	struct buf text = {0};
	buf_printf(&text,
		   "# what `granary dev up` remembers about this cluster\nmasters = %" PRIu64
		   "\nchunkservers = %" PRIu64 "\n",
		   dev->masters, dev->chunkservers);
	if (dev->racks)
		buf_printf(&text, "racks = %" PRIu64 "\n", dev->racks);
	if (dev->mount)
		buf_printf(&text, "mount = %s\n", dev->mount);
	for (size_t i = 0; i < dev->set_count; i++)
		buf_printf(&text, "set = %s\n", dev->sets[i]);
	for (size_t i = 0; i < dev->process_count; i++) {
		if (dev->processes[i].role != DEV_MOUNT)
			buf_printf(&text, "address.%s = %s\n", dev->processes[i].name, dev->processes[i].address);
	}
	int result = write_file(dev, "dev.conf", &text);
	buf_clear(&text);
	char *addresses = dev_addresses(dev);
	buf_printf(&text, "cluster = %s\n", addresses);
	if (result == EXIT_DONE)
		result = write_file(dev, "client.conf", &text);
	free(addresses);
	buf_deinit(&text);
	return result;
}

struct dev_process *dev_find(struct dev_cluster *dev, const char *role, const char *number)
{
	char name[64];
	snprintf(name, sizeof name, "%s%s%s", role, number ? "-" : "", number ? number : "");
	struct dev_process *found = by_name(dev, name);
	if (!found)
		cli_error_text(dev->cli, name, "no such process (granary dev status DIR lists them)");
	return found;
}
