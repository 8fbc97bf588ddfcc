/* pth: see pth.h. */
#include "data/format/pth.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/pickle.h"
#include "data/format/zip.h"
#include "data/format/mapfile.h"
#include "kernels/base/mem.h"

enum { NAME_LIMIT = 512, COPY_FACTOR = 4, DEPTH_LIMIT = 6, VISIT_LIMIT = 4 << 20 };
_Static_assert((int)PICKLE_DIMS == (int)ST_DIMS, "a tensor of a pickle must fit StTensor");

typedef struct {
    char *name;
    uint32_t view;            /* index into pickle.tensors */
    uint32_t order;           /* the later of two equal names counts, as in Python */
    bool in_model;
    StTensor t;               /* t.data NULL until asked for */
    void *copy;
} Entry;

struct PthFile {
    char *path;
    MapFile map;
    size_t copied;
    Pickle pickle;
    const uint8_t **storage;  /* where each of pickle.storages begins */
    Entry *entries;           /* sorted by name */
    size_t count, visits;
    struct PthList { char *name; PickleRef list; } *lists;
    size_t nlists;
};

/* Protocol 2, LONG1 of 10 bytes: 0x1950a86a20f9469cfc6c, then STOP. */
static const uint8_t legacy_magic[15] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                         0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};

static bool is_legacy(const uint8_t *bytes, size_t n) {
    return n >= sizeof legacy_magic && memcmp(bytes, legacy_magic, sizeof legacy_magic) == 0;
}

bool pth_looks_like(const void *bytes, size_t n) {
    return is_legacy(bytes, n) || (n >= 4 && memcmp(bytes, "PK\3\4", 4) == 0);
}

/* ---- storages ---------------------------------------------------------------------------------------------------- */

/* Looks up every storage under prefix + key, and checks that it is there in full. */
static Status bind_storages(PthFile *f, const ZipMap *records, const char *prefix, size_t prefix_len) {
    const Pickle *p = &f->pickle;
    char name[NAME_LIMIT];
    if (!(f->storage = mem_new(p->nstorages, sizeof *f->storage))) return ERR_MEMORY;
    for (size_t i = 0; i < p->nstorages; i++) {
        const PickleStorage *s = &p->storages[i];
        size_t bytes, len = prefix_len + s->key_len;
        int shown = s->key_len < 40 ? (int)s->key_len : 40;
        if (len > sizeof name) return err_set(ERR_FORMAT, "%s: a storage has a key of %zu bytes", f->path, len);
        if (prefix_len) memcpy(name, prefix, prefix_len);
        memcpy(name + prefix_len, s->key, s->key_len);
        const ZipRecord *r = zip_find(records, name, len);
        if (!r) return err_set(ERR_FORMAT, "%s: storage %.*s is not in the file", f->path, shown, s->key);
        if (r->method != 0)                                  /* views point into the mapped file */
            return err_set(ERR_FORMAT, "%s: storage %.*s is compressed or encrypted", f->path, shown, s->key);
        if (!mem_mul((size_t)s->elements, (size_t)dtype_size(s->dtype), &bytes) || bytes > r->size)
            return err_set(ERR_FORMAT,
                           "%s: storage %.*s claims %" PRId64 " elements of %s, the file holds %zu bytes of it",
                           f->path, shown, s->key, s->elements, dtype_name(s->dtype), r->size);
        f->storage[i] = r->data;
    }
    return OK;
}

static bool ends_with(const ZipRecord *r, const char *end) {
    size_t n = strlen(end);
    return r->name_len >= n && memcmp(r->name + r->name_len - n, end, n) == 0;
}

/* A zip archive: FOLDER/data.pkl, FOLDER/data/KEY, perhaps FOLDER/byteorder. */
static Status open_zip(PthFile *f) {
    ZipMap zip;
    Status st = zip_read(&zip, f->map.bytes, f->map.n, f->path);
    if (st != OK) return st;
    char prefix[NAME_LIMIT];
    const ZipRecord *pkl = NULL;
    for (size_t i = 0; i < zip.count; i++) {
        const ZipRecord *r = &zip.records[i];
        /* elements are used as they lie */
        if (ends_with(r, "/byteorder") && r->method == 0 && r->size == 3 && memcmp(r->data, "big", 3) == 0) {
            st = err_set(ERR_FORMAT, "%s: was written on a big-endian machine", f->path);
            goto done;
        }
        if (!pkl && ends_with(r, "/data.pkl")) pkl = r;
    }
    /* the folder in front is called after the file, as it was when it was saved */
    size_t len = pkl ? pkl->name_len - strlen(".pkl") + 1 : 0;
    if (!pkl || len > sizeof prefix) {
        st = err_set(ERR_FORMAT, "%s: a zip archive without data.pkl is no checkpoint", f->path);
        goto done;
    }
    if (pkl->method != 0) {
        st = err_set(ERR_FORMAT, "%s: data.pkl is compressed or encrypted; torch writes it stored", f->path);
        goto done;
    }
    memcpy(prefix, pkl->name, len - 1);
    prefix[len - 1] = '/';                               /* "FOLDER/data/" */
    st = pickle_read(&f->pickle, pkl->data, pkl->size, f->path, NULL);
    if (st == OK) st = bind_storages(f, &zip, prefix, len);
done:
    zip_free(&zip);
    return st;
}

/* The storages behind the pickles: a list of keys, then for each an i64 count and the elements. Their type is known
 * only from the places that mention them. */
static Status read_legacy_records(PthFile *f, const Pickle *keys, size_t at, ZipMap *found) {
    Status st = OK;
    const Pickle *p = &f->pickle;
    const PickleValue *list = &keys->values[keys->root];
    ZipMap types = {0};
    if (list->kind != PK_LIST) return err_set(ERR_FORMAT, "%s: the list of storages is missing", f->path);
    if (!(types.records = mem_new(p->nstorages, sizeof *types.records)) ||
        !(found->records = mem_new(list->count, sizeof *found->records))) { st = ERR_MEMORY; goto done; }
    for (size_t i = 0; i < p->nstorages; i++)
        types.records[i] =
            (ZipRecord){.name = p->storages[i].key, .name_len = p->storages[i].key_len,
                        .size = (size_t)dtype_size(p->storages[i].dtype)};
    types.count = p->nstorages;
    (void)zip_sort(&types, f->path);                     /* keys that stand here twice are no error */
    for (uint32_t c = list->u.items.first; c != PICKLE_NIL; c = keys->cells[c].next) {
        const PickleValue *key = &keys->values[keys->cells[c].value];
        const ZipRecord *type = key->kind == PK_STR ? zip_find(&types, key->u.str.p, key->u.str.n) : NULL;
        int64_t n;
        size_t bytes;
        /* without its type nobody knows where it ends */
        if (!type) { st = err_set(ERR_FORMAT, "%s: a storage that no tensor uses", f->path); goto done; }
        if (f->map.n - at < sizeof n) goto cut;
        memcpy(&n, f->map.bytes + at, sizeof n); /* at no alignment: pickles of any length stand before it */
        at += sizeof n;
        if (n < 0 || !mem_mul((size_t)n, type->size, &bytes) || bytes > f->map.n - at) goto cut;
        found->records[found->count++] =
            (ZipRecord){.name = key->u.str.p, .name_len = key->u.str.n, .data = f->map.bytes + at, .size = bytes,
                        .packed = bytes};
        at += bytes;
    }
    st = zip_sort(found, f->path);
    goto done;
cut:
    st = err_set(ERR_FORMAT, "%s: is cut short: a storage reaches beyond its end", f->path);
done:
    free(types.records);
    return st;
}

/* Before torch 1.6: pickles of the magic, the protocol 1001, the machine,
 * the object and the keys, then the storages. */
static Status open_legacy(PthFile *f) {
    Pickle part = {0};
    ZipMap found = {0};
    size_t at = sizeof legacy_magic, used = 0;
    Status st = pickle_read(&part, f->map.bytes + at, f->map.n - at, f->path, &used);
    if (st != OK) return st;
    /* torch's number of the form, which it never changed */
    if (part.values[part.root].kind != PK_INT || part.values[part.root].u.i != 1001) {
        st = err_set(ERR_FORMAT, "%s: an unknown version of the container", f->path);
        goto done;
    }
    at += used;
    pickle_free(&part);
    if ((st = pickle_read(&part, f->map.bytes + at, f->map.n - at, f->path, &used)) != OK) goto done;
    PickleRef little = pickle_get(&part, part.root, "little_endian");
    if (little == PICKLE_NIL || part.values[little].kind != PK_BOOL || !part.values[little].u.i) {
        st = err_set(ERR_FORMAT, "%s: was written on a big-endian machine", f->path);
        goto done;
    }
    at += used;
    pickle_free(&part);
    if ((st = pickle_read(&f->pickle, f->map.bytes + at, f->map.n - at, f->path, &used)) != OK) goto done;
    at += used;
    if ((st = pickle_read(&part, f->map.bytes + at, f->map.n - at, f->path, &used)) != OK) goto done;
    st = read_legacy_records(f, &part, at + used, &found);
    if (st == OK) st = bind_storages(f, &found, "", 0);
done:
    pickle_free(&part);
    zip_free(&found);
    return st;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static Status add_entry(PthFile *f, const char *name, uint32_t view, bool in_model) {
    /* tied weights have several names */
    if (f->count >= 2 * (size_t)PICKLE_TENSORS) return err_set(ERR_FORMAT, "%s: holds too many tensors", f->path);
    if (mem_room(&f->entries, f->count, 1, sizeof *f->entries) != OK) return ERR_MEMORY;
    Entry *e = &f->entries[f->count];
    *e = (Entry){.name = mem_strdup(name), .view = view, .order = (uint32_t)f->count, .in_model = in_model};
    if (!e->name) return ERR_MEMORY;
    f->count++;
    const PickleTensor *v = &f->pickle.tensors[view];
    e->t = (StTensor){.name = e->name, .dtype = f->pickle.storages[v->storage].dtype, .ndim = v->ndim};
    memcpy(e->t.shape, v->shape, sizeof e->t.shape);
    /* strides of 0 can claim so much: refused when asked for */
    if (!mem_mul((size_t)v->elements, (size_t)dtype_size(e->t.dtype), &e->t.nbytes)) e->t.nbytes = SIZE_MAX;
    return OK;
}

/* Appends a key to name[0..len); SIZE_MAX when it is none that a tensor could have. */
static size_t join(char *name, size_t len, const PickleValue *key) {
    char number[24];
    const char *p = key->kind == PK_STR ? key->u.str.p : number;
    size_t n = key->kind == PK_STR ? key->u.str.n
             : key->kind == PK_INT ? (size_t)snprintf(number, sizeof number, "%" PRId64, key->u.i) : SIZE_MAX;
    if (n > NAME_LIMIT || len + n + 2 > NAME_LIMIT) return SIZE_MAX;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f) return SIZE_MAX; /* names go into sentences on a terminal */
    if (len) name[len++] = '.';
    memcpy(name + len, p, n);
    name[len + n] = 0;
    return len + n;
}

/* Enters the tensors of a dict and of the dicts in it, all but the value `skip`. The recursion ends at DEPTH_LIMIT, the
 * number of steps at VISIT_LIMIT: a dict may be shared many times over, or contain itself. */
static Status collect(PthFile *f, PickleRef dict, PickleRef skip, bool in_model, char *name, size_t len, int depth) {
    const Pickle *p = &f->pickle;
    const PickleValue *d = &p->values[dict];
    Status st = OK;
    for (uint32_t c = d->u.items.first; c != PICKLE_NIL && st == OK; c = p->cells[p->cells[c].next].next) {
        PickleRef value = p->cells[p->cells[c].next].value;
        const PickleValue *v = &p->values[value];
        if (++f->visits > VISIT_LIMIT) return err_set(ERR_FORMAT, "%s: its dictionaries contain each other", f->path);
        if (value == skip || (v->kind != PK_TENSOR && v->kind != PK_DICT)) continue;
        size_t n = join(name, len, &p->values[p->cells[c].value]);
        if (n == SIZE_MAX && v->kind == PK_TENSOR)
            return err_set(ERR_FORMAT, "%s: a tensor has a name that is too long or unprintable", f->path);
        if (n == SIZE_MAX) continue;
        if (v->kind == PK_TENSOR) st = add_entry(f, name, v->u.index, in_model);
        else if (depth < DEPTH_LIMIT) st = collect(f, value, skip, in_model, name, n, depth + 1);
    }
    return st;
}

static int by_name(const void *a, const void *b) {
    const Entry *x = a, *y = b;
    int c = strcmp(x->name, y->name);
    return c ? c : (x->order > y->order) - (x->order < y->order);
}

/* Sorts the entries and keeps the last of each name. */
static void index_names(PthFile *f) {
    size_t kept = 0;
    if (f->count) qsort(f->entries, f->count, sizeof *f->entries, by_name);
    for (size_t i = 0; i < f->count; i++) {
        if (kept && strcmp(f->entries[kept - 1].name, f->entries[i].name) == 0) free(f->entries[--kept].name);
        f->entries[kept++] = f->entries[i];
        f->entries[kept - 1].t.name = f->entries[kept - 1].name;
    }
    f->count = kept;
}

static bool is_text_list(const Pickle *p, const PickleValue *v) {
    if ((v->kind != PK_LIST && v->kind != PK_TUPLE) || !v->count) return false;
    enum PickleKind kind = p->values[p->cells[v->u.items.first].value].kind;
    for (uint32_t c = v->u.items.first; c != PICKLE_NIL; c = p->cells[c].next)
        if (p->values[p->cells[c].value].kind != kind) return false;
    return kind == PK_STR || kind == PK_INT;
}

static Status add_list(PthFile *f, const char *name, PickleRef value) {
    f->lists[f->nlists].list = value;
    if (!(f->lists[f->nlists].name = mem_strdup(name))) return ERR_MEMORY;
    f->nlists++;
    return OK;
}

static Status find_lists(PthFile *f) {
    const Pickle *p = &f->pickle;
    const PickleValue *d = &p->values[p->root];
    char name[NAME_LIMIT];
    Status st = OK;
    if (d->kind != PK_DICT) return OK;
    if (!(f->lists = mem_new(d->count / 2 + 1, sizeof *f->lists))) return ERR_MEMORY;
    for (uint32_t c = d->u.items.first; c != PICKLE_NIL && st == OK && f->nlists <= d->count / 2;
         c = p->cells[p->cells[c].next].next) {
        PickleRef value = p->cells[p->cells[c].next].value;
        if (is_text_list(p, &p->values[value]) && join(name, 0, &p->values[p->cells[c].value]) != SIZE_MAX)
            st = add_list(f, name, value);
    }
    return st;
}

/* [tensor, tensor, ...] and (tensor, names): called by their places, which sort as they stand. */
static Status find_items(PthFile *f) {
    const Pickle *p = &f->pickle;
    const PickleValue *d = &p->values[p->root];
    char name[24];
    size_t i = 0;
    Status st = (f->lists = mem_new(d->count + 1, sizeof *f->lists)) ? OK : ERR_MEMORY;
    for (uint32_t c = d->u.items.first; c != PICKLE_NIL && st == OK && i < d->count; c = p->cells[c].next, i++) {
        const PickleValue *v = &p->values[p->cells[c].value];
        snprintf(name, sizeof name, "%09zu", i); /* as many digits as there may be places: they sort as text */
        if (v->kind == PK_TENSOR) st = add_entry(f, name, v->u.index, true);
        else if (is_text_list(p, v)) st = add_list(f, name, p->cells[c].value);
    }
    return st;
}

static Status find_tensors(PthFile *f) {
    const Pickle *p = &f->pickle;
    char name[NAME_LIMIT];
    PickleRef model = pickle_get(p, p->root, "model");
    if (model == PICKLE_NIL || p->values[model].kind != PK_DICT) model = pickle_get(p, p->root, "state_dict");
    /* nothing is called so: all of it is the state dict */
    bool bare = model == PICKLE_NIL || p->values[model].kind != PK_DICT;
    Status st =
        p->values[p->root].kind != PK_DICT ? OK : collect(f, p->root, bare ? PICKLE_NIL : model, bare, name, 0, 0);
    /* last, so that its names win over others' like them */
    if (st == OK && !bare) st = collect(f, model, PICKLE_NIL, true, name, 0, 0);
    if (st == OK && p->values[p->root].kind == PK_TENSOR) st = add_entry(f, "", p->values[p->root].u.index, true);
    bool items = p->values[p->root].kind == PK_LIST || p->values[p->root].kind == PK_TUPLE;
    if (st == OK) st = items ? find_items(f) : find_lists(f);
    if (st == OK && f->count == 0)
        st = err_set(ERR_FORMAT,
                     "%s: holds no tensors where they are looked for: in a dict (a state dict), or a list of tensors; "
                     "NumPy arrays and objects beside them are not read", f->path);
    if (st == OK) index_names(f);
    return st;
}

/* ---- public ------------------------------------------------------------------------------------------------------ */

static Status open_map(PthFile **out, MapFile map, const char *name) {
    PthFile *f = mem_new(1, sizeof *f);
    if (!f) return mapfile_close(&map), ERR_MEMORY;
    f->map = map;
    Status st = (f->path = mem_strdup(name)) ? OK : ERR_MEMORY;
    if (st == OK)
        st = is_legacy(map.bytes, map.n) ? open_legacy(f) : zip_looks_like(map.bytes, map.n) ? open_zip(f)
           : err_set(ERR_FORMAT, "%s: is no PyTorch checkpoint (neither a zip archive nor the older container)", name);
    if (st == OK) st = find_tensors(f);
    if (st == OK) *out = f;
    else pth_close(f);
    return st;
}

Status pth_open(PthFile **out, const char *path) {
    MapFile map;
    *out = NULL;
    Status st = mapfile_open(&map, path);
    return st == OK ? open_map(out, map, path) : st;
}

Status pth_open_memory(PthFile **out, const void *bytes, size_t n, const char *name) {
    *out = NULL;
    return open_map(out, mapfile_of(bytes, n), name);
}

void pth_close(PthFile *f) {
    if (!f) return;
    for (size_t i = 0; i < f->count; i++) mem_free(f->entries[i].name, f->entries[i].copy);
    for (size_t i = 0; i < f->nlists; i++) free(f->lists[i].name);
    mem_free(f->lists, f->entries, f->storage);
    pickle_free(&f->pickle);
    mapfile_close(&f->map);
    mem_free(f->path, f);
}

size_t pth_count(const PthFile *f) { return f->count; }
bool pth_is_script(const PthFile *f) { return f->pickle.script; }
bool pth_in_model(const PthFile *f, size_t i) { return f->entries[i].in_model; }

static bool dense(const PickleTensor *v) {
    int64_t want = 1;
    for (int i = v->ndim - 1; i >= 0; i--) {
        if (v->shape[i] != 1 && v->stride[i] != want) return false; /* the stride of a single element is never walked */
        want *= v->shape[i];
    }
    return true;
}

/* Element by element, the last index fastest: an odometer over the shape. Unsigned, because the stride of a
 * dimension of size 1 may be any number; every position that is read was checked by pickle.c. */
static void gather(uint8_t *dst, const uint8_t *src, const PickleTensor *v, size_t size) {
    int64_t index[PICKLE_DIMS] = {0};
    size_t at = (size_t)v->offset;
    for (int64_t n = 0; n < v->elements; n++, dst += size) {
        memcpy(dst, src + at * size, size);
        for (int i = v->ndim - 1; i >= 0; i--) {
            at += (size_t)v->stride[i];
            if (++index[i] < v->shape[i]) break;
            at -= (size_t)v->stride[i] * (size_t)v->shape[i];
            index[i] = 0;
        }
    }
}

Status pth_tensor(PthFile *f, size_t i, const StTensor **out) {
    Entry *e = &f->entries[i];
    const PickleTensor *v = &f->pickle.tensors[e->view];
    const PickleStorage *s = &f->pickle.storages[v->storage];
    size_t size = (size_t)dtype_size(s->dtype);
    *out = NULL;
    if (!e->t.data && v->elements == 0) e->t.data = f->map.bytes; /* any address: NULL stands for not asked yet */
    if (!e->t.data) {
        const uint8_t *src = f->storage[v->storage] + (size_t)v->offset * size;
        if (dense(v) && (uintptr_t)src % size == 0) {
            e->t.data = src;
        } else {
            if (e->t.nbytes > COPY_FACTOR * f->map.n - f->copied)
                return err_set(ERR_FORMAT,
                               "%s: tensor %s repeats its elements, so that copies would take %d times the file",
                               f->path, e->name, COPY_FACTOR);
            if (!(e->copy = mem_new(e->t.nbytes, 1))) return ERR_MEMORY;
            f->copied += e->t.nbytes;
            gather(e->copy, f->storage[v->storage], v, size);
            e->t.data = e->copy;
        }
    }
    *out = &e->t;
    return OK;
}

Status pth_find(PthFile *f, const char *name, const StTensor **out) {
    size_t low = 0, high = f->count;
    *out = NULL;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = strcmp(f->entries[mid].name, name);
        if (c == 0) return pth_tensor(f, mid, out);
        if (c < 0) low = mid + 1;
        else high = mid;
    }
    return OK;
}

size_t pth_lists(const PthFile *f) { return f->nlists; }
const char *pth_list_name(const PthFile *f, size_t i) { return f->lists[i].name; }
size_t pth_list_count(const PthFile *f, size_t i) { return f->pickle.values[f->lists[i].list].count; }

Status pth_list_labels(const PthFile *f, size_t i, LabelFn *fn, void *ctx) {
    const Pickle *p = &f->pickle;
    Status st = OK;
    for (uint32_t c = p->values[f->lists[i].list].u.items.first; c != PICKLE_NIL && st == OK; c = p->cells[c].next) {
        const PickleValue *v = &p->values[p->cells[c].value];
        char number[24];
        if (v->kind == PK_STR) st = fn(ctx, v->u.str.p, v->u.str.n);
        else st = fn(ctx, number, (size_t)snprintf(number, sizeof number, "%" PRId64, v->u.i));
    }
    return st;
}
