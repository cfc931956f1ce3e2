#include "tests/sim/runner.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"

#define REPORT_S 60
#define AGAIN_EVERY 97u /* one seed in so many runs twice: equal seeds give equal runs */

struct job {
	uint64_t seed; /* under way */
	uint64_t done;
	uint64_t sum[RUNNER_COUNTS_MAX];
};

/* Of the processes. */
struct shared {
	_Atomic uint64_t next; /* number of the seed that nobody has taken yet */
	struct job jobs[RUNNER_JOBS_MAX];
};

struct options {
	uint64_t first, count;
	const uint64_t *known; /* after these */
	unsigned jobs;
	double hours;
	bool expect_failure, alone;
};

static double now_s(void)
{
	struct timespec time;
	check(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void run_twice(const struct runner *runner, uint64_t seed, uint64_t *sum)
{
	uint64_t scratch[RUNNER_COUNTS_MAX] = { 0 };
	uint64_t digest = runner->run(seed, sum);
	if (runner->run(seed, scratch) != digest) {
		fprintf(stderr, "%s: seed %" PRIu64 " gives another run the second time\n", runner->name, seed);
		abort();
	}
}

/* 0: that was all. */
static uint64_t seed_at(const struct options *options, uint64_t number)
{
	if (number < options->count)
		return options->first + number;
	for (uint64_t i = 0; options->known && options->known[i]; i++)
		if (i == number - options->count)
			return options->known[i];
	return 0;
}

_Noreturn static void work(const struct runner *runner, const struct options *options, struct shared *shared, struct job *job, double end_s)
{
	while (options->hours == 0 || now_s() < end_s) {
		uint64_t number = shared->next++;
		job->seed = seed_at(options, number);
		if (job->seed == 0)
			break;
		alarm(RUNNER_SEED_S_MAX);
		if (number % AGAIN_EVERY == 0)
			run_twice(runner, job->seed, job->sum);
		else
			runner->run(job->seed, job->sum);
		job->done++;
	}
	fflush(NULL);
	_exit(0);
}

/* Returns whether as much was done as should be. */
static bool print_sum(const struct runner *runner, const struct job *jobs, unsigned count, double seconds, uint64_t failed)
{
	uint64_t done = 0;
	bool enough = true;
	for (unsigned j = 0; j < count; j++)
		done += jobs[j].done;
	printf("%s: %" PRIu64 " seeds in %.0f s, %" PRIu64 " failed", runner->name, done + failed, seconds, failed);
	for (unsigned i = 0; runner->counts[i]; i++) {
		uint64_t sum = 0;
		for (unsigned j = 0; j < count; j++)
			sum += jobs[j].sum[i];
		printf(", %" PRIu64 " %s", sum, runner->counts[i]);
		if (done >= runner->standard && runner->least && sum < runner->least[i]) {
			printf(" (fewer than %" PRIu64 ": this says nothing)", runner->least[i]);
			enough = false;
		}
	}
	printf("\n");
	fflush(stdout);
	return enough;
}

static void end_others(const pid_t *pids, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (pids[i] > 0) {
			kill(pids[i], SIGKILL);
			waitpid(pids[i], NULL, 0);
		}
}

/* Until the next one ends, or it is time to look at the clock. */
static pid_t wait_a_while(int *status, double seconds)
{
	sigset_t child;
	struct timespec time = { .tv_sec = (time_t)seconds, .tv_nsec = 0 };
	check(sigemptyset(&child) == 0 && sigaddset(&child, SIGCHLD) == 0);
	pid_t pid = waitpid(-1, status, WNOHANG);
	if (pid == 0)
		sigtimedwait(&child, NULL, &time);
	return pid > 0 ? pid : 0;
}

struct running {
	const struct runner *runner;
	const struct options *options;
	struct shared *shared;
	sigset_t mask; /* of the processes */
	double began_s, reported_s;
	pid_t pids[RUNNER_JOBS_MAX];
	unsigned count;
	uint64_t failed;
};

static void start_job(struct running *running, unsigned number)
{
	fflush(NULL);
	running->pids[number] = fork();
	check(running->pids[number] >= 0);
	if (running->pids[number] == 0 && sigprocmask(SIG_SETMASK, &running->mask, NULL) == 0)
		work(running->runner, running->options, running->shared, &running->shared->jobs[number],
		     running->began_s + running->options->hours * 3600);
	running->count++;
}

static void on_ended(struct running *running, unsigned number, int status)
{
	const char *name = running->runner->name;
	uint64_t seed = running->shared->jobs[number].seed;
	running->pids[number] = 0;
	running->count--;
	if (status == 0)
		return;
	running->failed++;
	printf("%s: seed %" PRIu64 " found something wrong; to see it again: %s --seed %" PRIu64 " --trace\n", name, seed, name, seed);
	fflush(stdout);
	if (running->options->hours > 0)
		start_job(running, number);
}

static void wait_for_all(struct running *running)
{
	const struct options *options = running->options;
	while (running->count > 0 && (running->failed == 0 || options->hours > 0)) {
		int status;
		pid_t pid = wait_a_while(&status, 1);
		for (unsigned i = 0; pid > 0 && i < options->jobs; i++)
			if (running->pids[i] == pid)
				on_ended(running, i, status);
		if (options->hours > 0 && now_s() - running->reported_s > REPORT_S) {
			running->reported_s = now_s();
			print_sum(running->runner, running->shared->jobs, options->jobs, running->reported_s - running->began_s, running->failed);
		}
	}
}

static int run_jobs(const struct runner *runner, const struct options *options)
{
	struct running running = { .runner = runner, .options = options, .began_s = now_s(), .reported_s = now_s() };
	sigset_t child;
	running.shared = mmap(NULL, sizeof *running.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(running.shared != MAP_FAILED);
	check(sigemptyset(&child) == 0 && sigaddset(&child, SIGCHLD) == 0 && sigprocmask(SIG_BLOCK, &child, &running.mask) == 0);
	for (unsigned i = 0; i < options->jobs; i++)
		start_job(&running, i);
	wait_for_all(&running);
	end_others(running.pids, options->jobs);
	if (options->expect_failure) {
		if (running.failed == 0)
			printf("%s: the planted bug was not found with %" PRIu64 " seeds\n", runner->name, options->count);
		return running.failed == 0;
	}
	return !print_sum(runner, running.shared->jobs, options->jobs, now_s() - running.began_s, running.failed) || running.failed > 0;
}

static int usage(const char *name)
{
	fprintf(stderr, "usage: %s [SEED [COUNT]] [--seed N] [--seeds COUNT] [--jobs J] [--hours H] [--trace] [--expect-failure]\n", name);
	return 2;
}

static bool parse(const struct runner *runner, int argc, char **argv, struct options *options)
{
	unsigned plain = 0;
	bool counted = false;
	*options = (struct options){ .first = 1, .count = runner->standard, .known = runner->known, .jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN) };
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";
		if (argv[i][0] != '-') {
			*(plain++ == 0 ? &options->first : &options->count) = strtoull(argv[i], NULL, 10);
			options->alone = true;
			counted = counted || plain == 2;
			continue;
		}
		if (strcmp(argv[i], "--trace") == 0) {
			setenv("SIM_VERBOSE", "1", 1);
			continue;
		}
		if (strcmp(argv[i], "--expect-failure") == 0) {
			options->expect_failure = true;
			continue;
		}
		if (strcmp(argv[i], "--seed") == 0) {
			options->first = strtoull(value, NULL, 10);
			options->alone = true;
		} else if (strcmp(argv[i], "--seeds") == 0) {
			options->count = strtoull(value, NULL, 10);
			counted = true;
		} else if (strcmp(argv[i], "--jobs") == 0) {
			options->jobs = (unsigned)strtoul(value, NULL, 10);
		} else if (strcmp(argv[i], "--hours") == 0) {
			options->hours = strtod(value, NULL);
			options->count = UINT64_MAX / 2;
			counted = true;
		} else {
			return false;
		}
		i++;
	}
	if (counted || options->alone)
		options->known = NULL;
	options->alone = options->alone && !counted;
	if (options->jobs > RUNNER_JOBS_MAX)
		options->jobs = RUNNER_JOBS_MAX;
	return options->jobs > 0 && plain <= 2;
}

void runner_add(uint64_t *sum, const uint64_t *seen, size_t count)
{
	check(count <= RUNNER_COUNTS_MAX);
	for (size_t i = 0; i < count; i++)
		sum[i] += seen[i];
}

int runner_main(const struct runner *runner, int argc, char **argv)
{
	struct options options;
	struct job job = { 0 };
	double began = now_s();
	if (!parse(runner, argc, argv, &options))
		return usage(runner->name);
	if (!options.alone)
		return run_jobs(runner, &options);
	alarm(RUNNER_SEED_S_MAX);
	runner->run(options.first, job.sum);
	job.done = 1;
	print_sum(runner, &job, 1, now_s() - began, 0);
	return 0;
}
