/* wave: rows and segments, the one form of forward pass (DESIGN.md 1).
 *
 *     x (N, C)      all query rows first, then all text rows
 *                   | query rows  [0, NQ)            | text rows  [NQ, NQ+NT)          |
 *     Segment       { nq | text | which segment's queries its text sees | causal | joint | image }
 *
 * The caller lists segments; wave_build places their rows and derives what kernels need: ids and positions (also
 * sorted, for the backward of the embedding), where each row's random bits come from, and the two attention plans.
 * Nothing is padded. Everything is built on the host and goes up in one copy. Knows nothing of losses. */
#pragma once
#include "kernels/model/dims.h"
#include "kernels/model/staging.h"
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
    int64_t text;                       /* first text row: NQ, or behind rows of another wave that lie between */
    Embed embed;                        /* indices only */
    const RowKey *rows;                 /* (text + NT) on the device */
    /* When `picks`, text rows that something reads behind the last layer, which computes those alone: counted from the
     * first one, and where their bits come from; on the device. */
    bool picks;
    int64_t npicked;
    const int32_t *picked;
    const RowKey *picked_rows;
    AttnPlan self, cross;
} Wave;

/* Bytes that a wave takes of the staging, of at most so many query rows and text rows in all. */
size_t wave_bytes(int64_t nq, int64_t nt, int64_t segments, int64_t images);

/* Only n text rows of a wave just built are read, none twice: picked[0..n),
 * taken from the same staging. It takes n RowKeys. */
void wave_pick(Wave *w, Staging *r, const int32_t *picked, int64_t n);

/* A second wave beside a first one, and both as one (tape_first has the picture). The first was built with free rows
 * around it (wave_between), in which the second's find place: `first` with its n1 segments s1, then s2, n2 of them (0:
 * there is none). `both` picks what the first picks. Takes wave_bytes twice: of both, and of the second. */
void wave_between(Wave *first, int64_t before, int64_t behind);
Status wave_second(Wave *second, Wave *both, const Wave *first, Staging *r, const Dims *d, const Segment *s1, int n1,
                   Segment *s2, int n2, int images);

/* Fills q0 and t0 of the n segments and *w. Keys of image i are rows [i P, (i+1) P) of the image side, `images` in all.
 * At most one text may see a segment's queries. staging_upload afterwards, once for all waves since staging_reset. */
Status wave_build(Wave *w, Staging *r, const Dims *d, Segment *s, int n, int images);
