/* test_hosts: several machines, as far as one machine can be two: network, host name and disk of each are its own, and
 * a cable (veth) joins them. mpirun starts the far ranks through an agent that enters the other machine where ssh would
 * log in; data go by TCP, and no rank sees the processes of the other machine.
 *
 * Two and two ranks train as four of one machine; `out` is rank 0's business alone; every machine may hold just its own
 * shards; and whatever happens to a rank or to the cable, all ranks on both sides end in time and say why. Machines are
 * namespaces, which root may make, or anybody where the kernel allows: the program starts itself again in the first
 * one. Skipped where that is refused, or where there is no ip (package iproute2). */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/kit/check.h"
#include "tests/kit/ranks.h"

enum { STEPS = 20 };

#define NEAR "10.77.0.1"
#define FAR "10.77.0.2"

static const char *const INSIDE = "QFORMER_TEST_HOST";       /* set where the first machine has been entered */

/* Four ranks on one machine, for comparison. */
static void on_one(const char *out, const char *more) {
    char line[600];
    snprintf(line, sizeof line, "mpirun --oversubscribe --bind-to none -np 4 $Q pretrain $A out=%s %s", out, more);
    must(line);
}

/* ---- the same numbers -------------------------------------------------------------------------------------------- */

static void two_machines_train_as_one(void **state) {
    (void)state;
    need_ranks();
    Curve one, two;
    char more[200], path[160];
    must("$M -np 4 uname -n");
    assert_int_equal(count(text_of("must.txt"), "near"), 2);
    assert_int_equal(count(text_of("must.txt"), "far"), 2);
    snprintf(more, sizeof more, "train.batch=3 train.steps=%d train.save_every=10 train.eval_every=10", STEPS);
    on_one("one", more);
    trained(4, "two", more);
    read_curve(&one, "one");
    read_curve(&two, "two");
    alike("4 ranks, 2 and 2", &one, &two, 1, STEPS, 1e-5);
    snprintf(path, sizeof path, "%s/far/two", dir);          /* only rank 0 writes */
    assert_int_not_equal(access(path, F_OK), 0);
    snprintf(more, sizeof more, "train.batch=3 train.steps=%d train.save_every=0", STEPS + 5);
    trained(4, "two", more);                                 /* and reads */
    assert_int_equal(last_checkpoint("two"), STEPS + 5);
}

static void each_machine_has_its_shards(void **state) {
    (void)state;
    need_ranks();
    static const char *const format = "data.train=%s/manifest.json data.local_shards=true train.batch=3 "
                                      "train.steps=%d train.save_every=0";
    Curve one, two;
    char whole[200], split[200];
    must("$Q synth out=even.h5 synth.train=128 synth.val=0 synth.test=0 synth.size=32 synth.images=none "
         "synth.facts=false && $Q repack in=even.h5 out=whole/ repack.shard_images=32");
    must("cp -r whole split && cp -r whole far/split && "
         "set -- $(cd whole; ls | grep -v manifest) && test $# = 4 && rm split/$3 split/$4 far/split/$1 far/split/$2");
    snprintf(whole, sizeof whole, format, "whole", STEPS);
    snprintf(split, sizeof split, format, "split", STEPS);
    on_one("together", whole);
    trained(4, "apart", split);
    read_curve(&one, "together");
    read_curve(&two, "apart");
    alike("shards together, apart", &one, &two, 1, STEPS, 1e-5);
}

/* ---- what can go wrong ------------------------------------------------------------------------------------------- */

static const char *const LONG = "train.batch=3 train.steps=1000000 train.save_every=5";

static void terminated_on_the_other(void **state) {
    (void)state;
    need_ranks();
    terminated(4, 3, LONG, 5, 12, "");
}

/* Only rank 2 can look at rank 3. Open MPI ends whoever loses its TCP connection, before any of our sentences: then the
 * launcher's names the rank. */
static void killed_on_the_other(void **state) {
    (void)state;
    need_ranks();
    pid_t m = train(4, "killed", LONG);
    wait_for_checkpoint(m, "killed", 5);
    send_to("killed", 3, SIGKILL);
    assert_int_not_equal(finish(m), 0);
    if (!strstr(end_of("killed"), "rank 3")) fail_msg("nobody names rank 3: %s", end_of("killed"));
    no_process_is_left("killed");
    goes_on("killed", 12, "");
}

/* Words do not cross a cut cable either: each rank writes them on its own machine. */
static void cable_cut(void **state) {
    (void)state;
    need_ranks();
    char line[800];
    snprintf(line, sizeof line,
             "exec $M -np 4 sh -c 'exec \"$@\" >cut.$OMPI_COMM_WORLD_RANK.txt 2>&1' x $Q pretrain $A out=cut %s "
             "train.save_every=50 dist.timeout_s=%d",
             LONG, TIMEOUT);
    pid_t m = start("cut.txt", line);
    wait_for_checkpoint(m, "cut", 50);
    double begin = now();
    must("ip link set near down");
    while (find_process("cut", -1) && now() - begin < 3 * TIMEOUT + 10) nap(0.02);
    print_message("all ranks ended %.1f s after the cut, with a time-out of %d s\n", now() - begin, TIMEOUT);
    no_process_is_left("cut");
    for (int r = 0; r < 4; r++) {
        char name[32], within[24];
        snprintf(name, sizeof name, "%scut.%d", r < 2 ? "" : "far/", r);
        snprintf(within, sizeof within, "within %d s", TIMEOUT);
        said(name, 1, 1, r < 2 ? "ranks 2, 3 did not come to the " : "ranks 0, 1 did not come to the ", " in step ",
             within);
        said(name, 1, 1, "", "", "");
    }
    kill(m, SIGKILL);                                        /* mpirun waits for its other half */
    finish(m);
    must("ip link set near up");
    goes_on("cut", 12, "");
}

/* ---- two machines ------------------------------------------------------------------------------------------------ */

static bool works(const char *line) { return finish(start("must.txt", line)) == 0; }

/* The second machine lives as long as this process does. Its folder `dir` is our dir/far. False: not here. */
static bool open_far(void) {
    char text[64], path[64];
    pid_t far = start("far.txt", "exec unshare --net --uts --mount sleep 100000");
    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)far);
    for (double begin = now(); has_word(path, "unshare", false) || !has_word(path, "sleep", false); nap(0.01))
        if (now() - begin > 10) return false;
    snprintf(text, sizeof text, "nsenter -t %d -n -u -m", (int)far);
    setenv("FAR", text, 1);
    snprintf(text, sizeof text, "%d", (int)far);
    setenv("FAR_ID", text, 1);
    return works("hostname near && ip link set lo up && ip link add near type veth peer name far netns $FAR_ID && "
                 "ip addr add " NEAR "/24 dev near && ip link set near up && mkdir far && cp scenes.h5 vocab.txt far/ && "
                 "$FAR sh -c 'hostname far && ip link set lo up && ip addr add " FAR "/24 dev far && "
                 "ip link set far up && mount --bind '$PWD'/far '$PWD") &&
           works("printf '#!/bin/sh\\nshift\\nexec %s sh -c \"$*\"\\n' \"$FAR\" >agent && chmod +x agent && "
                 "cp agent far/");
}

static int setup(void **state) {
    (void)state;
    char line[400];
    int failed = ranks_setup("model.hidden=32 device=cpu", "test -n \"$QFORMER_TEST_HOST\"");
    if (failed || !able) return failed;
    if (!(able = open_far())) print_message("no second machine here: %s\n", end_of("must"));
    if (!able) return 0;
    snprintf(line, sizeof line,
             "mpirun --bind-to none --host " NEAR ":2," FAR ":2 --mca plm_rsh_agent %s/agent "
             "--mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24",
             dir);
    setenv("M", line, 1);
    able = works("timeout 30 $M -np 4 uname -n");
    if (!able) print_message("mpirun does not start ranks on the second machine: %s\n", end_of("must"));
    return 0;
}

/* Starts this program again as the first machine, with network, name, mounts and processes of its own; or, where that
 * cannot be, as it is. */
static void enter_near(const char *program) {
    execl("/bin/sh", "sh", "-c",
          "for w in unshare 'unshare --user --map-root-user'; do\n"
          "  w=\"$w --net --uts --mount --pid --mount-proc --fork --kill-child\"\n"
          "  $w sh -c 'ip link add near type veth peer name far && hostname near && mount --bind /tmp /tmp' \\\n"
          "    2>/dev/null && QFORMER_TEST_HOST=near exec $w \"$0\"\n"
          "done\n"
          "QFORMER_TEST_HOST= exec \"$0\"",
          program, (char *)NULL);
}

int main(int argc, char **argv) {
    (void)argc;
    if (!getenv(INSIDE)) enter_near(argv[0]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_machines_train_as_one),
        cmocka_unit_test(each_machine_has_its_shards),
        cmocka_unit_test(terminated_on_the_other),
        cmocka_unit_test(killed_on_the_other),
        cmocka_unit_test(cable_cut),
    };
    return cmocka_run_group_tests(tests, setup, ranks_teardown);
}
