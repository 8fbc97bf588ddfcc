/* recall: retrieval from features, both ways, without the whole similarity matrix in memory (evaluation.md 2, 4). */
#pragma once
#include "data/format/json.h"
#include "kernels/backend.h"

typedef struct {
    double txt_r1, txt_r5, txt_r10, img_r1, img_r5, img_r10; /* per cent: image to text, text to image */
    double txt_median, img_median;                           /* median rank, from 1 */
    double txt_mean, img_mean; /* mean rank, from 1, of images that have a text and of texts */
    int64_t images, texts;
} Recall;

/* I (NI,Q,Z) and T (NT,Z), host, normalised; text t belongs to image owner[t]. sim[i,t] = max over queries of the
 * cosine. Ranks count from 0, lower index first among ties; txt_rank (NI) and img_rank (NT) receive them when not
 * NULL. An image without texts counts as a rank beyond every K. */
Status recall_from_features(const Backend *b, const float *I, int64_t NI, const float *T, int64_t NT, int64_t Q,
                            int64_t Z, const int32_t *owner, Recall *out, int32_t *txt_rank, int32_t *img_rank);

/* The figures from ranks. */
void recall_from_ranks(const int32_t *txt_rank, int64_t NI, const int32_t *img_rank, int64_t NT, Recall *out);

/* Similarities of NI images and NT texts in blocks of rows: row(ctx, i, s (NT)) for each image in order. */
typedef void RecallRow(void *ctx, int64_t i, const float *s);
Status recall_rows(const Backend *b, const float *I, int64_t NI, const float *T, int64_t NT, int64_t Q, int64_t Z,
                   RecallRow *row, void *ctx);

/* Where rows of similarities come from: calls row for every image in order, each time it is asked. */
typedef Status RecallSource(void *source, RecallRow *row, void *ctx);
typedef struct { const Backend *b; const float *I, *T; int64_t NI, NT, Q, Z; } RecallFeatures;
Status recall_feature_rows(void *features /* RecallFeatures */, RecallRow *row, void *ctx);

/* Ranks (NI) and (NT) from rows, asked for twice. Images fall into `folds` parts of neighbours, and whatever lies
 * in another part is not there. `also` (may be NULL) is given each row once, too. ERR_NUMERIC names the image whose
 * similarities are not finite. */
typedef struct { RecallRow *row; void *ctx; } RecallAlso;
Status recall_ranks(RecallSource *rows, void *source, int64_t NI, int64_t NT, const int32_t *owner, int folds,
                    const RecallAlso *also, int32_t *txt_rank, int32_t *img_rank);
static inline int32_t recall_fold(int64_t image, int64_t NI, int folds) { return (int32_t)(image * folds / NI); }

/* max over queries of <I[q], T> */
float recall_cosine(const float *I, const float *T, int64_t Q, int64_t Z);

/* Rows of a table, and members of a JSON object under the reference's names (txt_r1 ... agg_metrics) with mean and
 * median rank. Chance has no ranks. */
void recall_print_head(void);
void recall_print(const char *name, const Recall *r, bool ranks);
void recall_write(JsonWriter *w, const Recall *r, bool ranks);
