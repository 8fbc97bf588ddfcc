/* The files that people of this field have: each form, as its publisher writes it, gives the list it means; what is no
 * caption file is called by its name; lists of paths find what exists. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "data/format/path.h"
#include "data/make/annotation_files.h"
#include "data/make/annotations.h"

/* "image@split caption/caption; ..." */
static const char *shown(const Annotations *a) {
    static char text[4096];
    size_t used = 0;
    text[0] = 0;
    for (int64_t i = 0; i < a->count; i++) {
        const AnnotatedImage *m = &a->images[i];
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s@%s", i ? "; " : "", m->image, m->split);
        for (int64_t k = 0; k < m->ncaptions; k++)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", k ? "/" : " ", m->captions[k]);
    }
    return text;
}

static void check(const char *text, size_t n, AnnotationFile file, const char *want) {
    Annotations a = {0};
    if (annotations_add_text(&a, text, n, &file) != OK || annotations_finish(&a) != OK)
        fail_msg("%s\n%.200s", err_message(), text);
    if (strcmp(shown(&a), want)) fail_msg("%.100s\n gives %s\nwanted %s", text, shown(&a), want);
    annotations_free(&a);
}

static void refused(const char *text, size_t n, AnnotationFile file, const char *says) {
    Annotations a = {0};
    Status st = annotations_add_text(&a, text, n, &file);
    if (st == OK) st = annotations_finish(&a);
    if (st == OK) fail_msg("read as %s", shown(&a));
    if (!strstr(err_message(), says)) fail_msg("says: %s\nwanted: %s", err_message(), says);
    annotations_free(&a);
}

static const struct { const char *text, *want;
} forms[] = {
    /* JSON Lines, whatever the first line; Hugging Face's imagefolder; LAION and img2dataset */
    {"\n{\"image\": \"a.png\", \"caption\": \"one\"}\n\n{\"image\": \"b.png\", \"caption\": \"two\"}\n",
     "a.png@train one; b.png@train two"},
    {"{\"file_name\": \"a.png\", \"text\": \"one\"}\n{\"file_name\": \"b.png\", \"text\": \"two\"}\n",
     "a.png@train one; b.png@train two"},
    {"{\"text\": \"one\", \"file_name\": \"train/a.png\", \"split\": \"Validation\"}", "train/a.png@val one"},
    {"{\"url\": \"http://x/1.jpg\", \"caption\": \"one\", \"key\": \"000000000\", \"status\": \"success\"}",
     "000000000@train one"},
    {"{\"image_id\": 391895, \"caption\": \"one\"}\n{\"image_id\": 391895, \"caption\": \"two\"}",
     "391895@train one/two"},
    {"[{\"Image_Path\": \"x/a.jpg\", \"raw_caption\": \"one\", \"Set\": \"dev\"}]", "x/a.jpg@val one"},
    {"{\"image\": {\"bytes\": null, \"path\": \"a.jpg\"}, \"text\": \"one\", \"split\": \"val2014\"}", "a.jpg@val one"},
    /* LLaVA: the first answer; a conversation about no picture */
    {"[{\"id\": \"7\", \"image\": \"00/7.jpg\", \"conversations\": [{\"from\": \"human\", \"value\": "
     "\"<image>\\nSay.\"}, {\"from\": \"gpt\", \"value\": \"one\"},"
     " {\"from\": \"human\", \"value\": \"Why?\"}, {\"from\": \"gpt\", \"value\": \"because\"}]}, {\"id\": \"8\", "
     "\"conversations\": [{\"from\": \"gpt\", \"value\": \"x\"}]}]",
     "00/7.jpg@train one"},
    {"[{\"id\": \"7\", \"image\": \"7.jpg\", \"caption\": \"one\", \"blip_caption\": \"two\", \"url\": \"http://x\"}]",
     "7.jpg@train one"},
    /* MiniGPT-4's filter_cap.json, TextCaps */
    {"{\"annotations\": [{\"image_id\": \"2\", \"caption\": \"one\"}, {\"image_id\": \"3\", \"caption\": \"two\"}]}",
     "2@train one; 3@train two"},
    {"{\"dataset_name\": \"textcaps\", \"data\": [{\"caption_str\": \"one\", \"reference_strs\": [\"one\", \"two\"], "
     "\"image_id\": \"0a\", "
     "\"image_path\": \"train/0a.jpg\", \"image_classes\": [\"Bus\"], \"set_name\": \"val\", \"flickr_original_url\": "
     "\"https://x/y.jpg\"}]}",
     "train/0a.jpg@val one"},
    /* NoCaps and COCO test: images alone; instances_*.json likewise */
    {"{\"images\": [{\"id\": 0, \"file_name\": \"a.jpg\", \"coco_url\": \"http://x/a.jpg\", \"domain\": "
     "\"in-domain\"}], \"info\": {}}",
     "a.jpg@test"},
    {"{\"images\": [{\"id\": 0, \"file_name\": \"a.jpg\"}], \"annotations\": []}", "a.jpg@test"},
    {"{\"images\": [{\"id\": 0, \"file_name\": \"a.jpg\"}], \"annotations\": [{\"image_id\": 0, \"category_id\": 3, "
     "\"bbox\": [1, 2, 3, 4]}]}",
     "a.jpg@test"},
    /* maps, columns (pandas), lists by split, names, pairs */
    {"{\"a.jpg\": [\"one\", \"two\"], \"b.jpg\": \"three\"}", "a.jpg@train one/two; b.jpg@train three"},
    {"{\"image\": [\"a.jpg\", \"b.jpg\"], \"caption\": [\"one\", \"two\"]}", "a.jpg@train one; b.jpg@train two"},
    {"{\"file_name\": {\"0\": \"a.jpg\", \"1\": \"b.jpg\"}, \"text\": {\"0\": \"one\", \"1\": \"two\"}}",
     "a.jpg@train one; b.jpg@train two"},
    {"{\"train\": [{\"image\": \"a.jpg\", \"caption\": \"one\"}], \"validation\": [{\"image\": \"b.jpg\", \"caption\": "
     "\"two\"}]}",
     "a.jpg@train one; b.jpg@val two"},
    {"{\"train\": [\"a.jpg\"], \"test\": [\"b.jpg\"]}", "a.jpg@train; b.jpg@test"},
    {"{\"images\": [\"a.jpg\", \"b.jpg\"]}", "a.jpg@test; b.jpg@test"},
    {"{\"a.jpg\": {\"caption\": \"one\", \"split\": \"dev\"}, \"b.jpg\": {\"captions\": [\"two\"]}}",
     "a.jpg@val one; b.jpg@train two"},
    {"sep=;\r\nimage;caption\r\na.png;one, two\r\n", "a.png@train one, two"},
    {"a.jpg\t0\tone\na.jpg\t1\ttwo\n", "a.jpg@train one/two"},
    {"[\"a.jpg\", \"./x//b.jpg\"]", "a.jpg@test; x/b.jpg@test"},
    {"[[\"a.jpg\", \"one\"], [\"b.jpg\", [\"two\", \"three\"]]]", "a.jpg@train one; b.jpg@train two/three"},
    /* Flickr: token files, results.csv with its broken row, Karpathy's split as a table */
    {"a.jpg#0\tone .\na.jpg#1\t\"two\" said\nb.jpg#0\tthree\n", "a.jpg@train one ./\"two\" said; b.jpg@train three"},
    {"image_name| comment_number| comment\na.jpg| 0| Two , guys .\na.jpg| 1| Two men .\na.jpg| 4   A dog runs .\n",
     "a.jpg@train Two , guys ./Two men ./A dog runs ."},
    {"raw,sentids,split,filename,img_id\n\"[\"\"one\"\", \"\"two, 3\"\"]\",\"[0, 1]\",Train,a.jpg,0\n\"['a dog\\'s', "
     "\"\"b\"\"]\",\"[2]\",val,b.jpg,1\n",
     "a.jpg@train one/two, 3; b.jpg@val a dog's/b"},
    /* tables: any separator, case, blanks, _path; several captions; an index of pandas; no header */
    {"image;caption\na.png;one, two\n", "a.png@train one, two"},
    {"Image,Caption\na.png,one\n", "a.png@train one"},
    {"image_path\tTEXT\nx/a.png\tone\n", "x/a.png@train one"},
    {"image, caption\na.png, one\nb.png, \"two, three\"\n", "a.png@train one; b.png@train two, three"},
    {",filepath,title\n0,a.png,one\n1,b.png,two\n", "a.png@train one; b.png@train two"},
    {"image,caption_1,caption_2,split\na.png,one,two,Testing\n", "a.png@test one/two"},
    {"a.png,one\nb.png,two\n", "a.png@train one; b.png@train two"},
    {"one\ta.png\ntwo\tb.png\n", "a.png@train one; b.png@train two"},
    {"image\ntrain/0.png\n", "train/0.png@train"},
    {"a b, c.jpg\nd.jpg\n", "a b, c.jpg@test; d.jpg@test"},
    {"image,split,width\na.png,train,640\nb.png,dev,640\n", "a.png@train; b.png@val"},
    {"image,caption\r\n.\\win\\a.png,one\r\n", "win/a.png@train one"},
    /* chat models: turns as role and content, in parts too, several pictures or none; Visual Genome;
     * numbered members */
    {"[{\"images\": [\"a.png\"], \"messages\": [{\"role\": \"user\", \"content\": \"<image>Say.\"}, "
     "{\"role\": \"assistant\", \"content\": [{\"type\": \"text\", \"text\": \"one\"}]}]}, {\"images\": [\"b.png\", \"c.png\"], "
     "\"messages\": [{\"role\": \"assistant\", \"content\": \"two\"}]}, {\"messages\": [{\"role\": \"assistant\", \"content\": "
     "\"three\"}]}]",
     "a.png@train one"},
    {"[{\"id\": 61512, \"regions\": [{\"region_id\": 1, \"phrase\": \"one\", \"x\": 2}, {\"phrase\": \"two\"}]}]",
     "61512@train one/two"},
    {"{\"0\": {\"image\": \"a.jpg\", \"caption\": \"one\", \"split\": \"dev\"}, \"1\": {\"file_name\": \"b.jpg\", \"text\": "
     "\"two\"}}",
     "a.jpg@val one; b.jpg@train two"},
    {"[{\"image\": \"a.jpg\", \"caption_1\": \"one\", \"caption_2\": \"two\", \"caption_3\": null}]", "a.jpg@train one/two"},
    {"image,caption\nfile:///x/a.png,one\n", "/x/a.png@train one"},
    {"image,caption\n./a.png,one\nx/../a.png,two\n../b.png,three\n", "a.png@train one/two; ../b.png@train three"},
};

static void forms_of_others(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        check(forms[i].text, strlen(forms[i].text), (AnnotationFile){.path = "captions"}, forms[i].want);
}

/* What the user says wins over what looks usual. */
static void columns_named(void **state) {
    (void)state;
    static const char table[] = "image,caption,alt_text\na.png,one,two\n", bare[] = "7:one:a.png\n";
    static const char json[] = "{\"pic\": \"a.png\", \"words\": \"one\", \"title\": \"two\"}";
    AnnotationColumns c = {.caption = "Alt-Text"};
    AnnotationFile f = {.path = "x", .columns = &c};
    check(table, strlen(table), f, "a.png@train two");
    c = (AnnotationColumns){.caption = "none"};
    check(table, strlen(table), f, "a.png@test");
    c = (AnnotationColumns){.image = "3", .caption = "2", .separator = ':'};
    check(bare, strlen(bare), f, "a.png@train one");
    c = (AnnotationColumns){.image = "pic", .caption = "words"};
    check(json, strlen(json), f, "a.png@train one");
    f.columns = NULL;
    refused(json, strlen(json), f, "there are \"pic\", \"words\", \"title\"");
    static const char tongues[] = "[{\"image\": \"a.png\", \"caption\": {\"en\": \"one\", \"de\": \"eins\"}}]";
    refused(tongues, strlen(tongues), f, "there are \"en\", \"de\"; extract.caption_column=NAME says which, as en");
    c = (AnnotationColumns){.caption = "de"};
    f.columns = &c;
    check(tongues, strlen(tongues), f, "a.png@train eins");
    c = (AnnotationColumns){.caption = "fr"};
    static const char plain[] = "[{\"image\": \"a.png\", \"caption\": \"one\"}]";
    refused(plain, strlen(plain), f, "there is no \"fr\"; extract.caption_column=caption takes");
    static const char none[] = "[{\"image\": \"a.png\", \"width\": 3}]";
    refused(none, strlen(none), f, "x: nothing in it is called fr (extract.caption_column)");
    refused("{}", 2, f, "it is empty");
    static const char urls[] = "{\"image_urls\": [\"http://a/1.jpg\"], \"captions\": [\"one\"]}";
    f.columns = NULL;
    refused(urls, strlen(urls), f, "is an address, not the name of a file; fetch the pictures first");
    f = (AnnotationFile){.path = "x", .root = "data/./pics/"};
    check(table, strlen(table), f, "data/pics/a.png@train one");
}

static const struct { const char *text; size_t n; const char *says;
} others[] = {
    {"PAR1\0\0\0\0", 8,
     "is a Parquet table, not captions (JSON, JSON Lines or a table); python3 -c \"import pandas, json; open('x.jsonl', 'w')"},
    {"\x80\x04\x95\0\0", 5, "is a Python pickle, not captions"},
    {"PK\3\4....", 8, "is a zip archive"},
    {"<!DOCTYPE html><html>", 21, "is a web page, not captions"},
    {"version https://git-lfs.github.com/spec/v1\n", 43, "is a Git LFS pointer"},
    {"\x28\xb5\x2f\xfd....", 8, "zstd -d x unpacks it"},
    {"a bus\thttp://x/1.jpg\na dog\thttp://x/2.jpg\n", 42, "of addresses (http://x/1.jpg) and no files"},
    {"image,caption\nhttp://x/1.jpg,one\n", 33, "x:2: http://x/1.jpg is an address"},
    {"name;words\na;b\n", 15, "2 columns separated by semicolons (name, words), but none is called image or caption"},
    {"image,words\na.png,b\n", 20, "(image, words), but none is called caption"},
    {"caption,url\none,http://x/1\n", 27, "image (file_name, image_path, ...)"},
    {"{\"count\": 3, \"successes\": 2}", 28, "none of the known forms"},
    {"[{\"url\": \"http://x\", \"caption\": \"one\"}]", 38, "no member names the image's file"},
    {"image: a.jpg\ncaption: x\n", 24, "lines of text: the first (image: a.jpg) is no JSON, names no picture"},
    {"image_url,caption\nhttp://x/1,one\n", 33, "image (file_name, image_path, ...): pictures are needed as files"},
    {"image,caption\na.png,one, two\n", 29, "must be quoted"},
};

static void what_it_is(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        refused(others[i].text, others[i].n, (AnnotationFile){.path = "x"}, others[i].says);
}

/* The same table with a mark, as UTF-16 of either order, and packed. */
static void encodings(void **state) {
    (void)state;
    static const char text[] = "image\tcaption\na.png\t\xc3\xa9t\xc3\xa9 \xf0\x9f\x98\x80\n";
    static const uint16_t units[] = {0xfeff, 'i', 'm', 'a', 'g', 'e', '\t', 'c',  'a', 'p',  't', 'i',    'o',    'n',
                                     '\n',   'a', '.', 'p', 'n', 'g', '\t', 0xe9, 't', 0xe9, ' ', 0xd83d, 0xde00, '\n'};
    AnnotationFile f = {.path = "x"};
    const char *want = "a.png@train \xc3\xa9t\xc3\xa9 \xf0\x9f\x98\x80";
    char buf[256] = "\xef\xbb\xbf";
    strcpy(buf + 3, text);
    check(buf, strlen(buf), f, want);
    check((const char *)units, sizeof units, f, want);
    for (size_t i = 0; i < sizeof units; i++) buf[i] = ((const char *)units)[i ^ 1];
    check(buf, sizeof units, f, want);
    char path[] = "/tmp/qf-forms-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    gzFile gz = gzdopen(fd, "wb");
    assert_int_equal(gzwrite(gz, text, sizeof text - 1), sizeof text - 1);
    gzclose(gz);
    Annotations a = {0};
    if (annotations_load(&a, &(AnnotationFile){.path = path}, 1) != OK) fail_msg("%s", err_message());
    assert_string_equal(shown(&a), want);
    annotations_free(&a);
    FILE *in = fopen(path, "rb");
    size_t n = fread(buf, 1, sizeof buf, in);
    fclose(in);
    check(buf, n, f, want);
    refused(buf, n - 12, f, "broken gzip");
    assert_int_equal(truncate(path, (off_t)n - 12), 0);
    assert_int_equal(annotations_load(&a, &(AnnotationFile){.path = path}, 1), ERR_FORMAT);
    assert_non_null(strstr(err_message(), "broken gzip: it ends early, the file was cut off"));
    unlink(path);
}

static void leaks(void **state) {
    (void)state;
    static const char one[] = "[{\"image\": \"./a.png\", \"caption\": \"x\", \"split\": \"train\"}, {\"image\": "
                              "\"a.png\", \"caption\": \"y\", \"split\": \"test\"}]";
    refused(one, strlen(one), (AnnotationFile){.path = "x"}, "image a.png is in split test here and in train in x");
}

/* Images alone and images with captions: the former stay, those whose captions are blank go. */
static void bare_images(void **state) {
    (void)state;
    Annotations a = {0};
    static const char with[] = "image,caption\na.png,one\nb.png,\n", without[] = "c.png\n";
    assert_int_equal(annotations_add_text(&a, with, strlen(with), &(AnnotationFile){.path = "train.csv"}), OK);
    assert_int_equal(annotations_add_text(&a, without, strlen(without), &(AnnotationFile){.path = "test.txt"}), OK);
    static const char pics[] = "pics",
                      beside[] = "\xef\xbb\xbf"
                                 "one\r\n\n two\n",
                      object[] = "{\"key\": \"7\", \"caption\": \"three\"}";
    int64_t index;
    assert_int_equal(annotations_add_image(&a, "val/d.png", NULL, false, pics, &index), OK);
    assert_int_equal(annotations_add_image(&a, "e.png", NULL, false, pics, &index), OK);
    assert_int_equal(annotations_add_image(&a, "dog/f.png", NULL, true, pics, &index), OK);
    assert_int_equal(annotations_add_caption(&a, index, "dog"), OK);
    assert_int_equal(annotations_add_image(&a, "g.png", "val", true, pics, &index), OK);
    assert_int_equal(annotations_add_lines(&a, index, beside, sizeof beside - 1), OK);
    assert_int_equal(annotations_add_object(&a, index, object, sizeof object - 1, "7.json"), OK);
    assert_int_equal(annotations_finish(&a), OK);
    assert_string_equal(shown(&a), "a.png@train one; c.png@test; val/d.png@val; e.png@test; dog/f.png@train dog; "
                                   "g.png@val one/ two/three");
    assert_int_equal(a.uncaptioned, 1);
    annotations_free(&a);
}

static void paths(void **state) {
    (void)state;
    char dir[] = "/tmp/qf-paths-XXXXXX";
    static const AnnotationColumns usual;
    AnnotationFiles l;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(mkdir("10:30", 0700), 0);
    assert_int_equal(mkdir("a,b", 0700), 0);
    fclose(fopen("10:30/train.csv", "w"));
    fclose(fopen("a,b/x,1.csv", "w"));
    assert_int_equal(annotation_files(&l, "10:30/train.csv, val:a,b/x,1.csv,test:none.json,,dev:10:30/train.csv",
                                      &usual),
                     OK);
    assert_int_equal(l.n, 4);
    assert_string_equal(l.file[0].path, "10:30/train.csv");
    assert_null(l.file[0].split);
    assert_string_equal(l.file[1].path, "a,b/x,1.csv");
    assert_string_equal(l.file[1].split, "val");
    assert_string_equal(l.file[2].path, "none.json");
    assert_string_equal(l.file[2].split, "test");
    assert_string_equal(l.file[3].path, "10:30/train.csv");
    assert_string_equal(l.file[3].split, "dev");
    annotation_files_free(&l);
    assert_int_equal(annotation_files(&l, "", &usual), OK);
    assert_int_equal(l.n, 0);
    annotation_files_free(&l);
    unlink("10:30/train.csv"), unlink("a,b/x,1.csv"), rmdir("10:30"), rmdir("a,b");
    assert_int_equal(chdir("/"), 0);
    rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_of_others), cmocka_unit_test(columns_named), cmocka_unit_test(what_it_is),
        cmocka_unit_test(encodings),       cmocka_unit_test(leaks),         cmocka_unit_test(bare_images),
        cmocka_unit_test(paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
