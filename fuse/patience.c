#include "fuse/patience.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "common/sys/log.h"

#define SWEEP_MS 250u
#define STATUS_BYTES_MAX 8192u

static uint64_t signal_bit(int number)
{
	return 1ull << (number - 1);
}

static uint64_t status_field(const char *status, const char *name)
{
	const char *found = strstr(status, name);

	return found ? strtoull(found + strlen(name), NULL, 16) : 0;
}

enum signals patience_signals(const char *status)
{
	uint64_t pending = status_field(status, "\nSigPnd:") | status_field(status, "\nShdPnd:");
	uint64_t caught = status_field(status, "\nSigCgt:");
	uint64_t harmless = signal_bit(SIGCHLD) | signal_bit(SIGURG) | signal_bit(SIGWINCH) | signal_bit(SIGCONT) |
			    signal_bit(SIGSTOP) | signal_bit(SIGTSTP) | signal_bit(SIGTTIN) | signal_bit(SIGTTOU);

	/* One that ends all threads is shown as a SIGKILL of each. */
	if (pending & signal_bit(SIGKILL))
		return SIGNALS_DEADLY;
	pending &= ~(status_field(status, "\nSigBlk:") | status_field(status, "\nSigIgn:"));
	if (pending & ~caught & ~harmless)
		return SIGNALS_DEADLY;
	return pending & caught ? SIGNALS_CAUGHT : SIGNALS_NONE;
}

/* A process of another pid namespace has no number here: what it was sent is not known. */
static enum signals signals_of(pid_t thread)
{
	char path[64], status[STATUS_BYTES_MAX];
	ssize_t size = -1;
	int descriptor;

	snprintf(path, sizeof path, "/proc/%d/status", (int)thread);
	descriptor = thread > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (descriptor >= 0) {
		size = read(descriptor, status, sizeof status - 1);
		close(descriptor);
	}
	if (size <= 0)
		return SIGNALS_CAUGHT;
	status[size] = 0;
	return patience_signals(status);
}

static void give_up(struct request *request, int number)
{
	struct fuse_out_header header = {.len = sizeof header, .error = -number, .unique = request->unique};

	request->given_up = true;
	/* It may have been answered by now, or the mount be gone: then nobody waits either. */
	if (write(fuse_session_fd(request->mount->session), &header, sizeof header) < 0 && errno != ENOENT)
		log_debug("give_up", "errno=%d", errno);
}

static bool is_interrupted(const struct request *request, uint64_t now_ms)
{
	uint64_t waited_ms = now_ms - request->interrupted_ms;

	if (request->interrupted_ms == 0)
		return false;
	switch (signals_of(request->thread)) {
	case SIGNALS_DEADLY:
		return true;
	case SIGNALS_CAUGHT:
		return waited_ms >= MOUNT_INTERRUPT_MS;
	case SIGNALS_NONE:
		break;
	}
	return false;
}

/* Data may take its time while chunkservers answer. */
static bool is_overdue(const struct request *request, uint64_t now_ms)
{
	const struct mount *mount = request->mount;
	uint64_t since_ms = request->opened_ms, answered_ms = client_answered_ms(mount->client);

	if (!request->moves_data)
		return now_ms - since_ms >= mount->timeout_ms;
	if (mount->away_ms > answered_ms)
		return now_ms - since_ms >= mount->timeout_ms / 4;
	return now_ms - (answered_ms > since_ms ? answered_ms : since_ms) >= mount->timeout_ms;
}

static void on_sweep(void *arg)
{
	struct mount *mount = arg;
	uint64_t now = loop_now_ms(mount->loop);
	struct request *request;
	unsigned overdue = 0;

	DL_FOREACH2(mount->requests, request, next)
	{
		if (request->given_up || request->waits_for_lock)
			continue;
		if (is_interrupted(request, now)) {
			give_up(request, EINTR);
		} else if (is_overdue(request, now)) {
			give_up(request, ETIMEDOUT);
			if (request->moves_data)
				mount->away_ms = now;
			overdue++;
		}
	}
	if (overdue > 0)
		log_warn("requests_timed_out", "count=%u timeout_ms=%llu", overdue, (unsigned long long)mount->timeout_ms);
	if (mount->requests)
		timer_start(&mount->sweep, SWEEP_MS);
}

/* libfuse holds a lock around this: nothing can be answered from here. */
static void on_interrupt(fuse_req_t fuse, void *arg)
{
	struct request *request = arg;

	(void)fuse;
	if (request->interrupted_ms == 0)
		request->interrupted_ms = loop_now_ms(request->mount->loop);
	timer_start(&request->mount->sweep, 0);
}

void patience_open(struct mount *mount, uint64_t timeout_ms)
{
	mount->timeout_ms = timeout_ms;
	timer_init(&mount->sweep, mount->loop, on_sweep, mount);
}

void patience_close(struct mount *mount)
{
	timer_stop(&mount->sweep);
}

void patience_shorten(struct mount *mount, uint64_t timeout_ms)
{
	if (timeout_ms < mount->timeout_ms)
		mount->timeout_ms = timeout_ms;
}

void patience_add(struct request *request)
{
	struct mount *mount = request->mount;

	request->unique = mount->unique;
	request->opened_ms = loop_now_ms(mount->loop);
	request->thread = fuse_req_ctx(request->fuse)->pid;
	DL_APPEND2(mount->requests, request, previous, next);
	fuse_req_interrupt_func(request->fuse, on_interrupt, request);
	if (!timer_is_running(&mount->sweep))
		timer_start(&mount->sweep, SWEEP_MS);
}

void patience_remove(struct request *request)
{
	DL_DELETE2(request->mount->requests, request, previous, next);
}
