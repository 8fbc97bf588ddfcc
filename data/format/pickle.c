/* pickle: see pickle.h. One loop over opcodes; a stack of references, a memo, and a pool of values that only grows. */
#include "data/format/pickle.h"

#include <string.h>

#include "data/format/pickle_names.h"
#include "kernels/base/mem.h"

enum Op {
    MARK = '(', STOP = '.', POP = '0', POP_MARK = '1', DUP = '2', BINFLOAT = 'G', BININT = 'J', BININT1 = 'K',
    BININT2 = 'M', NONE = 'N', BINPERSID = 'Q', REDUCE = 'R', BINSTRING = 'T', SHORT_BINSTRING = 'U', BINUNICODE = 'X',
    APPEND = 'a', BUILD = 'b', GLOBAL = 'c', DICT = 'd', EMPTY_DICT = '}', APPENDS = 'e', BINGET = 'h',
    LONG_BINGET = 'j', LIST = 'l', EMPTY_LIST = ']', BINPUT = 'q', LONG_BINPUT = 'r', SETITEM = 's', TUPLE = 't',
    EMPTY_TUPLE = ')', SETITEMS = 'u', BINBYTES = 'B', SHORT_BINBYTES = 'C', PROTO = 0x80, NEWOBJ = 0x81,
    TUPLE1 = 0x85, TUPLE2 = 0x86, TUPLE3 = 0x87, NEWTRUE = 0x88, NEWFALSE = 0x89, LONG1 = 0x8a, LONG4 = 0x8b,
    SHORT_BINUNICODE = 0x8c, BINUNICODE8 = 0x8d, BINBYTES8 = 0x8e, EMPTY_SET = 0x8f, ADDITEMS = 0x90, FROZENSET = 0x91,
    NEWOBJ_EX = 0x92, STACK_GLOBAL = 0x93, MEMOIZE = 0x94, FRAME = 0x95, BYTEARRAY8 = 0x96
};

typedef struct {
    Pickle *out;
    const uint8_t *start, *p, *end;
    const char *path;
    PickleRef *stack, *memo;
    uint32_t *marks;              /* heights of the stack where MARK stood */
    size_t height, nmarks, nmemo, next_memo;
} Vm;

static Status bad(const Vm *vm, const char *what) {
    return err_set(ERR_FORMAT, "%s: broken pickle at byte %zu: %s", vm->path, (size_t)(vm->p - vm->start), what);
}

/* Room for element number `count` of the array whose pointer stands at `array`; limits what a file can make us hold. */
static Status reserve(Vm *vm, void *array, size_t count, size_t size, size_t limit) {
    return count < limit ? mem_room(array, count, 1, size) : bad(vm, "it holds more values than a checkpoint does");
}

static Status push(Vm *vm, PickleRef r) {
    Status st = reserve(vm, &vm->stack, vm->height, sizeof *vm->stack, PICKLE_VALUES);
    if (st == OK) vm->stack[vm->height++] = r;
    return st;
}

static Status push_value(Vm *vm, PickleValue v) {
    Pickle *o = vm->out;
    Status st = reserve(vm, &o->values, o->nvalues, sizeof *o->values, PICKLE_VALUES);
    if (st != OK) return st;
    o->values[o->nvalues] = v;
    return push(vm, (PickleRef)o->nvalues++);
}

static Status push_int(Vm *vm, enum PickleKind kind, int64_t i) {
    return push_value(vm, (PickleValue){.kind = (uint8_t)kind, .u.i = i});
}

static Status push_kind(Vm *vm, enum PickleKind kind) {
    PickleValue v = {.kind = (uint8_t)kind};
    if (kind == PK_TUPLE || kind == PK_LIST || kind == PK_DICT) v.u.items.first = v.u.items.last = PICKLE_NIL;
    return push_value(vm, v);
}

/* Values below the topmost mark belong to somebody else. */
static size_t available(const Vm *vm) { return vm->height - (vm->nmarks ? vm->marks[vm->nmarks - 1] : 0); }

static PickleValue *top(const Vm *vm, size_t depth) { return &vm->out->values[vm->stack[vm->height - 1 - depth]]; }

/* Moves the n topmost values to the end of the container `into`. */
static Status append(Vm *vm, PickleRef into, size_t n) {
    Pickle *o = vm->out;
    for (size_t k = vm->height - n; k < vm->height; k++) {
        Status st = reserve(vm, &o->cells, o->ncells, sizeof *o->cells, PICKLE_VALUES);
        if (st != OK) return st;
        PickleValue *c = &o->values[into];
        uint32_t cell = (uint32_t)o->ncells++;
        o->cells[cell] = (PickleCell){vm->stack[k], PICKLE_NIL};
        if (c->count++ == 0) c->u.items.first = cell;
        else o->cells[c->u.items.last].next = cell;
        c->u.items.last = cell;
    }
    vm->height -= n;
    return OK;
}

/* A new container of the n topmost values takes their place. */
static Status collect(Vm *vm, enum PickleKind kind, size_t n) {
    if (kind == PK_DICT && n % 2 != 0) return bad(vm, "a key without a value");
    Status st = push_kind(vm, kind);
    if (st != OK) return st;
    PickleRef made = vm->stack[--vm->height]; /* made before its items move: it is they that are on top */
    return (st = append(vm, made, n)) == OK ? push(vm, made) : st;
}

static Status pop_mark(Vm *vm, size_t *n) {
    if (vm->nmarks == 0) return bad(vm, "a mark is missing");
    *n = available(vm);
    vm->nmarks--;
    return OK;
}

/* APPEND(S), SETITEM(S): the n topmost values go into the container under them. */
static Status extend(Vm *vm, enum PickleKind kind, size_t n) {
    if (available(vm) < n + 1) return bad(vm, "the stack is empty");
    PickleRef into = vm->stack[vm->height - 1 - n];
    if (vm->out->values[into].kind == PK_OTHER) {            /* it keeps nothing */
        vm->height -= n;
        return OK;
    }
    if (vm->out->values[into].kind != kind || (kind == PK_DICT && n % 2 != 0))
        return bad(vm, "items for something that cannot hold them");
    return append(vm, into, n);
}

/* ---- arguments of opcodes ---------------------------------------------------------------------------------------- */

static Status take(Vm *vm, size_t n, const uint8_t **at) {
    if ((size_t)(vm->end - vm->p) < n) return bad(vm, "it is cut short");
    *at = vm->p;
    vm->p += n;
    return OK;
}

static Status take_number(Vm *vm, int bytes, uint64_t *v) {
    const uint8_t *at = NULL;
    Status st = take(vm, (size_t)bytes, &at);
    *v = 0;
    for (int i = bytes - 1; st == OK && i >= 0; i--) *v = *v << 8 | at[i];
    return st;
}

/* A length of `bytes` bytes, then as much text (or content that is not kept). */
static Status push_text(Vm *vm, int bytes, enum PickleKind kind) {
    uint64_t n;
    const uint8_t *at = NULL;
    Status st = take_number(vm, bytes, &n);
    if (st != OK) return st;
    if (n > (uint64_t)(vm->end - vm->p)) return bad(vm, "a string longer than the file");
    if ((st = take(vm, (size_t)n, &at)) != OK) return st;
    if (kind == PK_OTHER) return push_kind(vm, kind);
    /* 32 bits are enough for PICKLE_BYTES */
    return push_value(vm, (PickleValue){.kind = PK_STR, .u.str = {(const char *)at, (uint32_t)n}});
}

/* LONG1, LONG4: two's complement of any length; what does not fit 64 bits is kept as "something". */
static Status push_long(Vm *vm, int bytes) {
    uint64_t n, v = 0;
    const uint8_t *at = NULL;
    Status st = take_number(vm, bytes, &n);
    if (st == OK) st = take(vm, (size_t)n, &at);
    if (st != OK) return st;
    if (n > 8) return push_kind(vm, PK_OTHER);               /* a seed or a hash, nothing that sizes are made of */
    if (n && (at[n - 1] & 0x80)) v = UINT64_MAX;             /* above its bytes stand copies of the sign */
    for (size_t i = (size_t)n; i-- > 0;) v = v << 8 | at[i];
    return push_int(vm, PK_INT, (int64_t)v);
}

static Status push_float(Vm *vm) {
    const uint8_t *at = NULL;
    Status st = take(vm, 8, &at);
    if (st != OK) return st;
    uint64_t bits = 0;
    PickleValue v = {.kind = PK_FLOAT};
    for (int i = 0; i < 8; i++) bits = bits << 8 | at[i];      /* big-endian, alone among the opcodes */
    memcpy(&v.u.f, &bits, sizeof bits);
    return push_value(vm, v);
}

static Status memo_put(Vm *vm, uint64_t slot) {
    if (available(vm) == 0) return bad(vm, "the stack is empty");
    /* Writers number memo entries one after the other, so a slot far beyond those in use is not a pickle. */
    if (slot > vm->next_memo) return bad(vm, "a memo entry out of order");
    Status st = reserve(vm, &vm->memo, vm->next_memo, sizeof *vm->memo, PICKLE_VALUES);
    if (st != OK) return st;
    vm->memo[slot] = vm->stack[vm->height - 1];
    if (slot == vm->next_memo) vm->next_memo++;
    return OK;
}

static Status memo_get(Vm *vm, int bytes) {
    uint64_t slot;
    Status st = take_number(vm, bytes, &slot);
    if (st != OK) return st;
    return slot < vm->next_memo ? push(vm, vm->memo[slot]) : bad(vm, "a memo entry that was never written");
}

/* ---- names and what they make ------------------------------------------------------------------------------------ */

static bool same(const char *s, const char *p, size_t n) { return strlen(s) == n && memcmp(s, p, n) == 0; }

static Status push_name(Vm *vm, const char *module, size_t nm, const char *name, size_t nn) {
    const PickleName *known = pickle_name(module, nm, name, nn);
    if (known) return push_value(vm, (PickleValue){.kind = PK_NAME, .u.name = known});
    char m[64], k[64];
    const char *from[2] = {module, name};
    char *to[2] = {m, k};
    size_t len[2] = {nm, nn};
    for (int i = 0; i < 2; i++) {                      /* printable, and not longer than a line */
        size_t n = len[i] < sizeof m - 1 ? len[i] : sizeof m - 1;
        for (size_t j = 0; j < n; j++) to[i][j] = from[i][j] >= 0x20 && from[i][j] < 0x7f ? from[i][j] : '?';
        to[i][n] = 0;
    }
    return err_set(ERR_FORMAT,
                   "%s: asks for %s.%s, which is not among the things a checkpoint may hold; nothing was executed",
                   vm->path, m, k);
}

static Status push_global(Vm *vm) {
    const uint8_t *line[2];
    size_t len[2];
    for (int i = 0; i < 2; i++) {
        const uint8_t *nl = memchr(vm->p, '\n', (size_t)(vm->end - vm->p));
        if (!nl) return bad(vm, "a name does not end");
        line[i] = vm->p;
        len[i] = (size_t)(nl - vm->p);
        vm->p = nl + 1;
    }
    return push_name(vm, (const char *)line[0], len[0], (const char *)line[1], len[1]);
}

static Status push_stack_global(Vm *vm) {
    if (available(vm) < 2) return bad(vm, "the stack is empty");
    const PickleValue name = *top(vm, 0), module = *top(vm, 1); /* copies: pushing may move the pool */
    if (name.kind != PK_STR || module.kind != PK_STR) return bad(vm, "a name that is no string");
    vm->height -= 2;
    return push_name(vm, module.u.str.p, module.u.str.n, name.u.str.p, name.u.str.n);
}

/* The first n items of a tuple; false when it is no tuple or has fewer. */
static bool items(const Vm *vm, PickleRef tuple, PickleRef *out, uint32_t n) {
    const PickleValue *v = &vm->out->values[tuple];
    if (v->kind != PK_TUPLE || v->count < n) return false;
    uint32_t cell = v->u.items.first;
    for (uint32_t i = 0; i < n; i++, cell = vm->out->cells[cell].next) out[i] = vm->out->cells[cell].value;
    return true;
}

/* A tuple of up to PICKLE_DIMS numbers that are not negative. */
static bool dimensions(const Vm *vm, PickleRef tuple, int64_t *out, int *n) {
    PickleRef refs[PICKLE_DIMS];
    const PickleValue *v = &vm->out->values[tuple];
    if (v->kind != PK_TUPLE || v->count > PICKLE_DIMS || !items(vm, tuple, refs, v->count)) return false;
    *n = (int)v->count;
    for (int i = 0; i < *n; i++) {
        const PickleValue *d = &vm->out->values[refs[i]];
        if (d->kind != PK_INT || d->u.i < 0) return false;
        out[i] = d->u.i;
    }
    return true;
}

/* Counts the elements and checks that the last one lies in the storage; all sums and products watched. */
static bool view_fits(PickleTensor *t, int64_t available_elements) {
    int64_t last = t->offset, n = 1, step;
    bool empty = false;
    for (int i = 0; i < t->ndim; i++) {
        /* no element, so no place to check; strides may be anything */
        if (t->shape[i] == 0) { empty = true; continue; }
        if (__builtin_mul_overflow(n, t->shape[i], &n) ||
            __builtin_mul_overflow(t->shape[i] - 1, t->stride[i], &step) || __builtin_add_overflow(last, step, &last))
            return false;
    }
    t->elements = empty ? 0 : n;
    return empty || last < available_elements;
}

/* _rebuild_tensor_v2(storage, offset, size, stride, ...) */
static Status make_tensor(Vm *vm, PickleRef args) {
    Pickle *o = vm->out;
    PickleTensor t = {0};
    PickleRef a[4];
    int nstride;
    if (!items(vm, args, a, 4)) return bad(vm, "a tensor without its parts");
    const PickleValue *storage = &o->values[a[0]], *offset = &o->values[a[1]];
    if (storage->kind != PK_STORAGE || offset->kind != PK_INT || offset->u.i < 0 ||
        !dimensions(vm, a[2], t.shape, &t.ndim) || !dimensions(vm, a[3], t.stride, &nstride) || nstride != t.ndim)
        return bad(vm, "a tensor whose size, stride or offset is not one");
    t.storage = storage->u.index;
    t.offset = offset->u.i;
    const PickleStorage *s = &o->storages[t.storage];
    if (!view_fits(&t, s->elements))
        return err_set(ERR_FORMAT, "%s: a tensor reaches beyond the %lld elements of its storage %.*s", vm->path,
                       (long long)s->elements, s->key_len < 40 ? (int)s->key_len : 40, s->key);
    Status st = reserve(vm, &o->tensors, o->ntensors, sizeof t, PICKLE_TENSORS);
    if (st != OK) return st;
    o->tensors[o->ntensors] = t;
    return push_value(vm, (PickleValue){.kind = PK_TENSOR, .u.index = (uint32_t)o->ntensors++});
}

/* REDUCE and NEWOBJ: "call" the name under the arguments. */
static Status make(Vm *vm) {
    PickleRef a[1];
    if (available(vm) < 2) return bad(vm, "the stack is empty");
    PickleRef args = vm->stack[vm->height - 1];
    const PickleValue *f = top(vm, 1), *v = &vm->out->values[args];
    if ((f->kind != PK_NAME && f->kind != PK_OTHER) || v->kind != PK_TUPLE)
        return bad(vm, "a call of something that is no name");
    vm->height -= 2;
    if (f->kind == PK_OTHER) return push_kind(vm, PK_OTHER);
    switch (f->u.name->kind) {
    case MAKES_TENSOR: return make_tensor(vm, args);
    case MAKES_OTHER: return push_kind(vm, PK_OTHER);
    case MAKES_MODULE: vm->out->script = true; return push_kind(vm, PK_MODULE);
    case MAKES_DICT:
        return v->count == 0 || (items(vm, args, a, 1) && vm->out->values[a[0]].kind == PK_NAME)
                   ? push_kind(vm, PK_DICT)                   /* a defaultdict has the name of what it makes */
                   : bad(vm, "a dictionary with arguments");
    /* torch.Size(tuple) is the tuple */
    case MAKES_SIZE:
        return items(vm, args, a, 1) && vm->out->values[a[0]].kind == PK_TUPLE ? push(vm, a[0])
                                                                               : bad(vm, "a size of nothing");
    /* a Parameter is its tensor here: nothing is trained by it */
    case MAKES_PARAMETER:
        return items(vm, args, a, 1) && vm->out->values[a[0]].kind == PK_TENSOR ? push(vm, a[0])
                                                                               : bad(vm, "a parameter of nothing");
    default: return bad(vm, "a call of a storage type");
    }
}

/* BINPERSID: the tuple ("storage", type, key, location, elements[, view of a view]) becomes a storage. */
static Status make_storage(Vm *vm) {
    Pickle *o = vm->out;
    PickleRef a[6];
    if (available(vm) < 1) return bad(vm, "the stack is empty");
    PickleRef tuple = vm->stack[--vm->height];
    if (!items(vm, tuple, a, 5) || !pickle_is_str(&o->values[a[0]], "storage")) return bad(vm, "an unknown reference");
    const PickleValue *type = &o->values[a[1]], *key = &o->values[a[2]], *n = &o->values[a[4]];
    if (type->kind != PK_NAME || type->u.name->kind != IS_STORAGE || key->kind != PK_STR ||
        n->kind != PK_INT || n->u.i < 0)
        return bad(vm, "a storage of an unknown type (complex, say), or without key or size");
    if (o->values[tuple].count > 5 && items(vm, tuple, a, 6) && o->values[a[5]].kind != PK_NONE)
        return bad(vm, "a view of a storage, as only torch before 0.4 wrote it");
    Status st = reserve(vm, &o->storages, o->nstorages, sizeof *o->storages, PICKLE_TENSORS);
    if (st != OK) return st;
    o->storages[o->nstorages] =
        (PickleStorage){key->u.str.p, key->u.str.n, type->u.name->dtype, n->u.i};
    return push_value(vm, (PickleValue){.kind = PK_STORAGE, .u.index = (uint32_t)o->nstorages++});
}

/* ---- the machine ------------------------------------------------------------------------------------------------- */

static Status pop(Vm *vm, size_t n) {
    if (available(vm) < n) return bad(vm, "the stack is empty");
    vm->height -= n;
    return OK;
}

/* BUILD sets attributes (the _metadata of a state dict, fields of a Namespace); of use here are those of TorchScript's
 * modules alone: parameters and modules by name. A module becomes the dict that its attributes stand in. */
static Status set_state(Vm *vm) {
    if (available(vm) < 2) return bad(vm, "the stack is empty");
    enum PickleKind k = top(vm, 1)->kind;
    if (k == PK_MODULE) {
        if (top(vm, 0)->kind == PK_DICT) *top(vm, 1) = *top(vm, 0);
        vm->height--;
        return OK;
    }
    if (k != PK_DICT && k != PK_OTHER) return bad(vm, "attributes of something that has none");
    vm->height--;
    return OK;
}

static Status set_mark(Vm *vm) {
    Status st = reserve(vm, &vm->marks, vm->nmarks, sizeof *vm->marks, PICKLE_VALUES);
    if (st == OK) vm->marks[vm->nmarks++] = (uint32_t)vm->height;
    return st;
}

static Status fixed_tuple(Vm *vm, size_t n) {
    return available(vm) < n ? bad(vm, "the stack is empty") : collect(vm, PK_TUPLE, n);
}

static Status step(Vm *vm, uint8_t op) {
    Status st;
    uint64_t v = 0;
    size_t n = 0;
    switch (op) {
    case PROTO: return (st = take_number(vm, 1, &v)) != OK || v <= 5 ? st : bad(vm, "a protocol above 5");
    case FRAME: return take_number(vm, 8, &v);               /* how much to read ahead; all of it is in memory here */
    case MARK: return set_mark(vm);
    case POP: return pop(vm, 1);
    case POP_MARK: return (st = pop_mark(vm, &n)) != OK ? st : pop(vm, n);
    case DUP: return available(vm) ? push(vm, vm->stack[vm->height - 1]) : bad(vm, "the stack is empty");
    case NONE: return push_kind(vm, PK_NONE);
    case NEWTRUE: return push_int(vm, PK_BOOL, 1);
    case NEWFALSE: return push_int(vm, PK_BOOL, 0);
    case BININT1: return (st = take_number(vm, 1, &v)) != OK ? st : push_int(vm, PK_INT, (int64_t)v);
    case BININT2: return (st = take_number(vm, 2, &v)) != OK ? st : push_int(vm, PK_INT, (int64_t)v);
    case BININT: return (st = take_number(vm, 4, &v)) != OK ? st : push_int(vm, PK_INT, (int32_t)(uint32_t)v);
    case LONG1: return push_long(vm, 1);
    case LONG4: return push_long(vm, 4);
    case BINFLOAT: return push_float(vm);
    case SHORT_BINSTRING: case SHORT_BINUNICODE: return push_text(vm, 1, PK_STR);
    case BINSTRING: case BINUNICODE: return push_text(vm, 4, PK_STR);
    case BINUNICODE8: return push_text(vm, 8, PK_STR);
    case SHORT_BINBYTES: return push_text(vm, 1, PK_OTHER);
    case BINBYTES: return push_text(vm, 4, PK_OTHER);
    case BINBYTES8: case BYTEARRAY8: return push_text(vm, 8, PK_OTHER);
    case EMPTY_TUPLE: return push_kind(vm, PK_TUPLE);
    case EMPTY_LIST: return push_kind(vm, PK_LIST);
    case EMPTY_DICT: return push_kind(vm, PK_DICT);
    case TUPLE1: return fixed_tuple(vm, 1);
    case TUPLE2: return fixed_tuple(vm, 2);
    case TUPLE3: return fixed_tuple(vm, 3);
    case TUPLE: return (st = pop_mark(vm, &n)) != OK ? st : collect(vm, PK_TUPLE, n);
    case LIST: return (st = pop_mark(vm, &n)) != OK ? st : collect(vm, PK_LIST, n);
    case DICT: return (st = pop_mark(vm, &n)) != OK ? st : collect(vm, PK_DICT, n);
    case APPEND: return extend(vm, PK_LIST, 1);
    case SETITEM: return extend(vm, PK_DICT, 2);
    case APPENDS: return (st = pop_mark(vm, &n)) != OK ? st : extend(vm, PK_LIST, n);
    case SETITEMS: return (st = pop_mark(vm, &n)) != OK ? st : extend(vm, PK_DICT, n);
    case BINPUT: return (st = take_number(vm, 1, &v)) != OK ? st : memo_put(vm, v);
    case LONG_BINPUT: return (st = take_number(vm, 4, &v)) != OK ? st : memo_put(vm, v);
    case MEMOIZE: return memo_put(vm, vm->next_memo);
    case BINGET: return memo_get(vm, 1);
    case LONG_BINGET: return memo_get(vm, 4);
    case GLOBAL: return push_global(vm);
    case STACK_GLOBAL: return push_stack_global(vm);
    case REDUCE: case NEWOBJ: return make(vm);
    case NEWOBJ_EX: return (st = pop(vm, 3)) != OK ? st : push_kind(vm, PK_OTHER);
    case EMPTY_SET: return push_kind(vm, PK_OTHER);
    case ADDITEMS: return (st = pop_mark(vm, &n)) != OK ? st : extend(vm, PK_OTHER, n);
    case FROZENSET: return (st = pop_mark(vm, &n)) != OK || (st = pop(vm, n)) != OK ? st : push_kind(vm, PK_OTHER);
    case BUILD: return set_state(vm);
    case BINPERSID: return make_storage(vm);
    default: return bad(vm, "an opcode that no checkpoint needs");
    }
}

Status pickle_read(Pickle *p, const uint8_t *bytes, size_t n, const char *path, size_t *used) {
    *p = (Pickle){.root = PICKLE_NIL};
    Vm vm = {.out = p, .start = bytes, .p = bytes, .end = bytes + n, .path = path};
    /* a legacy file has its data behind the pickles, so a long rest is no error, but nothing to scan either */
    if (n > PICKLE_BYTES) vm.end = bytes + PICKLE_BYTES;
    Status st = OK;
    while (st == OK) {
        if (vm.p == vm.end) { st = bad(&vm, "it does not end"); break; }
        /* every case below checks what it takes: nothing of the file is trusted */
        uint8_t op = *vm.p++;
        if (op == STOP) break;
        st = step(&vm, op);
    }
    /* two roots, or none, would leave open which one is the checkpoint */
    if (st == OK && (vm.nmarks != 0 || vm.height != 1)) st = bad(&vm, "it does not end with one value");
    if (st == OK) p->root = vm.stack[0];
    if (st == OK && used) *used = (size_t)(vm.p - bytes);
    mem_free(vm.stack, vm.memo, vm.marks);
    if (st != OK) pickle_free(p);
    return st;
}

void pickle_free(Pickle *p) {
    mem_free(p->values, p->cells, p->storages, p->tensors);
    *p = (Pickle){.root = PICKLE_NIL};
}

bool pickle_is_str(const PickleValue *v, const char *s) { return v->kind == PK_STR && same(s, v->u.str.p, v->u.str.n); }

PickleRef pickle_get(const Pickle *p, PickleRef dict, const char *key) {
    PickleRef found = PICKLE_NIL;
    if (dict == PICKLE_NIL || p->values[dict].kind != PK_DICT) return found;
    for (uint32_t k = p->values[dict].u.items.first; k != PICKLE_NIL; k = p->cells[p->cells[k].next].next)
        if (pickle_is_str(&p->values[p->cells[k].value], key)) found = p->cells[p->cells[k].next].value;
    return found;
}
