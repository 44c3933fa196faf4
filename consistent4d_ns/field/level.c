/* A level of the cascade: its planes at a point, their combination, and both heads; and the gradients of all weights.

CHANNELS and HIDDEN, the widths of planes and heads, are multiples of LANES. HYBRID tells how planes are combined, TIMED
whether there are planes over time, six planes in all, or three. The planes are in one table of grid values [values,
CHANNELS], so that the channels of a grid point are contiguous. Coordinates are [points, 4]; hidden weights [HIDDEN,
CHANNELS], output weights [outputs, HIDDEN]. */
#include <stdlib.h>
#include "parallel.h"

#define COLOURS 3

#define LANES 8

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t Mask __attribute__((vector_size(4 * LANES), aligned(4)));
typedef struct {
    Lanes part[CHANNELS / LANES];
} Features;
typedef struct {
    Lanes part[HIDDEN / LANES];
} Hidden;

#define EACH(i, width) for (int i = 0; i < (width) / LANES; i++)

#if TIMED
#define PLANES 6
#define AXES 4
static const int FIRST[PLANES] = {0, 0, 0, 1, 1, 2}, SECOND[PLANES] = {1, 2, 3, 2, 3, 3};
#else
#define PLANES 3
#define AXES 3
static const int FIRST[PLANES] = {0, 0, 1}, SECOND[PLANES] = {1, 2, 2};
#endif

typedef struct {
    const float *table, *coordinates;
    const int64_t *resolution;                    /* along x, y, z, t */
    const float *density_hidden, *density_output; /* [HIDDEN, CHANNELS], [1, HIDDEN] */
    const float *colour_hidden, *colour_output;   /* [HIDDEN, CHANNELS], [COLOURS, HIDDEN]; or NULL */
    float *density, *colour;                      /* [points], [points, COLOURS]: results, or their gradients */
    float *gradients;                             /* [threads, size of all weights in this order] */
    int64_t size;
} Job;

typedef struct {
    int64_t corner[4];
    float weight[4];
} Place;

typedef struct {
    Place place[PLANES];
    Features value[PLANES], features;
} Look;

/* Weights with the channels, over which is summed, first. */
typedef struct {
    Hidden row[CHANNELS];
} Transposed;

static Transposed transposed(const float *hidden) {
    Transposed result;
    for (int c = 0; c < CHANNELS; c++)
        for (int j = 0; j < HIDDEN; j++) ((float *)&result.row[c])[j] = hidden[j * CHANNELS + c];
    return result;
}

static inline const Features *features_at(const float *values) { return (const Features *)values; }

static inline const Hidden *hidden_at(const float *values) { return (const Hidden *)values; }

static inline Features times(Features a, Features b) {
    EACH(i, CHANNELS) a.part[i] *= b.part[i];
    return a;
}

static inline Features plus(Features a, Features b) {
    EACH(i, CHANNELS) a.part[i] += b.part[i];
    return a;
}

static inline void add_scaled(Features *sum, float factor, const Features *values) {
    EACH(i, CHANNELS) sum->part[i] += factor * values->part[i];
}

static inline void add_scaled_hidden(Hidden *sum, float factor, const Hidden *values) {
    EACH(i, HIDDEN) sum->part[i] += factor * values->part[i];
}

static inline void find(float coordinate, int64_t size, int64_t *before, float *share) {
    float place = (coordinate + 1.0f) * (0.5f * (size - 1));
    place = place > 0.0f ? place : 0.0f;
    place = place < size - 1 ? place : size - 1;
    int64_t index = (int64_t)place;
    index = index > size - 2 ? size - 2 : index;
    *before = index > 0 ? index : 0;
    *share = place - *before;
}

#if TIMED
static inline Features time_of(const Features *v) { return times(times(v[2], v[4]), v[5]); }

static inline Features space_of(const Features *v) {
    return HYBRID ? plus(plus(v[0], v[1]), v[3]) : times(times(v[0], v[1]), v[3]);
}

static inline Features combined(const Features *v) { return times(space_of(v), time_of(v)); }
#else
static inline Features combined(const Features *v) {
    return HYBRID ? plus(plus(v[0], v[1]), v[2]) : times(times(v[0], v[1]), v[2]);
}
#endif

static inline Look look(const Job *job, int64_t point) {
    Look look;
    int64_t before[AXES], start = 0;
    float share[AXES];
#pragma GCC unroll 4
    for (int axis = 0; axis < AXES; axis++)
        find(job->coordinates[4 * point + axis], job->resolution[axis], &before[axis], &share[axis]);
#pragma GCC unroll 6
    for (int i = 0; i < PLANES; i++) {
        int a = FIRST[i], b = SECOND[i];
        int64_t columns = job->resolution[a], rows = job->resolution[b];
        int64_t right = columns > 1, down = rows > 1 ? columns : 0, corner = start + before[b] * columns + before[a];
        Place *place = &look.place[i];
        *place = (Place){
            {corner, corner + right, corner + down, corner + down + right},
            {(1 - share[a]) * (1 - share[b]), share[a] * (1 - share[b]), (1 - share[a]) * share[b], share[a] * share[b]}};
        Features value = {0};
        for (int k = 0; k < 4; k++)
            add_scaled(&value, place->weight[k], features_at(job->table + CHANNELS * place->corner[k]));
        look.value[i] = value;
        start += columns * rows;
    }
    look.features = combined(look.value);
    return look;
}

static inline Hidden activate(const Transposed *weights, Features features) {
    Hidden sum = {0};
    for (int c = 0; c < CHANNELS; c++) add_scaled_hidden(&sum, ((float *)&features)[c], &weights->row[c]);
    EACH(i, HIDDEN) sum.part[i] = (Lanes)((Mask)sum.part[i] & (sum.part[i] > 0.0f));
    return sum;
}

static inline float dot(const Hidden *a, const Hidden *b) {
    Lanes sum = a->part[0] * b->part[0];
    for (int i = 1; i < HIDDEN / LANES; i++) sum += a->part[i] * b->part[i];
    return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
}

static void forward_share(void *argument, int64_t begin, int64_t end, int thread) {
    const Job *job = argument;
    Transposed density = transposed(job->density_hidden), colour;
    if (job->colour) colour = transposed(job->colour_hidden);
    for (int64_t point = begin; point < end; point++) {
        Features features = look(job, point).features;
        Hidden hidden = activate(&density, features);
        job->density[point] = dot(&hidden, hidden_at(job->density_output));
        if (!job->colour) continue;
        hidden = activate(&colour, features);
        for (int k = 0; k < COLOURS; k++)
            job->colour[COLOURS * point + k] = dot(&hidden, hidden_at(job->colour_output + HIDDEN * k));
    }
}

/* Gradients of a head's weights, which are added to, and of its input, which is returned. */
static inline Features head_gradient(
    const float *weights, const Transposed *columns, const float *output, int outputs, Features features,
    const float *upstream, Hidden *grad_columns, float *grad_output) {
    Hidden hidden = activate(columns, features), grad = {0};
    for (int k = 0; k < outputs; k++) {
        add_scaled_hidden(&grad, upstream[k], hidden_at(output + HIDDEN * k));
        add_scaled_hidden((Hidden *)(grad_output + HIDDEN * k), upstream[k], &hidden);
    }
    EACH(i, HIDDEN) grad.part[i] = (Lanes)((Mask)grad.part[i] & (hidden.part[i] > 0.0f));
    Features result = {0};
    for (int j = 0; j < HIDDEN; j++) add_scaled(&result, ((float *)&grad)[j], features_at(weights + CHANNELS * j));
    for (int c = 0; c < CHANNELS; c++) add_scaled_hidden(&grad_columns[c], ((float *)&features)[c], &grad);
    return result;
}

static inline void spread(const Place *place, Features gradient, float *grad_table) {
    for (int k = 0; k < 4; k++)
        add_scaled((Features *)(grad_table + CHANNELS * place->corner[k]), place->weight[k], &gradient);
}

/* The gradients of the planes that are combined as HYBRID says, given that of the features. */
static inline void spread_hybrid(const Look *at, Features grad, float *grad_table) {
#if TIMED
    const Features *v = at->value;
    Features time = times(grad, time_of(v)), space = times(grad, space_of(v));
    for (int i = 0; i < PLANES; i++) {
        Features factor = i == 2 ? times(v[4], v[5]) : i == 4 ? times(v[2], v[5]) : times(v[2], v[4]);
        spread(&at->place[i], SECOND[i] == 3 ? times(space, factor) : time, grad_table);
    }
#else
    for (int i = 0; i < PLANES; i++) spread(&at->place[i], grad, grad_table);
#endif
}

static void add_transposed(const Hidden *columns, float *weights) {
    for (int c = 0; c < CHANNELS; c++)
        for (int j = 0; j < HIDDEN; j++) weights[j * CHANNELS + c] += ((const float *)&columns[c])[j];
}

static void backward_share(void *argument, int64_t begin, int64_t end, int thread) {
    const Job *job = argument;
    Transposed density = transposed(job->density_hidden), colour;
    if (job->colour) colour = transposed(job->colour_hidden);
    Hidden grad_density[CHANNELS] = {0}, grad_colour[CHANNELS] = {0};
    float *heads = job->gradients + thread * job->size, *grad_table = heads + 2 * HIDDEN * CHANNELS + 4 * HIDDEN;
    float *density_output = heads + HIDDEN * CHANNELS, *colour_hidden = density_output + HIDDEN;
    float *colour_output = colour_hidden + HIDDEN * CHANNELS;
    for (int64_t point = begin; point < end; point++) {
        const float *to_density = job->density + point, *to_colour = job->colour + COLOURS * point;
        int coloured = job->colour && (to_colour[0] != 0.0f || to_colour[1] != 0.0f || to_colour[2] != 0.0f);
        if (*to_density == 0.0f && !coloured) continue;
        Look at = look(job, point);
        Features grad = head_gradient(
            job->density_hidden, &density, job->density_output, 1, at.features, to_density, grad_density,
            density_output);
        if (coloured)
            grad = plus(
                grad, head_gradient(
                          job->colour_hidden, &colour, job->colour_output, COLOURS, at.features, to_colour,
                          grad_colour, colour_output));
        const Features *v = at.value;
        if (HYBRID) {
            spread_hybrid(&at, grad, grad_table);
            continue;
        }
        Features behind[PLANES], before = v[0]; /* products of the values after and before each, and the gradient */
        behind[PLANES - 1] = grad;
#pragma GCC unroll 6
        for (int i = PLANES - 1; i > 0; i--) behind[i - 1] = times(behind[i], v[i]);
        spread(&at.place[0], behind[0], grad_table);
#pragma GCC unroll 6
        for (int i = 1; i < PLANES; i++) {
            spread(&at.place[i], times(before, behind[i]), grad_table);
            before = times(before, v[i]);
        }
    }
    add_transposed(grad_density, heads);
    add_transposed(grad_colour, colour_hidden);
}

void forward(Job *job, int64_t points, int threads) { in_parallel(forward_share, job, points, threads); }

void backward(Job *job, int64_t points, int threads) { in_parallel(backward_share, job, points, threads); }
