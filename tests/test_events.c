/* test_events: the log of a run. The event file is read back by a decoder of its own (bitwise crc32c, a protobuf walker
 * written from the public .proto), log.jsonl as JSON. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <glob.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/format/json.h"
#include "train/events.h"
#include "train/log.h"
#include "kernels/base/signals.h"
#include "kernels/base/status.h"

static char dir[64];

static int make_dir(void **state) {
    (void)state;
    strcpy(dir, "/tmp/qformer-events-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static void remove_all(const char *pattern) {
    glob_t g;
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, pattern);
    if (glob(path, 0, NULL, &g)) return;
    for (size_t i = 0; i < g.gl_pathc; i++) remove(g.gl_pathv[i]);
    globfree(&g);
}

static int remove_dir(void **state) {
    (void)state;
    remove_all("run/deep/events/*");
    remove_all("run/deep/*");
    remove_all("run/*");
    remove_all("*");
    return rmdir(dir);
}

/* ---- the decoder ------------------------------------------------------------------------------------------------- */

static uint32_t crc_bitwise(const uint8_t *p, size_t n) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    }
    return ~crc;
}

static uint64_t little(const uint8_t *p, int n) {
    uint64_t v = 0;
    while (n--) v = v << 8 | p[n];
    return v;
}

static void check_masked(const uint8_t *at, const uint8_t *p, size_t n) {
    uint32_t crc = crc_bitwise(p, n);
    assert_int_equal(little(at, 4), (uint32_t)((crc >> 15 | crc << 17) + 0xa282ead8u));
}

typedef struct { int number, wire; uint64_t value; const uint8_t *bytes; } Field;    /* value: the length when bytes */

static const uint8_t *varint(const uint8_t *p, const uint8_t *end, uint64_t *v) {
    *v = 0;
    for (int shift = 0;; shift += 7) {
        assert_true(p < end && shift < 64);
        *v |= (uint64_t)(*p & 0x7f) << shift;
        if (!(*p++ & 0x80)) return p;
    }
}

static const uint8_t *next_field(const uint8_t *p, const uint8_t *end, Field *f) {
    uint64_t key;
    p = varint(p, end, &key);
    f->number = (int)(key >> 3);
    f->wire = (int)(key & 7);
    f->bytes = NULL;
    if (f->wire == 0) return varint(p, end, &f->value);
    if (f->wire == 2) {
        p = varint(p, end, &f->value);
        f->bytes = p;
        p += f->value;
    } else {
        int n = f->wire == 1 ? 8 : 4;
        assert_true(f->wire == 1 || f->wire == 5);
        f->value = little(p, n);
        p += n;
    }
    assert_true(p <= end);
    return p;
}

typedef struct { int64_t step; char tag[64]; float value; } Scalar;

typedef struct {
    int records, starts, nscalars;
    int64_t start_step;
    double wall_time;
    char version[32];
    Scalar scalars[256];
} Decoded;

static void decode_value(Decoded *d, int64_t step, const uint8_t *p, const uint8_t *end) {
    Field f;
    assert_true(d->nscalars < 256);
    Scalar *s = &d->scalars[d->nscalars++];
    s->step = step;
    while (p < end) {
        p = next_field(p, end, &f);
        if (f.number == 1) snprintf(s->tag, sizeof s->tag, "%.*s", (int)f.value, (const char *)f.bytes);
        else {
            assert_int_equal(f.number, 2);
            assert_int_equal(f.wire, 5);
            uint32_t bits = (uint32_t)f.value;
            memcpy(&s->value, &bits, 4);
        }
    }
}

static void decode_event(Decoded *d, const uint8_t *p, const uint8_t *end) {
    int64_t step = 0;
    Field f;
    while (p < end) {
        p = next_field(p, end, &f);
        switch (f.number) {
        case 1: assert_int_equal(f.wire, 1); memcpy(&d->wall_time, &f.value, 8); break;
        case 2: step = (int64_t)f.value; break;
        case 3: snprintf(d->version, sizeof d->version, "%.*s", (int)f.value, (const char *)f.bytes); break;
        case 5:
            for (const uint8_t *q = f.bytes, *stop = f.bytes + f.value; q < stop;) {
                Field v;
                q = next_field(q, stop, &v);
                assert_int_equal(v.number, 1);
                decode_value(d, step, v.bytes, v.bytes + v.value);
            }
            break;
        case 7:
            assert_memory_equal(f.bytes, "\x08\x01", 2);
            d->starts++;
            d->start_step = step;
            break;
        default: fail_msg("field %d in an Event", f.number);
        }
    }
}

static uint8_t *read_whole(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    uint8_t *p = malloc(1 << 20);
    assert_true(f && p);
    *n = fread(p, 1, 1 << 20, f);
    fclose(f);
    return p;
}

static void decode_file(const char *path, Decoded *d) {
    size_t n;
    uint8_t *p = read_whole(path, &n);
    memset(d, 0, sizeof *d);
    for (size_t at = 0; at < n; d->records++) {
        assert_true(n - at >= 16);
        size_t length = (size_t)little(p + at, 8);
        check_masked(p + at + 8, p + at, 8);
        assert_true(n - at - 16 >= length);
        check_masked(p + at + 12 + length, p + at + 12, length);
        decode_event(d, p + at + 12, p + at + 12 + length);
        at += 16 + length;
    }
    free(p);
}

static void decode_only_file_in(const char *pattern, Decoded *d) {
    glob_t g;
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, pattern);
    assert_int_equal(glob(path, 0, NULL, &g), 0);
    assert_int_equal(g.gl_pathc, 1);
    decode_file(g.gl_pathv[0], d);
    globfree(&g);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void events_read_back(void **state) {
    (void)state;
    Events *e;
    Decoded d;
    const EventScalar two[] = { { "loss/itc", 4.75 }, { "optim/lr", 1e-4 } }, one[] = { { "eval/r1", -0.5 } };
    assert_int_equal(events_open(&e, dir, 301), OK);
    assert_int_equal(events_scalars(e, 300, 1.5e9, two, 2), OK);
    assert_int_equal(events_scalars(e, 5000000000, 1.5e9 + 0.25, one, 1), OK);
    events_close(e);
    decode_only_file_in("events.out.tfevents.*", &d);
    assert_string_equal(d.version, "brain.Event:2");
    assert_int_equal(d.records, 4);
    assert_int_equal(d.starts, 1);
    assert_int_equal(d.start_step, 301);
    assert_int_equal(d.nscalars, 3);
    assert_string_equal(d.scalars[0].tag, "loss/itc");
    assert_true(d.scalars[0].value == 4.75f && d.scalars[0].step == 300);
    assert_true(d.scalars[1].value == 1e-4f);
    assert_string_equal(d.scalars[2].tag, "eval/r1");
    assert_true(d.scalars[2].value == -0.5f && d.scalars[2].step == 5000000000);
    assert_true(d.wall_time == 1.5e9 + 0.25);
    remove_all("events.out*");
}

/* Every event file that TensorFlow writes begins with these bytes: the length 24 of its version record, and its crc. */
static void begins_as_tensorflow_does(void **state) {
    (void)state;
    static const uint8_t known[] = { 0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22 };
    Events *e;
    glob_t g;
    size_t n;
    char path[128];
    assert_int_equal(events_open(&e, dir, 1), OK);
    events_close(e);
    snprintf(path, sizeof path, "%s/events.out.tfevents.*", dir);
    assert_int_equal(glob(path, 0, NULL, &g), 0);
    uint8_t *p = read_whole(g.gl_pathv[0], &n);
    assert_true(n > 52);
    assert_memory_equal(p, known, sizeof known);
    assert_memory_equal(p + 21, "\x1a\x0d" "brain.Event:2", 15);
    free(p);
    globfree(&g);
}

static void unwritable_folder_is_said(void **state) {
    (void)state;
    Events *e;
    assert_int_equal(events_open(&e, "/nonexistent/folder", 0), ERR_IO);
    assert_null(e);
    assert_non_null(strstr(err_message(), "/nonexistent/folder/events.out.tfevents."));
}

/* ---- the log ----------------------------------------------------------------------------------------------------- */

static int quiet_from = -1;

static void quiet(bool on) {                                   /* the log speaks on stdout; the test need not */
    fflush(stdout);
    if (on) {
        quiet_from = dup(1);
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        close(null);
    } else {
        dup2(quiet_from, 1);
        close(quiet_from);
    }
}

static Options *options(void) {
    Options *o;
    char out[80], *argv[] = { out, (char[]){ "train.log_every=5" } };
    snprintf(out, sizeof out, "out=%s/run/deep", dir);
    assert_int_equal(options_parse(&o, "pretrain", 2, argv), OK);
    return o;
}

/* Runs steps first+1 .. last, as a training loop would. */
static void run_steps(int64_t first, int64_t last, int64_t total, double offset) {
    Options *o = options();
    Log *log;
    LogSetup setup = { .resumed_step = first, .total_steps = total, .peak_flops = 1e12, .speaks = true };
    quiet(true);
    assert_int_equal(log_open(&log, o, &setup), OK);
    for (int64_t s = first + 1; s <= last; s++) {
        LogStep step = log_blank(s);
        step.loss = (double)s + offset;
        step.itc = s == 3 ? NAN : 2;                           /* a step whose loss was not finite */
        step.lr = 1e-4 * (double)s;
        step.pairs = 64;
        step.flops = 1e9;
        assert_int_equal(log_step(log, &step), OK);
    }
    const LogValue recall[] = { { "r1_i2t", 12.5 }, { "nothing", NAN } };
    assert_int_equal(log_eval(log, last, recall, 2), OK);
    assert_int_equal(log_text(log, "a \"cat\" on step %d", (int)last), OK);
    log_pause(log);
    log_close(log);
    quiet(false);
    options_free(o);
}

typedef struct { int starts, evals, texts, steps; int64_t at[64]; double loss[64], itc[64]; } Lines;

static Status take_line(void *context, int64_t index, const Json *item) {
    Lines *l = context;
    int64_t step;
    (void)index;
    assert_true(json_int(json_get(item, "step"), &step));
    if (json_get(item, "start")) l->starts++;
    else if (json_get(item, "eval")) l->evals++;
    else if (json_get(item, "text")) {
        char want[64];
        snprintf(want, sizeof want, "a \"cat\" on step %lld", (long long)step);
        assert_string_equal(json_str(json_get(item, "text"), NULL), want);
        l->texts++;
    } else {
        double speed;
        assert_true(json_num(json_get(item, "pairs_per_s"), &speed) && speed > 0);
        assert_null(json_get(item, "itm"));                    /* never measured */
        assert_true(json_num(json_get(item, "loss"), &l->loss[l->steps]));
        assert_true(json_num(json_get(item, "itc"), &l->itc[l->steps]));
        l->at[l->steps++] = step;
    }
    return OK;
}

static Lines read_log(const char *name) {
    Lines l = { 0 };
    char path[128];
    snprintf(path, sizeof path, "%s/run/deep/%s", dir, name);
    assert_int_equal(json_each(path, take_line, &l), OK);
    return l;
}

static void log_reads_back(void **state) {
    (void)state;
    run_steps(0, 12, 12, 0);
    Lines l = read_log("log.jsonl");
    assert_int_equal(l.starts, 1);
    assert_int_equal(l.evals, 1);
    assert_int_equal(l.texts, 1);
    assert_int_equal(l.steps, 3);
    assert_true(l.at[0] == 5 && l.at[1] == 10 && l.at[2] == 12);           /* every fifth, and the last */
    assert_true(l.loss[0] == 3 && l.loss[1] == 8 && l.loss[2] == 11.5);    /* means of 1..5, 6..10, 11..12 */
    assert_true(l.itc[0] == 2);                                            /* the NaN of step 3 left out */
    Decoded d;
    decode_only_file_in("run/deep/events/*", &d);
    assert_string_equal(d.scalars[0].tag, "loss/total");
    assert_true(d.scalars[0].value == 3 && d.scalars[0].step == 5);
    assert_string_equal(d.scalars[d.nscalars - 1].tag, "eval/r1_i2t");
    assert_true(d.scalars[d.nscalars - 1].value == 12.5f);
    char path[128];
    snprintf(path, sizeof path, "%s/run/deep/config.yaml", dir);
    Options *o;
    char *argv[] = { path };
    assert_int_equal(options_parse(&o, "pretrain", 1, argv), OK);          /* the run can be repeated from it */
    assert_int_equal(o->train.log_every, 5);
    options_free(o);
}

/* Killed after step 17, last checkpoint at 10: steps 11.. run again and stand in the log once. */
static void resumed_log_does_not_double(void **state) {
    (void)state;
    run_steps(0, 17, 0, 0);
    char path[128];
    snprintf(path, sizeof path, "%s/run/deep/log.jsonl", dir);
    FILE *f = fopen(path, "a");
    fputs("{\"step\":17,\"lo", f);                                          /* the line the kill cut off */
    fclose(f);
    run_steps(10, 20, 20, 100);
    Lines l = read_log("log.jsonl");
    assert_int_equal(l.starts, 2);
    assert_int_equal(l.steps, 4);
    for (int i = 0; i < 4; i++) assert_int_equal(l.at[i], 5 * (i + 1));
    assert_true(l.loss[1] == 8 && l.loss[2] == 113);
}

static void fresh_run_keeps_the_old_log(void **state) {
    (void)state;
    run_steps(0, 5, 5, 0);
    run_steps(0, 10, 10, 0);
    assert_int_equal(read_log("log.old.jsonl").steps, 1);
    assert_int_equal(read_log("log.jsonl").steps, 2);
}

static void other_ranks_are_silent(void **state) {
    (void)state;
    Log *log;
    char out[80], path[128], *argv[] = { out };
    snprintf(out, sizeof out, "out=%s/silent", dir);
    snprintf(path, sizeof path, "%s/silent", dir);
    Options *o;
    assert_int_equal(options_parse(&o, "pretrain", 1, argv), OK);
    LogSetup setup = { .speaks = false };
    assert_int_equal(log_open(&log, o, &setup), OK);
    LogStep s = log_blank(10);
    assert_int_equal(log_step(log, &s), OK);
    assert_int_equal(log_text(log, "nothing"), OK);
    assert_int_equal(log_eval(log, 10, NULL, 0), OK);
    log_close(log);
    assert_int_not_equal(access(path, F_OK), 0);
    options_free(o);
}

static void log_needs_out(void **state) {
    (void)state;
    Options *o;
    Log *log;
    LogSetup setup = { .speaks = true };
    assert_int_equal(options_parse(&o, "pretrain", 0, NULL), OK);
    assert_int_equal(log_open(&log, o, &setup), ERR_USAGE);
    assert_null(log);
    assert_int_equal(options_set(o, "out", "/proc/nothing/here", NULL), OK);
    assert_int_equal(log_open(&log, o, &setup), ERR_IO);
    assert_non_null(strstr(err_message(), "/proc/nothing"));
    options_free(o);
}

/* ---- small things ------------------------------------------------------------------------------------------------ */

static void times(void **state) {
    (void)state;
    static const struct { double s; const char *text; } cases[] = {
        { 0, "0s" }, { 59.4, "59s" }, { 59.6, "1m 00s" }, { 252, "4m 12s" }, { 3599.6, "1h 00m" }, { 11100, "3h 05m" },
        { 187200, "2d 04h" }, { -5, "0s" }, { NAN, "0s" }, { INFINITY, "0s" },
    };
    char buf[32];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(status_time(cases[i].s, buf, sizeof buf), cases[i].text);
}

/* To the process, as a scheduler sends it; a thread of its own takes it a moment later. */
static bool answered(int number, bool (*asked)(void)) {
    kill(getpid(), number);
    for (int i = 0; i < 2000; i++) {
        if (asked()) return true;
        usleep(1000);
    }
    return false;
}

static void signals_are_requests(void **state) {
    (void)state;
    signals_open();
    signals_ask();
    assert_false(stop_requested());
    assert_false(save_requested());
    assert_true(answered(SIGUSR1, save_requested));
    assert_false(save_requested());
    raise(SIGPIPE);
    assert_true(answered(SIGTERM, stop_requested));
    kill(getpid(), SIGTERM);                                   /* schedulers repeat themselves: still only a request */
    usleep(200000);
    assert_true(stop_requested());
    signals_ask();
    assert_false(stop_requested());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(events_read_back, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(begins_as_tensorflow_does, make_dir, remove_dir),
        cmocka_unit_test(unwritable_folder_is_said),
        cmocka_unit_test_setup_teardown(log_reads_back, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(resumed_log_does_not_double, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(fresh_run_keeps_the_old_log, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(other_ranks_are_silent, make_dir, remove_dir), cmocka_unit_test(log_needs_out),
        cmocka_unit_test(times), cmocka_unit_test(signals_are_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
