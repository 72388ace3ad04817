/* The queue of green threads that want to run. */
#include "worker.h"

struct green *queue_take(struct green_queue *queue)
{
	struct green *green = NULL;
	pthread_mutex_lock(&queue->lock);
	if (queue->n > 0) {
		green = queue->items[queue->first];
		queue->first = (queue->first + 1) % queue->capacity;
		queue->n--;
	}
	pthread_mutex_unlock(&queue->lock);
	return green;
}

void queue_put(struct green_queue *queue, struct green *green)
{
	pthread_mutex_lock(&queue->lock);
	queue->items[(queue->first + queue->n++) % queue->capacity] = green;
	pthread_mutex_unlock(&queue->lock);
}
