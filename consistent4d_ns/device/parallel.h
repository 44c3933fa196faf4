/* Threads for the kernels: pthreads, which sleep while they wait, unlike those of OpenMP. */
#include <pthread.h>
#include <stdint.h>

#define MAX_THREADS 64

typedef void (*Work)(void *job, int64_t begin, int64_t end, int thread);
typedef struct {
    Work work;
    void *job;
    int64_t begin, end;
    int thread;
} Share;

static void *run_share(void *argument) {
    Share *share = argument;
    share->work(share->job, share->begin, share->end, share->thread);
    return 0;
}

/* Work on `count` items in equal shares, the first of which the calling thread takes. */
static void in_parallel(Work work, void *job, int64_t count, int threads) {
    Share shares[MAX_THREADS];
    pthread_t others[MAX_THREADS];
    int started[MAX_THREADS];
    threads = threads > MAX_THREADS ? MAX_THREADS : threads;
    for (int i = threads - 1; i >= 0; i--) {
        shares[i] = (Share){work, job, count * i / threads, count * (i + 1) / threads, i};
        started[i] = i > 0 && pthread_create(&others[i], 0, run_share, &shares[i]) == 0;
        if (!started[i]) run_share(&shares[i]);
    }
    for (int i = 1; i < threads; i++)
        if (started[i]) pthread_join(others[i], 0);
}
