/* planner: see planner.h. */
#include "kernels/model/planner.h"

Planner planner_begin(AttnPlan *p, Staging *r, int items, int groups) {
    *p = (AttnPlan){0};
    return (Planner){p, staging_take(r, (size_t)items, sizeof(AttnItem)),
                     staging_take(r, (size_t)groups, sizeof(AttnGroup)), r};
}

void planner_group(Planner *a, int32_t a0, int32_t na, int32_t b0, int32_t nb) {
    a->groups[a->p->ngroups++] = (AttnGroup){.item0 = a->p->nitems, .k0 = {a0, b0}, .nk = {na, nb}};
    if (na > a->p->max_group_nk) a->p->max_group_nk = na;
    if (nb > a->p->max_group_nk) a->p->max_group_nk = nb;
}

void planner_item(Planner *a, AttnItem it) {
    AttnPlan *p = a->p;
    /* a text segment has no query rows, a text whose only id follows its prefix at once no row at all */
    if (!it.nq) return;
    it.group = p->ngroups - 1;
    a->items[p->nitems++] = it;
    a->groups[it.group].nitems++;
    int64_t nq = it.nq, half = nq * (nq + 1) / 2;
    p->products += it.causal & CAUSAL_A ? half : nq * it.na;
    p->products += it.causal & CAUSAL_B ? half : nq * it.nb;
    p->nrows += it.nq;
    if (it.nq > p->max_nq) p->max_nq = it.nq;
    if (it.na + it.nb > p->max_nk) p->max_nk = it.na + it.nb;
}

void planner_end(const Planner *a) {
    a->p->host_items = a->items;
    a->p->host_groups = a->groups;
    a->p->items = staging_device(a->r, a->items);
    a->p->groups = staging_device(a->r, a->groups);
}

void planner_round(AttnPlan *p) {
    int32_t n = 64;
    while (n < p->max_nk) n *= 2;
    p->max_nk = n;
}
