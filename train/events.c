/* events: see events.h. */
#include "train/events.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "data/format/crc32c.h"
#include "kernels/base/mem.h"

struct Events {
    FILE *f;
    char *path;
};

/* ---- a protobuf message grows in a buffer ------------------------------------------------------------------------ */

typedef struct {
    uint8_t *p;
    size_t n;
    bool failed;                     /* out of memory; what follows is dropped */
} Buf;

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

static void put(Buf *b, const void *data, size_t n) {
    b->failed = b->failed || mem_room(&b->p, b->n, n, 1) != OK;
    if (b->failed || !n) return;
    memcpy(b->p + b->n, data, n);
    b->n += n;
}

static void put_varint(Buf *b, uint64_t v) {
    do {
        uint8_t byte = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        put(b, &byte, 1);
        v >>= 7;
    } while (v);
}

static void put_fixed(Buf *b, uint64_t v, int bytes) {           /* little endian on any machine */
    for (int i = 0; i < bytes; i++) {
        uint8_t byte = (uint8_t)(v >> (8 * i));
        put(b, &byte, 1);
    }
}

static void put_key(Buf *b, int field, int wire) { put_varint(b, (uint64_t)field << 3 | (uint64_t)wire); }

static void put_double(Buf *b, int field, double d) {
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    put_key(b, field, WIRE_FIXED64);
    put_fixed(b, bits, 8);
}

static void put_float(Buf *b, int field, float d) {
    uint32_t bits;
    memcpy(&bits, &d, sizeof bits);
    put_key(b, field, WIRE_FIXED32);
    put_fixed(b, bits, 4);
}

static void put_bytes(Buf *b, int field, const void *data, size_t n) {
    put_key(b, field, WIRE_BYTES);
    put_varint(b, n);
    put(b, data, n);
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

static uint32_t masked_crc(const void *data, size_t n) {
    uint32_t crc = crc32c(0, data, n);
    /* TFRecord's mask: a sum of bytes that hold their own sum would be weak */
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

/* Writes an Event whose field `field` holds `body`, as one record in one write. */
static Status write_event(Events *e, double wall_time, int64_t step, int field, const void *body, size_t n) {
    Buf event = { 0 }, record = { 0 };
    Status st = OK;
    put_double(&event, 1, wall_time);
    /* protobuf leaves out what is zero */
    if (step) {
        put_key(&event, 2, WIRE_VARINT);
        put_varint(&event, (uint64_t)step);
    }
    put_bytes(&event, field, body, n);

    put_fixed(&record, event.n, 8);
    /* the length has a sum of its own: a reader must trust it before the rest */
    put_fixed(&record, record.failed ? 0 : masked_crc(record.p, 8), 4);
    put(&record, event.p, event.n);
    put_fixed(&record, masked_crc(event.p, event.n), 4);
    if (event.failed || record.failed) st = ERR_MEMORY;
    /* flushed: TensorBoard reads while we write */
    else if (fwrite(record.p, 1, record.n, e->f) != record.n || fflush(e->f))
        st = err_set(ERR_IO, "cannot write %s: %s", e->path, strerror(errno));
    mem_free(event.p, record.p);
    return st;
}

Status events_scalars(Events *e, int64_t step, double wall_time, const EventScalar *scalars, int n) {
    Buf summary = { 0 }, value = { 0 };
    for (int i = 0; i < n; i++) {
        value.n = 0;
        put_bytes(&value, 1, scalars[i].tag, strlen(scalars[i].tag));
        put_float(&value, 2, (float)scalars[i].value);
        put_bytes(&summary, 1, value.p, value.n);
    }
    Status st = summary.failed || value.failed ? ERR_MEMORY : OK;
    if (!st) st = write_event(e, wall_time, step, 5, summary.p, summary.n);
    mem_free(summary.p, value.p);
    return st;
}

Status events_open(Events **out, const char *dir, int64_t first_step) {
    static const char version[] = "brain.Event:2";
    static const uint8_t start[] = { 1 << 3 | WIRE_VARINT, 1 };             /* SessionLog.status = START */
    char host[65] = "localhost";
    time_t now = time(NULL);
    Status st = ERR_MEMORY;
    *out = NULL;
    gethostname(host, sizeof host - 1);
    Events *e = mem_new(1, sizeof *e);
    if (!e) goto done;
    e->path = mem_format("%s/events.out.tfevents.%lld.%s.%ld", dir, (long long)now, host, (long)getpid());
    if (!e->path) goto done;
    if (!(e->f = fopen(e->path, "ab"))) {
        st = err_set(ERR_IO, "cannot create %s: %s", e->path, strerror(errno));
        goto done;
    }
    if ((st = write_event(e, (double)now, 0, 3, version, sizeof version - 1))) goto done;
    st = write_event(e, (double)now, first_step, 7, start, sizeof start);
done:
    if (st) { events_close(e); e = NULL; }
    *out = e;
    return st;
}

void events_close(Events *e) {
    if (!e) return;
    if (e->f) fclose(e->f);
    mem_free(e->path, e);
}
