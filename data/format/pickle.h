/* pickle: the part of Python's serialisation that a torch checkpoint needs, read without executing anything.
 *
 * A pickle is a program for a stack machine; Python's runs whatever function the file names. This one knows a list of
 * names (pickle_names.c) and builds plain values for them; what any other would make is not kept (numpy's scalars,
 * dates, paths, classes of the writer). Nothing is called. Names that only an attack needs (os, subprocess, eval) and
 * unknown ways to rebuild a tensor are refused.
 *
 * Bounds: no recursion anywhere, every length checked against the bytes that are left, and the memory is at most a
 * constant times the bytes read (PICKLE_BYTES, PICKLE_VALUES), whatever the program says: values that are used
 * twice are shared, never expanded. So the result may be deep, shared many times over, or even contain itself: who
 * walks it must bound depth and count.
 *
 * Reads protocols 2 to 5 as torch writes them. Not the text opcodes of protocol 0, no out-of-band buffers.
 *
 * Format: CPython's Lib/pickletools.py; what the names mean: torch/_utils.py, torch/serialization.py */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/dtype.h"
#include "kernels/base/err.h"

enum { PICKLE_BYTES = 64 << 20, PICKLE_VALUES = 4 << 20, PICKLE_TENSORS = 1 << 18, PICKLE_DIMS = 8 };

enum PickleKind {
    PK_NONE, PK_BOOL, PK_INT, PK_FLOAT, PK_STR,
    PK_OTHER,                   /* something whose content is not kept: bytes, a long number, a device, a date */
    PK_NAME,                    /* a name of the list of allowed ones; pickle.c's business */
    PK_TUPLE, PK_LIST, PK_DICT, /* items: chain of cells; in a dict, keys and values take turns */
    PK_MODULE,                  /* an object of TorchScript that has no attributes; with them it is their dict */
    PK_STORAGE, PK_TENSOR       /* index into storages, tensors */
};

typedef uint32_t PickleRef;     /* index of a value; PICKLE_NIL: none */
#define PICKLE_NIL UINT32_MAX

typedef struct {
    uint8_t kind;               /* enum PickleKind */
    uint32_t count;             /* items of a container */
    union {
        int64_t i;              /* PK_BOOL, PK_INT */
        double f;
        struct { const char *p; uint32_t n; } str;          /* into the pickle; any bytes, no NUL at the end */
        struct { uint32_t first, last; } items;             /* cells */
        uint32_t index;
        const struct PickleName *name;                      /* pickle_names.h */
    } u;
} PickleValue;

typedef struct { PickleRef value; uint32_t next; } PickleCell;

/* A storage is a block of numbers outside the pickle, found by its key. */
typedef struct { const char *key; uint32_t key_len; DType dtype; int64_t elements; } PickleStorage;

/* A view of it. Checked: sizes, strides and offset are not negative, sizes do not overflow, and no element lies outside
 * of the elements that the storage claims. */
typedef struct {
    uint32_t storage;
    int ndim;
    int64_t offset, elements, shape[PICKLE_DIMS], stride[PICKLE_DIMS];
} PickleTensor;

typedef struct {
    PickleValue *values;
    PickleCell *cells;
    PickleStorage *storages;    /* one a mention: a key may stand here often */
    PickleTensor *tensors;
    size_t nvalues, ncells, nstorages, ntensors;
    PickleRef root;
    bool script;                /* objects of TorchScript are in it */
} Pickle;

/* Reads one pickle at `bytes`; *used (may be NULL) becomes its length.
 * Values point into bytes. ERR_FORMAT, ERR_MEMORY. */
Status pickle_read(Pickle *p, const uint8_t *bytes, size_t n, const char *path, size_t *used);
void pickle_free(Pickle *p);

/* The value of a string key, of the last such key as in Python; PICKLE_NIL when absent or when dict is no dict. */
PickleRef pickle_get(const Pickle *p, PickleRef dict, const char *key);
bool pickle_is_str(const PickleValue *v, const char *s);
