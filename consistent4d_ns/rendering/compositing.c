/* Compositing of packed samples and its gradient, ray by ray, with the formulas of compositing_kernel.py.

What is computed for each sample by itself is given: the share of light that it absorbs, 1 - exp(-density * step), and
its colour. */
#include <math.h>
#include "parallel.h"

typedef struct {
    const float *density, *absorbed, *colours; /* [levels, samples], the same, [levels, samples, 3] */
    const float *starts;                       /* [samples] */
    const int64_t *offsets;                    /* [rays + 1] */
    float *weights;                            /* [levels, samples]: a result of the first pass */
    float *accumulation, *colour, *depth;      /* [levels, rays], [levels, rays, 3], [levels, rays]: also results */
    float *final;                              /* [levels, rays]: transmittance behind the last sample */
    const float *to_weights, *to_accumulation, *to_colour, *to_depth; /* gradients of the results, or NULL */
    float *grad_density, *grad_features;       /* results of the second pass */
    int64_t levels, rays, samples;
    float step;
} Job;

static void forward_share(void *argument, int64_t begin, int64_t end, int thread) {
    const Job *job = argument;
    for (int64_t level = 0; level < job->levels; level++) {
        const float *density = job->density + level * job->samples, *absorbed = job->absorbed + level * job->samples;
        const float *colours = job->colours + 3 * level * job->samples;
        float *weights = job->weights + level * job->samples;
        for (int64_t ray = begin; ray < end; ray++) {
            float before = 0.0f, total = 0.0f, red = 0.0f, green = 0.0f, blue = 0.0f, distance = 0.0f;
            for (int64_t i = job->offsets[ray]; i < job->offsets[ray + 1]; i++) {
                float weight = expf(-before) * absorbed[i];
                before += density[i] * job->step;
                weights[i] = weight;
                total += weight;
                red += weight * colours[3 * i], green += weight * colours[3 * i + 1], blue += weight * colours[3 * i + 2];
                distance += weight * (job->starts[i] + 0.5f * job->step);
            }
            int64_t entry = level * job->rays + ray;
            job->accumulation[entry] = total;
            job->colour[3 * entry] = red, job->colour[3 * entry + 1] = green, job->colour[3 * entry + 2] = blue;
            job->depth[entry] = distance;
            job->final[entry] = expf(-before);
        }
    }
}

static void backward_share(void *argument, int64_t begin, int64_t end, int thread) {
    const Job *job = argument;
    for (int64_t level = 0; level < job->levels; level++)
        for (int64_t ray = begin; ray < end; ray++) {
            int64_t entry = level * job->rays + ray;
            float transmittance = job->final[entry], later = 0.0f;
            float to_total = job->to_accumulation ? job->to_accumulation[entry] : 0.0f;
            float to_distance = job->to_depth ? job->to_depth[entry] : 0.0f, to_colour[3] = {0};
            if (job->to_colour)
                for (int k = 0; k < 3; k++) to_colour[k] = job->to_colour[3 * entry + k];
            for (int64_t i = job->offsets[ray + 1] - 1; i >= job->offsets[ray]; i--) {
                int64_t sample = level * job->samples + i;
                const float *colour = job->colours + 3 * sample;
                float weight = job->weights[sample], to_weight = job->to_weights ? job->to_weights[sample] : 0.0f;
                to_weight += to_total + to_distance * (job->starts[i] + 0.5f * job->step);
                for (int k = 0; k < 3; k++) {
                    to_weight += to_colour[k] * colour[k];
                    job->grad_features[3 * sample + k] = weight * to_colour[k] * colour[k] * (1.0f - colour[k]);
                }
                job->grad_density[sample] = (to_weight * transmittance - later) * job->step;
                transmittance += weight;
                later += weight * to_weight;
            }
        }
}

void forward(Job *job, int threads) { in_parallel(forward_share, job, job->rays, threads); }

void backward(Job *job, int threads) { in_parallel(backward_share, job, job->rays, threads); }
