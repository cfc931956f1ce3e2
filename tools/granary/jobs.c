#include "tools/granary/jobs.h"

#include <pthread.h>
#include <stdlib.h>

#include "common/base/check.h"

struct job {
	job_fn *fn;
	void *arg;
};

struct jobs {
	struct cli cli; /* what a thread's own is made from */
	pthread_mutex_t mutex;
	pthread_cond_t came, went;
	struct job queue[JOBS_QUEUE_MAX];
	size_t first, count;
	pthread_t threads[JOBS_MAX];
	size_t thread_count, thread_count_max, idle;
	bool ending;
	int status;
};

static void *run(void *arg)
{
	struct jobs *jobs = arg;
	struct cli cli = jobs->cli;
	check(pthread_mutex_lock(&jobs->mutex) == 0);
	for (;;) {
		while (jobs->count == 0 && !jobs->ending) {
			jobs->idle++;
			pthread_cond_wait(&jobs->came, &jobs->mutex);
			jobs->idle--;
		}
		if (jobs->count == 0)
			break;
		struct job job = jobs->queue[jobs->first];
		jobs->first = (jobs->first + 1) % JOBS_QUEUE_MAX;
		jobs->count--;
		pthread_cond_signal(&jobs->went);
		pthread_mutex_unlock(&jobs->mutex);
		int status = job.fn(&cli, job.arg);
		pthread_mutex_lock(&jobs->mutex);
		jobs->status = cli_worst(jobs->status, status);
	}
	pthread_mutex_unlock(&jobs->mutex);
	cli_disconnect(&cli);
	return NULL;
}

struct jobs *jobs_open(const struct cli *cli, uint64_t threads)
{
	struct jobs *jobs = mem_zero(1, sizeof *jobs);
	jobs->cli = *cli;
	jobs->cli.cluster = NULL;
	jobs->thread_count_max = threads < 1 ? 1 : threads > JOBS_MAX ? JOBS_MAX : (size_t)threads;
	check(pthread_mutex_init(&jobs->mutex, NULL) == 0);
	check(pthread_cond_init(&jobs->came, NULL) == 0);
	check(pthread_cond_init(&jobs->went, NULL) == 0);
	return jobs;
}

void jobs_submit(struct jobs *jobs, job_fn *fn, void *arg)
{
	pthread_mutex_lock(&jobs->mutex);
	while (jobs->count == JOBS_QUEUE_MAX)
		pthread_cond_wait(&jobs->went, &jobs->mutex);
	jobs->queue[(jobs->first + jobs->count++) % JOBS_QUEUE_MAX] = (struct job){fn, arg};
	if (jobs->idle < jobs->count && jobs->thread_count < jobs->thread_count_max) {
		check(pthread_create(&jobs->threads[jobs->thread_count], NULL, run, jobs) == 0);
		jobs->thread_count++;
	}
	pthread_cond_signal(&jobs->came);
	pthread_mutex_unlock(&jobs->mutex);
}

int jobs_close(struct jobs *jobs)
{
	pthread_mutex_lock(&jobs->mutex);
	jobs->ending = true;
	pthread_cond_broadcast(&jobs->came);
	pthread_mutex_unlock(&jobs->mutex);
	for (size_t i = 0; i < jobs->thread_count; i++)
		pthread_join(jobs->threads[i], NULL);
	int status = jobs->status;
	pthread_cond_destroy(&jobs->came);
	pthread_cond_destroy(&jobs->went);
	pthread_mutex_destroy(&jobs->mutex);
	free(jobs);
	return status;
}
