/* Ground truth and result in COCO's format, and scores of what is accepted. Input:
 * the ground truth, a NUL, the result. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "eval/metrics/score.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t first = nul ? (size_t)(nul - data) : size;
    const char *rest = nul ? (const char *)nul + 1 : "[]";
    Coco coco;
    Scores s;
    if (coco_parse(&coco, (const char *)data, first, "gt", rest, nul ? size - first - 1 : 2, "res")) return 0;
    if (score_coco(&coco, NULL, &s)) return 0;
    if (!isfinite(s.corpus.cider) || !isfinite(s.corpus.bleu[3]) || !(s.corpus.rouge_l <= 1)) abort();
    score_free(&s);
    return 0;
}
