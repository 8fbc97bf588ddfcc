/* recall: retrieval from features, both ways, without the whole similarity matrix in memory (evaluation.md 2, 4). */
#ifndef QF_RECALL_H
#define QF_RECALL_H
#include "kernels/backend.h"

typedef struct {
    double txt_r1, txt_r5, txt_r10, img_r1, img_r5, img_r10; /* per cent: image to text, text to image */
    double txt_median, img_median;                           /* median rank, from 1 */
    int64_t images, texts;
} Recall;

/* I (NI,Q,Z) and T (NT,Z), host, normalised; text t belongs to image owner[t]. sim[i,t] = max over queries of the cosine. Ranks
 * count from 0, lower index first among ties; txt_rank (NI) and img_rank (NT) receive them when not NULL. An image without
 * texts counts as a rank beyond every K. */
Status recall_from_features(const Backend *b, const float *I, int64_t NI, const float *T, int64_t NT, int64_t Q, int64_t Z,
                            const int32_t *owner, Recall *out, int32_t *txt_rank, int32_t *img_rank);

/* The figures from ranks. */
void recall_from_ranks(const int32_t *txt_rank, int64_t NI, const int32_t *img_rank, int64_t NT, Recall *out);

/* Similarities of NI images and NT texts in blocks of rows: row(ctx, i, s (NT)) for each image in order. */
typedef void RecallRow(void *ctx, int64_t i, const float *s);
Status recall_rows(const Backend *b, const float *I, int64_t NI, const float *T, int64_t NT, int64_t Q, int64_t Z, RecallRow *row, void *ctx);

#endif
