/* Ray marching through an occupancy grid: `sampling.lattice_samples` for a grid, with the same rounding.

The first pass counts the samples of every ray, the second writes them behind those of the rays before. To be compiled
without fused multiply-adds. */
#include <math.h>
#include "parallel.h"

typedef struct {
    const float *origins, *directions;   /* [rays, 3] */
    const float *jitter, *nears, *fars;  /* [rays] or NULL */
    const float *box;                    /* [2, 3]: corners of a box outside of which no cell is occupied */
    const uint8_t *occupied;             /* [resolution^3] */
    int64_t *offsets;                    /* [rays + 1]; the second pass begins each ray's samples there */
    int64_t *ray_indices;                /* [samples] */
    float *starts, *points;              /* [samples], [samples, 3]; NULL in the first pass, which counts */
    int64_t resolution;
    float step;
} Job;

/* Shorten [near, far] to where a ray is in a box (the slab method of `sampling.box_interval`). */
static inline void clip(const float *origin, const float *direction, const float *low, const float *high, float *near, float *far) {
    for (int k = 0; k < 3; k++) {
        if (fabsf(direction[k]) < 1e-12f) {
            if (origin[k] < low[k] || origin[k] > high[k]) *far = -INFINITY;
            continue;
        }
        float to_low = (low[k] - origin[k]) / direction[k], to_high = (high[k] - origin[k]) / direction[k];
        *near = fmaxf(*near, fminf(to_low, to_high));
        *far = fminf(*far, fmaxf(to_low, to_high));
    }
}

static inline int64_t cell(float coordinate, int64_t resolution) {
    int64_t index = (int64_t)((coordinate + 1.0f) * (0.5f * resolution));
    return index < 0 ? 0 : index < resolution ? index : resolution - 1;
}

static void march_share(void *argument, int64_t begin, int64_t end, int thread) {
    static const float low[3] = {-1.0f, -1.0f, -1.0f}, high[3] = {1.0f, 1.0f, 1.0f};
    const Job *job = argument;
    int64_t n = job->resolution;
    for (int64_t ray = begin; ray < end; ray++) {
        const float *origin = job->origins + 3 * ray, *direction = job->directions + 3 * ray;
        float near = job->nears ? job->nears[ray] : -INFINITY, far = job->fars ? job->fars[ray] : INFINITY;
        clip(origin, direction, low, high, &near, &far);
        float enter = near, leave = far, shift = job->jitter ? job->jitter[ray] * job->step : 0.0f;
        clip(origin, direction, job->box, job->box + 3, &enter, &leave);
        int64_t slot = job->points ? job->offsets[ray] : 0;
        /* No end: a ray without a direction, or of no numbers. */
        if (leave >= enter && leave < INFINITY) {
            /* One extra candidate on either side, against rounding errors. */
            float first = fmaxf(floorf((enter - shift) / job->step - 0.5f), 0.0f);
            float last = ceilf((leave - shift) / job->step - 0.5f);
            for (int64_t i = 0; first + i <= last; i++) {
                float start = shift + (first + i) * job->step, mid = start + 0.5f * job->step;
                float x = origin[0] + direction[0] * mid, y = origin[1] + direction[1] * mid;
                float z = origin[2] + direction[2] * mid;
                if (!(fabsf(x) <= 1.0f && fabsf(y) <= 1.0f && fabsf(z) <= 1.0f) || mid < near || mid > far) continue;
                if (!job->occupied[(cell(x, n) * n + cell(y, n)) * n + cell(z, n)]) continue;
                if (job->points) {
                    job->ray_indices[slot] = ray;
                    job->starts[slot] = start;
                    float *point = job->points + 3 * slot;
                    point[0] = x, point[1] = y, point[2] = z;
                }
                slot++;
            }
        }
        if (!job->points) job->offsets[ray + 1] = slot;
    }
}

void march(Job *job, int64_t rays, int threads) { in_parallel(march_share, job, rays, threads); }
