/* pickle_names: see pickle_names.h. */
#include "data/format/pickle_names.h"

#include <stdbool.h>
#include <string.h>

static const PickleName known[] = {
    {"collections",  "OrderedDict",         MAKES_DICT,      0},
    {"collections",  "defaultdict",         MAKES_DICT,      0},
    {"torch",        "Size",                MAKES_SIZE,      0},
    {"torch",        "device",              MAKES_OTHER,     0},
    {"argparse",     "Namespace",           MAKES_OTHER,     0},
    {"torch._utils", "_rebuild_tensor",     MAKES_TENSOR,    0},
    {"torch._utils", "_rebuild_tensor_v2",  MAKES_TENSOR,    0},
    {"torch._utils", "_rebuild_parameter",  MAKES_PARAMETER, DT_F32},
    {"torch",        "DoubleStorage",       IS_STORAGE,      DT_F64},
    {"torch",        "FloatStorage",        IS_STORAGE,      DT_F32},
    {"torch",        "HalfStorage",         IS_STORAGE,      DT_F16},
    {"torch",        "BFloat16Storage",     IS_STORAGE,      DT_BF16},
    {"torch",        "LongStorage",         IS_STORAGE,      DT_I64},
    {"torch",        "IntStorage",          IS_STORAGE,      DT_I32},
    {"torch",        "ShortStorage",        IS_STORAGE,      DT_I16},
    {"torch",        "CharStorage",         IS_STORAGE,      DT_I8},
    {"torch",        "ByteStorage",         IS_STORAGE,      DT_U8},
    {"torch",        "BoolStorage",         IS_STORAGE,      DT_BOOL},
};
static const PickleName other = {"", "", MAKES_OTHER, DT_F32}, script_module = {"", "", MAKES_MODULE, DT_F32};

/* Nothing is called, so no other name can do harm; but who names these wants it, and what rebuilds a tensor in an
 * unknown way would lose weights in silence: both are refused. */
static const char *const hostile[] = {"os", "posix", "nt", "sys", "subprocess", "socket", "shutil", "importlib",
                                      "runpy", "pty", "ctypes", "code", "pickle", "marshal", "webbrowser", NULL};
static const char *const harmless[] = {"set", "frozenset", "complex", "bytearray", "slice", "range", "object", "list",
                                       "dict", "tuple", "int", "float", "bool", "str", "bytes", "long", "xrange",
                                       "unicode", "getattr", NULL};

static bool same(const char *s, const char *p, size_t n) { return strlen(s) == n && memcmp(s, p, n) == 0; }

static bool among(const char *const *list, const char *p, size_t n) {
    while (*list && !same(*list, p, n)) list++;
    return *list != NULL;
}

/* `module` may be os.path: its first part counts. */
static bool may_skip(const char *module, size_t nm, const char *name, size_t nn) {
    const char *dot = memchr(module, '.', nm);
    size_t first = dot ? (size_t)(dot - module) : nm;
    if (same("builtins", module, nm) || same("__builtin__", module, nm)) return among(harmless, name, nn);
    return nm && !among(hostile, module, first) && !memmem(name, nn, "rebuild", 7);
}

const PickleName *pickle_name(const char *module, size_t nm, const char *name, size_t nn) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (same(known[i].module, module, nm) && same(known[i].name, name, nn)) return &known[i];
    if (nm >= 9 && memcmp(module, "__torch__", 9) == 0 && (nm == 9 || module[9] == '.')) return &script_module;
    return may_skip(module, nm, name, nn) ? &other : NULL;
}
