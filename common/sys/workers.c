#include "common/sys/workers.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/limits.h"

struct work_list {
	struct work *first, *last;
};

struct workers {
	/* The loop's own. */
	uv_loop_t *loop;
	uv_async_t finished_async;
	size_t pending; /* submitted, `done` not yet called */
	pthread_t threads[WORKERS_COUNT];
	unsigned threads_count;

	/* Under the mutex. */
	pthread_mutex_t mutex;
	pthread_cond_t wanted;
	struct work_list queue;
	struct work_list finished;
	unsigned idle;
	unsigned queued;
	bool stopping;
};

static void list_append(struct work_list *list, struct work *work)
{
	work->next = NULL;
	if (list->last != NULL)
		list->last->next = work;
	else
		list->first = work;
	list->last = work;
}

static struct work *list_pop(struct work_list *list)
{
	struct work *work = list->first;
	list->first = work->next;
	if (list->first == NULL)
		list->last = NULL;
	work->next = NULL;
	return work;
}

static void *thread_main(void *arg)
{
	struct workers *workers = arg;
	pthread_mutex_lock(&workers->mutex);
	for (;;) {
		while (workers->queue.first == NULL && !workers->stopping) {
			workers->idle++;
			pthread_cond_wait(&workers->wanted, &workers->mutex);
			workers->idle--;
		}
		if (workers->queue.first == NULL)
			break;
		struct work *work = list_pop(&workers->queue);
		workers->queued--;
		pthread_mutex_unlock(&workers->mutex);
		work->run(work);
		pthread_mutex_lock(&workers->mutex);
		bool first = workers->finished.first == NULL;
		list_append(&workers->finished, work);
		if (first)
			uv_async_send(&workers->finished_async);
	}
	pthread_mutex_unlock(&workers->mutex);
	iobuf_trim(); /* this thread's own */
	return NULL;
}

/* Signals belong to the loop's thread. */
static void start_thread(struct workers *workers)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int failed = pthread_create(&workers->threads[workers->threads_count], NULL, thread_main, workers);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed == 0)
		workers->threads_count++;
	/* Without any thread no work would ever be done. */
	check(workers->threads_count > 0);
}

static void pool_submit(struct workers *workers, struct work *work)
{
	pthread_mutex_lock(&workers->mutex);
	list_append(&workers->queue, work);
	workers->queued++;
	bool start = workers->queued > workers->idle && workers->threads_count < WORKERS_COUNT;
	pthread_cond_signal(&workers->wanted);
	pthread_mutex_unlock(&workers->mutex);
	if (start)
		start_thread(workers);
}

void workers_submit(struct workers *workers, struct work_lane *lane, struct work *work)
{
	check(workers->pending < WORK_QUEUE_MAX);
	workers->pending++;
	uv_ref((uv_handle_t *)&workers->finished_async);
	work->lane = lane;
	work->next = NULL;
	if (lane == NULL) {
		pool_submit(workers, work);
		return;
	}
	if (lane->running) {
		struct work_list list = { lane->first, lane->last };
		list_append(&list, work);
		lane->first = list.first;
		lane->last = list.last;
		return;
	}
	lane->running = true;
	pool_submit(workers, work);
}

/* The lane's next item goes to the pool before `done` runs, which may free the lane's owner when it was the last. */
static void lane_advance(struct workers *workers, struct work_lane *lane)
{
	if (lane->first == NULL) {
		lane->running = false;
		return;
	}
	struct work_list list = { lane->first, lane->last };
	struct work *next = list_pop(&list);
	lane->first = list.first;
	lane->last = list.last;
	pool_submit(workers, next);
}

static void on_finished(uv_async_t *async)
{
	struct workers *workers = async->data;
	pthread_mutex_lock(&workers->mutex);
	struct work_list finished = workers->finished;
	workers->finished = (struct work_list){ 0 };
	pthread_mutex_unlock(&workers->mutex);
	while (finished.first != NULL) {
		struct work *work = list_pop(&finished);
		if (work->lane != NULL)
			lane_advance(workers, work->lane);
		workers->pending--;
		work->done(work);
	}
	if (workers->pending == 0)
		uv_unref((uv_handle_t *)&workers->finished_async);
}

struct workers *workers_open(uv_loop_t *loop)
{
	struct workers *workers = mem_zero(1, sizeof(*workers));
	workers->loop = loop;
	pthread_mutex_init(&workers->mutex, NULL);
	pthread_cond_init(&workers->wanted, NULL);
	check(uv_async_init(loop, &workers->finished_async, on_finished) == 0);
	workers->finished_async.data = workers;
	uv_unref((uv_handle_t *)&workers->finished_async);
	return workers;
}

static void on_async_closed(uv_handle_t *handle)
{
	struct workers *workers = handle->data;
	pthread_mutex_destroy(&workers->mutex);
	pthread_cond_destroy(&workers->wanted);
	free(workers);
}

void workers_close(struct workers *workers)
{
	while (workers->pending > 0)
		uv_run(workers->loop, UV_RUN_ONCE);
	pthread_mutex_lock(&workers->mutex);
	workers->stopping = true;
	pthread_cond_broadcast(&workers->wanted);
	pthread_mutex_unlock(&workers->mutex);
	for (unsigned i = 0; i < workers->threads_count; i++)
		pthread_join(workers->threads[i], NULL);
	uv_close((uv_handle_t *)&workers->finished_async, on_async_closed);
}
