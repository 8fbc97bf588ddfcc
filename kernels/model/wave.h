/* wave: rows and segments, the one form of forward pass (DESIGN.md 1).
 *
 *     x (N, C)      all query rows first, then all text rows
 *                   | query rows  [0, NQ)            | text rows  [NQ, NQ+NT)          |
 *     Segment       { nq | text | which segment's queries its text sees | causal | joint | image }
 *
 * The caller lists segments; wave_build places their rows and derives what kernels need: ids and positions (also
 * sorted, for the backward of the embedding), where each row's random bits come from, and the two attention plans.
 * Nothing is padded. Everything is built on the host and goes up in one copy. Knows nothing of losses. */
#ifndef QF_WAVE_H
#define QF_WAVE_H
#include "kernels/model/dims.h"
#include "kernels/ops.h"

/* Which pass a row belongs to: part of where its random bits come from. */
typedef enum { PASS_ITC_IMAGE, PASS_ITC_TEXT, PASS_ITG, PASS_ITM, PASS_ITM_IMAGE, PASS_ITM_TEXT } Pass;

typedef struct {
    int32_t nq, nt;                     /* query rows (0 or Q) and text rows */
    const int32_t *ids;                 /* nt word pieces */
    int32_t first_id;                   /* replaces ids[0] when >= 0: [DEC] */
    int32_t sees;                       /* index of the segment whose query rows this text sees, or -1 */
    bool causal;                        /* text sees itself up to itself, else both ways */
    bool joint;                         /* own queries and own text see each other */
    int32_t image;                      /* whose keys the queries attend to, or -1 */
    Pass pass;
    uint32_t pair;                      /* index in the global batch */
    int32_t q0, t0;                     /* placed by wave_build: first query row, first text row (counted from NQ) */
} Segment;

typedef struct {
    int64_t NQ, NT;
    Embed embed;                        /* indices only */
    const RowKey *rows;                 /* (NQ + NT) on the device */
    AttnPlan self, cross;
} Wave;

/* Host and device room for what a wave describes, reused step after step. */
typedef struct {
    const Backend *b;
    char *host, *device;                /* the same when the backend is unified */
    size_t size, used, sent;            /* sent: what the device has already */
    bool plain;                         /* host memory from malloc: when measuring */
    int32_t *count;                     /* (most distinct + 1) counting sort */
    int32_t counts;
} WaveRoom;

/* Room for waves of at most `rows` rows, `segments` segments and `images` images in all. */
Status room_open(WaveRoom *r, const Backend *b, Arena *run, const Dims *d, int64_t rows, int64_t segments,
                 int64_t images);
/* what any wave takes */
Status room_open_bytes(WaveRoom *r, const Backend *b, Arena *run, size_t bytes, int32_t counts);
void room_close(WaveRoom *r);
void room_reset(WaveRoom *r);
void *room_take(WaveRoom *r, size_t count, size_t size); /* host memory; fill, then room_device it */
void *room_device(const WaveRoom *r, const void *host);                      /* the same place on the device */
void room_upload(WaveRoom *r); /* what was taken since the last time; memory stays until room_reset */

/* Fills q0 and t0 of the n segments and *w. Keys of image i are rows [i P, (i+1) P) of the image side, `images` in all.
 * At most one text may see a segment's queries. room_upload afterwards, once for all waves built since room_reset. */
Status wave_build(Wave *w, WaveRoom *r, const Dims *d, Segment *s, int n, int images);

#endif
