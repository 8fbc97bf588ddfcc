/* dist_self: see dist_self.h. */
#include "kernels/dist/dist_self.h"

#include <stdio.h>

#include "kernels/dist/dist.h"

DistSelf dist_self = {.size = 1, .timeout = 600, .step = -1};

int dist_rank(void) { return dist_self.rank; }
int dist_size(void) { return dist_self.size; }
int dist_local_rank(void) { return dist_self.local; }
bool dist_failed(void) { return dist_self.failed; }
void dist_set_timeout(double seconds) { dist_self.timeout = seconds; }

const char *dist_in_step(void) {
    static _Thread_local char text[32];                     /* the watching thread makes sentences too */
    text[0] = 0;
    if (dist_self.step >= 0) snprintf(text, sizeof text, " in step %lld", (long long)dist_self.step + 1);
    return text;
}

DistPart dist_part(int64_t total, int rank) {
    /* 64: parts begin at a line of the cache, for wide loads on either device */
    int64_t n = ((total + dist_size() - 1) / dist_size() + 63) / 64 * 64, at = n * rank;
    if (at > total) at = total;
    return (DistPart){at, total - at < n ? total - at : n};
}
