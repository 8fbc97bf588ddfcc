/* bad_input: the tables of test_bad_input: commands with a file each to damage, and files of nonsense. */
#pragma once

/* ---- cases ------------------------------------------------------------------------------------------------------- */

enum {
    LINES = 1,             /* a text whose beginning may be as good as the whole */
    GOES_ON = 2,           /* what was done before the damage was met may stay (NAME.part, a run): it goes on */
    REQUEST = 4,           /* the file is part of the request: exit code 2 is right as well */
    FALLS_BACK = 8,        /* there is something else to use: the command may succeed, and warns */
    ANY_FORM = 16,         /* what the file is gets found out by looking: one of another kind may do as well */
    OPTIONAL = 32,         /* may be missing */
    GLANCES = 64,          /* the command looks at a part of it: nonsense elsewhere does not matter */
};

typedef struct { const char *file, *line; int flags; } Case;

#define EXTRACT "extract . extract.size=16 extract.patch=8 out=o/x.h5 extract.annotations="
#define IMPORT  "import.ids=ids.json extract.annotations=notes.json out=o/x.h5"
#define SIZES   "model.layers=2 model.hidden=32 model.heads=2 model.queries=4 model.proj=16 model.cross_every=1 " \
                "model.positions=40"
#define TRAIN   "pretrain model.vocab=vocab.txt " SIZES " train.batch=8 train.steps=2 optim.ema=0.9 precision=f32 " \
                "device=cpu threads=1 data.threads=1 train.eval_every=0 train.events=false out=o/run "
#define USE     " data.test=set.h5 precision=f32 device=cpu threads=1 out=o "

static const Case cases[] = {
    {"c.yaml",                "synth c.yaml out=o/x.h5", REQUEST | LINES},
    {"lavis.json",            EXTRACT "lavis.json", GOES_ON},
    {"coco.json",             EXTRACT "coco.json", GOES_ON},
    {"karpathy.json",         EXTRACT "karpathy.json", GOES_ON},
    {"entries.jsonl",         EXTRACT "entries.jsonl", GOES_ON | LINES | ANY_FORM},
    {"pairs.csv",             EXTRACT "pairs.csv", GOES_ON | LINES | ANY_FORM},
    {"pairs.tsv",             EXTRACT "pairs.tsv", GOES_ON | LINES | ANY_FORM},
    {"lavis.json",            "vocab extract.annotations=lavis.json out=o/v.txt vocab.size=64", GLANCES},
    {"train/000000.png",      EXTRACT "lavis.json", GOES_ON | ANY_FORM},
    {"train/photo.jpg",       EXTRACT "lavis.json", GOES_ON | ANY_FORM},
    {"f.npy",                 "import f.npy " IMPORT, GOES_ON | ANY_FORM},
    {"stored.npz",            "import stored.npz " IMPORT, GOES_ON | ANY_FORM},
    {"deflated.npz",          "import deflated.npz " IMPORT, GOES_ON | ANY_FORM},
    {"f.safetensors",         "import f.safetensors " IMPORT, GOES_ON | ANY_FORM},
    {"other.h5",              "import other.h5 import.array=images/features import.ids_array=images/image_id "
         "extract.annotations=scenes.json out=o/x.h5", GOES_ON | ANY_FORM | REQUEST},
    {"ids.json",              "import f.npy " IMPORT, GOES_ON | REQUEST},
    {"notes.json",            "import f.npy " IMPORT, GOES_ON},
    {"ids.txt",               "import f.npy import.ids=ids.txt extract.annotations=notes.json out=o/x.h5",
         GOES_ON | REQUEST | LINES},
    {"set.h5",                "verify set.h5", 0},
    {"set.h5",                "inspect set.h5", 0},
    {"set.h5",                "repack set.h5 out=o/x.h5", GOES_ON},
    {"set.h5",                "vocab set.h5 vocab.size=64 out=o/v.txt", 0},
    {"set.h5",                TRAIN "data.train=set.h5", GOES_ON},
    {"set.h5",                "retrieval run" USE, REQUEST},
    {"many/manifest.json",    "verify many", OPTIONAL},
    {"many/manifest.json",    TRAIN "data.train=many", OPTIONAL},
    {"many/set-00001.h5",     "retrieval run precision=f32 device=cpu threads=1 data.test=many", REQUEST},
    {"vocab.txt",             "repack set.h5 model.vocab=vocab.txt out=o/x.h5", GOES_ON | LINES},
    {"run/vocab.txt",         "retrieval run" USE, REQUEST | LINES | FALLS_BACK | OPTIONAL},
    {"w.safetensors",         "init w.safetensors model.vocab=vocab.txt model.image_width=208 out=o/w.safetensors "
         SIZES, 0},
    {"w.safetensors",         TRAIN "data.train=set.h5 train.init=w.safetensors", 0},
    {"w.safetensors",         "retrieval w.safetensors model.vocab=vocab.txt model.heads=2" USE, REQUEST},
    {"w.safetensors",         "inspect w.safetensors", GLANCES},
    {"w.safetensors",         "export w.safetensors out=o/hf model.heads=2", 0},
    {"fp16.pth",              "inspect fp16.pth", 0},
    {"run/step_000003/model.safetensors", "retrieval run/step_000003" USE, REQUEST},
    {"run/step_000003/state.json",        "retrieval run/step_000003 model.vocab=vocab.txt model.heads=2" USE,
         REQUEST | OPTIONAL},
    {"run/step_000006/ema.safetensors",   "retrieval run" USE, FALLS_BACK},
    {"run/step_000006/state.json",        "retrieval run" USE, FALLS_BACK},
    {"run/step_000006/model.safetensors", "inspect run", FALLS_BACK},
    {"run/latest",                        "retrieval run" USE, FALLS_BACK},
    {"cap.json",              "score cap.json gt=ref.json out=o", 0},
    {"ref.json",              "score cap.json gt=ref.json out=o", 0},
    {"sim.npy",               "score score.sim=sim.npy score.owner=owner.json out=o", 0},
    {"owner.json",            "score score.sim=sim.npy score.owner=owner.json out=o", 0},
    {"pairs.csv",             "match run match.pairs=pairs.csv" USE, REQUEST | LINES | ANY_FORM},
    {"names.txt",             "classify run classify.names=names.txt classify.labels=labels.csv" USE, REQUEST | LINES},
    {"labels.csv",            "classify run classify.names=names.txt classify.labels=labels.csv" USE, REQUEST | LINES},
};
enum { CASES = sizeof cases / sizeof *cases };

/* Complete files of nonsense; times > 1: so often repeated. *.npy and *.safetensors: the header, before 64 bytes. */
typedef struct { const char *file, *text; int times; } Nonsense;

static const Nonsense nonsense[] = {
    {"c.yaml", "synth: {train: 99999999999999999999}", 1},
    {"c.yaml", "synth: {train: -1}", 1},
    {"c.yaml", "synth: {size: nan}", 1},
    {"c.yaml", "optim: {lr: 1e999}", 1},
    {"c.yaml", "synth: [1, 2]", 1},
    {"c.yaml", "synth: &a {train: *a}", 1},
    {"c.yaml", "- 1", 1},
    {"c.yaml", "synth: {train: 4}\nsynth: {train: 5}\n", 1},
    {"c.yaml", "[", 100000},
    {"c.yaml", "{a: ", 100000},
    {"c.yaml", "\t", 1},
    {"lavis.json", "[", 100000},
    {"lavis.json", "{\"a\":", 100000},
    {"lavis.json", "[]", 1},
    {"lavis.json", "{}", 1},
    {"lavis.json", "null", 1},
    {"lavis.json", "[1e999]", 1},
    {"lavis.json", "[{\"image\": 7, \"caption\": \"a\"}]", 1},
    {"lavis.json", "[{\"image\": \"train/000000.png\", \"caption\": [[\"a\"]]}]", 1},
    {"lavis.json", "[{\"image\": \"train/000000.png\", \"caption\": \"a\\u0000b\"}]", 1},
    {"lavis.json", "[{\"image\": \"train/000000.png\", \"caption\": \"a\", \"split\": \"val\"},{\"image\": "
         "\"train/000000.png\", \"caption\": \"a\", \"split\": \"test\"}]", 1},
    {"lavis.json", "[{\"image\": \"../../../../etc/passwd\", \"caption\": \"a\"}]", 1},
    {"lavis.json", "[{\"image\": \"\", \"caption\": \"a\"}]", 1},
    {"lavis.json", "[{\"image\": \"train\", \"caption\": \"a\"}]", 1},
    {"coco.json", "{\"images\": [], \"annotations\": []}", 1},
    {"coco.json", "{\"images\": 3, \"annotations\": []}", 1},
    {"coco.json", "{\"images\": [{\"id\": 1, \"file_name\": \"train/000000.png\"}], \"annotations\": [{\"image_id\": "
         "2, \"caption\": \"a\"}]}", 1},
    {"coco.json", "{\"images\": [{\"id\": 1e300, \"file_name\": \"train/000000.png\"}], \"annotations\": "
         "[{\"image_id\": 1e300, \"caption\": \"a\"}]}", 1},
    {"coco.json", "{\"images\": [{\"id\": 1, \"file_name\": \"a\"}, {\"id\": 1, \"file_name\": \"b\"}], "
         "\"annotations\": [{\"image_id\": 1, \"caption\": \"a\"}]}", 1},
    {"karpathy.json", "{\"images\": [{\"filename\": \"a.png\", \"sentences\": 3}]}", 1},
    {"karpathy.json", "{\"images\": [{\"filename\": \"a.png\", \"split\": 3, \"sentences\": [{\"raw\": \"a\"}]}]}", 1},
    {"pairs.csv", "image\n", 1},
    {"pairs.csv", "image,caption\n", 1},
    {"pairs.csv", "image,caption\ntrain/000000.png\n", 1},
    {"pairs.csv", "image,caption\ntrain/000000.png,\"never closed\n", 1},
    {"pairs.csv", "\"", 100001},
    {"pairs.csv", ",", 100000},
    {"f.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 2, 3), }", 1},
    {"f.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4), }", 1},
    {"f.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (-6, 2, 3), }", 1},
    {"f.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 0, 3), }", 1},
    {"f.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (), }", 1},
    {"f.npy", "{'descr': '|O', 'fortran_order': False, 'shape': (6, 2, 3), }", 1},
    {"f.npy", "{'descr': '<f4', 'fortran_order': True, 'shape': (6, 2, 3), }", 1},
    {"f.npy", "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6, 2, 3), }", 1},
    {"f.npy", "(", 60000},
    {"ids.json", "[\"b/2.jpg\"]", 1},
    {"ids.json", "{\"a\": 1}", 1},
    {"ids.json", "[1, 2, 3, 4, 5, 6]", 1},
    {"ids.json", "[\"x\", \"x\", \"x\", \"x\", \"x\", \"x\"]", 1},
    {"ids.json", "[\"b/2.jpg#99999999999999999999\", \"b/1.jpg\", \"c/3.jpg\", \"b/2.jpg#1\", \"b/1.jpg#1\", "
         "\"c/3.jpg#1\"]", 1},
    {"ids.json", "[\"b/2.jpg#-1\", \"b/1.jpg\", \"c/3.jpg\", \"b/2.jpg#1\", \"b/1.jpg#1\", \"c/3.jpg#1\"]", 1},
    {"f.safetensors",
     "{\"features\":{\"dtype\":\"F32\",\"shape\":[6,2,3],\"data_offsets\":[0,9223372036854775807]}}", 1},
    {"f.safetensors",
     "{\"features\":{\"dtype\":\"F32\",\"shape\":[18446744073709551615,2,3],\"data_offsets\":[0,64]}}", 1},
    {"f.safetensors",
     "{\"features\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,16],\"data_offsets\":[0,64]}}", 1},
    {"f.safetensors",
     "{\"features\":{\"dtype\":\"F32\",\"shape\":[-1,2,3],\"data_offsets\":[0,64]}}", 1},
    {"f.safetensors",
     "{\"features\":{\"dtype\":\"F32\",\"shape\":[16],\"data_offsets\":[64,0]}}", 1},
    {"f.safetensors",
     "{\"features\":{\"dtype\":\"F99\",\"shape\":[16],\"data_offsets\":[0,64]}}", 1},
    {"f.safetensors",
     "{\"features\":{\"dtype\":\"F32\"}}", 1},
    {"f.safetensors", "{}", 1},
    {"f.safetensors", "[", 100000},
    {"w.safetensors",
     "{\"Qformer.bert.embeddings.word_embeddings.weight\":"
     "{\"dtype\":\"F32\",\"shape\":[4,4],\"data_offsets\":[0,64]}}", 1},
    {"w.safetensors", "{\"query_tokens\":{\"dtype\":\"F32\",\"shape\":[1,4,4],\"data_offsets\":[0,64]}}", 1},
    {"many/manifest.json", "{\"format\": \"qformer-set\", \"version\": 1, \"shards\": []}", 1},
    {"many/manifest.json", "{\"format\": \"qformer-set\", \"version\": 99, \"shards\": []}", 1},
    {"many/manifest.json", "{\"format\": \"qformer-set\", \"version\": 1, \"shards\": [{\"file\": \"../set.h5\", "
         "\"images\": 36, \"bytes\": 1, \"content\": 0, \"splits\": {}}]}", 1},
    {"many/manifest.json", "{\"format\": \"qformer-set\", \"version\": 1, \"shards\": [{\"file\": \"set-00000.h5\", "
         "\"images\": 9000000000000000000, \"bytes\": -1, \"content\": 1e99, \"splits\": {}}]}", 1},
    {"many/manifest.json", "[", 100000},
    {"vocab.txt", "\n", 100000},
    {"vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n", 1},
    {"vocab.txt", "a\nb\n", 1},
    {"run/step_000003/state.json", "{}", 1},
    {"run/step_000003/state.json", "{\"format\": \"qformer-checkpoint\", \"step\": -5, \"files\": {}, \"run\": {}}", 1},
    {"run/step_000003/state.json", "[", 100000},
    {"run/latest", "../../../etc\n", 1},
    {"cap.json", "[", 100000},
    {"cap.json", "[]", 1},
    {"cap.json", "[{\"image_id\": 1}]", 1},
    {"cap.json", "[{\"image_id\": 123456789, \"caption\": \"nowhere\"}]", 1},
    {"cap.json", "[{\"image_id\": 0, \"caption\": \"a\"}, {\"image_id\": 0, \"caption\": \"b\"}]", 1},
    {"ref.json", "{\"annotations\": []}", 1},
    {"ref.json", "{\"annotations\": [{\"image_id\": 0, \"caption\": 7}]}", 1},
    {"sim.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (16,), }", 1},
    {"sim.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 0), }", 1},
    {"sim.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1000000000000), }", 1},
    {"owner.json", "[0, 1, 2, 3, 0, 1, 2, 99]", 1},
    {"owner.json", "[0, 1, 2]", 1},
    {"owner.json", "[-1, 1, 2, 3, 0, 1, 2, 3]", 1},
    {"names.txt", "\n\n", 1},
    {"labels.csv", "image,label\n", 1},
    {"labels.csv", "image,label\ntest/000000.png,no such class\n", 1},
};
enum { NONSENSE = sizeof nonsense / sizeof *nonsense };
