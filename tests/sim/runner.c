#include "tests/sim/runner.h"

#include <inttypes.h>
#include <signal.h>
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

/* Shared by the processes. */
struct job {
	uint64_t seed; /* under way */
	uint64_t done;
	uint64_t sum[RUNNER_COUNTS_MAX];
};

struct options {
	uint64_t first, count;
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

static void run_one(const struct runner *runner, uint64_t seed, uint64_t *sum)
{
	uint64_t scratch[RUNNER_COUNTS_MAX] = { 0 };
	uint64_t digest = runner->run(seed, sum);
	if (seed % AGAIN_EVERY == 0 && runner->run(seed, scratch) != digest) {
		fprintf(stderr, "%s: seed %" PRIu64 " gives another run the second time\n", runner->name, seed);
		abort();
	}
}

static void work(const struct runner *runner, const struct options *options, unsigned number, struct job *job)
{
	for (uint64_t i = number; i < options->count; i += options->jobs) {
		job->seed = options->first + i;
		alarm(RUNNER_SEED_S_MAX);
		run_one(runner, job->seed, job->sum);
		job->done++;
	}
	fflush(NULL);
	_exit(0);
}

static void print_sum(const struct runner *runner, const struct job *jobs, unsigned count, double seconds, bool enough)
{
	uint64_t done = 0;
	for (unsigned j = 0; j < count; j++)
		done += jobs[j].done;
	printf("%s: %" PRIu64 " seeds in %.0f s", runner->name, done, seconds);
	for (unsigned i = 0; runner->counts[i]; i++) {
		uint64_t sum = 0;
		for (unsigned j = 0; j < count; j++)
			sum += jobs[j].sum[i];
		printf(", %" PRIu64 " %s", sum, runner->counts[i]);
		if (enough && done >= runner->standard && runner->least && sum < runner->least[i]) {
			printf(" (fewer than %" PRIu64 ": this says nothing)\n", runner->least[i]);
			exit(1);
		}
	}
	printf("\n");
	fflush(stdout);
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

/* True: a seed has failed, *failed. */
static bool wait_for_all(const struct runner *runner, const struct options *options, pid_t *pids, struct job *jobs, uint64_t *failed)
{
	double began = now_s(), reported = began;
	unsigned running = options->jobs;
	while (running > 0) {
		int status;
		pid_t pid = wait_a_while(&status, 1);
		for (unsigned i = 0; pid > 0 && i < options->jobs; i++) {
			if (pids[i] != pid)
				continue;
			pids[i] = 0;
			running--;
			*failed = jobs[i].seed;
			if (status != 0)
				return true;
		}
		if (options->hours > 0 && now_s() - began > options->hours * 3600)
			return false;
		if (options->hours > 0 && now_s() - reported > REPORT_S) {
			reported = now_s();
			print_sum(runner, jobs, options->jobs, reported - began, false);
		}
	}
	return false;
}

static int run_jobs(const struct runner *runner, const struct options *options)
{
	pid_t pids[RUNNER_JOBS_MAX] = { 0 };
	uint64_t failed = 0;
	double began = now_s();
	struct job *jobs = mmap(NULL, options->jobs * sizeof *jobs, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	sigset_t child, before;
	check(sigemptyset(&child) == 0 && sigaddset(&child, SIGCHLD) == 0 && sigprocmask(SIG_BLOCK, &child, &before) == 0);
	check(jobs != MAP_FAILED);
	for (unsigned i = 0; i < options->jobs; i++) {
		pids[i] = fork();
		check(pids[i] >= 0);
		if (pids[i] == 0 && sigprocmask(SIG_SETMASK, &before, NULL) == 0)
			work(runner, options, i, &jobs[i]);
	}
	bool found = wait_for_all(runner, options, pids, jobs, &failed);
	end_others(pids, options->jobs);
	if (found)
		printf("%s: seed %" PRIu64 " found something wrong; to see it again: %s --seed %" PRIu64 " --trace\n", runner->name, failed,
		       runner->name, failed);
	else if (options->expect_failure)
		printf("%s: the planted bug was not found with %" PRIu64 " seeds\n", runner->name, options->count);
	else
		print_sum(runner, jobs, options->jobs, now_s() - began, true);
	return found != options->expect_failure;
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
	*options = (struct options){ .first = 1, .count = runner->standard, .jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN) };
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
	options->alone = options->alone && !counted;
	if (options->jobs > RUNNER_JOBS_MAX)
		options->jobs = RUNNER_JOBS_MAX;
	return options->jobs > 0 && plain <= 2;
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
	run_one(runner, options.first, job.sum);
	job.done = 1;
	print_sum(runner, &job, 1, now_s() - began, false);
	return 0;
}

int runner_expect_failure(uint64_t first, uint64_t count, void (*run)(uint64_t seed))
{
	for (uint64_t seed = first; seed < first + count; seed++) {
		int status;
		pid_t child = fork();
		check(child >= 0);
		if (child == 0) {
			run(seed);
			_exit(0);
		}
		check(waitpid(child, &status, 0) == child);
		if (status != 0) {
			printf("found with seed %" PRIu64 "\n", seed);
			return 0;
		}
	}
	printf("not found\n");
	return 1;
}
