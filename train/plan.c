/* plan: see plan.h. */
#include "train/plan.h"

#include <math.h>

static double others(int64_t W) { return (double)(W - 1) / (double)W; }

/* Walking back is two thirds of a step, and layer by layer finishes in it. What is finished last: image keys and
 * values, heads; for the reference the word embedding. */
static const double BACKWARD = 2.0 / 3;
static double last_parameters(const Dims *d) {
    return 2.0 * d->C * (d->E + 1) * dims_cross_layers(d) + (double)d->C * (d->C + 2 * d->Z) + d->V;
}

Wire wire_ours(const Dims *d, int64_t params, int64_t B, int64_t W, int gradient_bytes) {
    double rest = (double)(B * (W - 1));                     /* pairs of other ranks */
    return (Wire){.features = rest * (double)((d->Q + 1) * d->Z) * 4,
                  .texts = rest * (4.0 * d->T + 4 + 8 + 2 * 4) + 24.0 * (double)(W - 1),
                  .gradients = 2 * others(W) * (double)params * gradient_bytes, .window = BACKWARD,
                  .tail = last_parameters(d) / (double)params, .device_ops = W > 1 ? 3 + d->L : 0,
                  .host_ops = W > 1 ? 7 : 0};
}

Wire wire_reference(const Dims *d, int64_t params, int64_t B, int64_t W) {
    double rest = (double)(B * (W - 1)), image = (double)d->P * d->E * 2;
    return (Wire){.image_tokens = rest * image + 2 * rest * image, .features = rest * (double)((d->Q + 1) * d->Z) * 4,
                  .texts = rest * 2 * 8.0 * d->T, .gradients = 2 * others(W) * (double)params * 4,
                  .window = BACKWARD, .tail = (double)d->V * d->C / (double)params, .device_ops = W > 1 ? 7 : 0};
}

StepTime step_time(const Dims *d, const Wire *w, const Links *l, int64_t B, int64_t W, double compute,
                   double negative_share) {
    const double F32_RATE = 40e12, DEVICE_LATENCY = 15e-6,
                 HOST_LATENCY = 8e-6; /* FLOP/s of similarities; seconds a hop */
    double rounds = W > 1 ? log2((double)W) : 0, b = (double)B;
    /* a ring through machines is as fast as its slowest link, which a machine's GPUs share */
    double rate = W <= l->gpus_per_node ? l->node : fmin(l->node, l->net * l->gpus_per_node);
    /* binomial's deviation, times how far the largest of W lies out */
    double spread = sqrt(b * others(W)) * (W > 1 ? sqrt(2 * log((double)W)) : 0);
    StepTime t = {.compute = compute, .similarity = 4.0 * b * b * (double)(W - 1) * d->Q * d->Z / F32_RATE,
                  .waiting = compute * negative_share * spread / b,
                  .moving = (wire_total(w) - w->gradients) / rate +
                            fmax(w->tail * w->gradients / rate, w->gradients / rate - w->window * compute),
                  .latency = rounds * (w->device_ops * DEVICE_LATENCY + w->host_ops * HOST_LATENCY)};
    t.efficiency = compute / (compute + t.similarity + t.waiting + t.moving + t.latency);
    return t;
}

double contrast_bytes(const Dims *d, int64_t B, int64_t W) {
    double G = (double)(B * W), b = (double)B;
    double gathered = W > 1 ? G * (double)((d->Q + 1) * d->Z) * 4 : 0;
    return gathered + 6 * b * G * 4;                         /* similarities, their queries and gradients, both ways */
}
