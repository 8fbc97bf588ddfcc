/* annotation_names: see annotation_names.h. */
#include "data/make/annotation_names.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/format/path.h"
#include "kernels/base/mem.h"

enum { NAME = 40 };

/* Letters and digits alone, best first. Those of images end with numbers and keys, for which a file is looked for. */
static const char *const names[ROLES][44] = {
    [ROLE_IMAGE] = {"image", "imagepath", "imagefile", "imagefilename", "imagename", "filename", "filepath", "file",
                    "path", "img", "imgpath", "imgfile", "imgname", "imgfilename", "picture", "photo", "jpg", "jpeg",
                    "png", "webp", "localpath", "relativepath", "images", "imageid", "imgid", "key", "id", "imageurls",
                    NULL},
    [ROLE_CAPTION] = {"caption", "captions", "text", "texts", "txt", "title", "sentence", "sentences", "captionstr",
                      "referencestrs", "references", "comment", "comments", "description", "descriptions", "raw",
                      "rawcaption", "alttext", "alt", "prompt", "conversations", "messages", "phrase", "regions", NULL},
    [ROLE_SPLIT] = {"split", "splitname", "set", "setname", "subset", "partition", NULL},
    [ROLE_OTHER] = {"id", "imageid", "imgid", "sentid", "sentids", "captionid", "commentnumber", "index", "unnamed",
                    "idx", "width", "height", "originalwidth", "originalheight", "url", "urls", "cocourl", "imageurl",
                    "imgurl", "flickrurl", "license", "datecaptured", "key", "status", "errormessage", "sha256", "md5",
                    "hash", "exif", "domain", "openimagesid", "similarity", "punsafe", "pwatermark", "aesthetic",
                    "nsfw", "size", "dataset", "format", "rotation", "labelid", "classid", NULL},
};

/* Letters and digits in lower case; bytes of other scripts stay. */
static void bare(char out[NAME], const char *name) {
    size_t n = 0;
    for (; *name && n + 1 < NAME; name++) {
        unsigned char c = (unsigned char)*name;
        if (isalnum(c) || c >= 0x80) out[n++] = (char)tolower(c);
    }
    out[n] = 0;
}

int annotation_rank(enum AnnotationRole role, const char *name) {
    char word[NAME];
    bare(word, name);
    size_t n = strlen(word);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; names[role][i]; i++)
            if (!strcmp(names[role][i], word)) return i + (pass ? 100 : 0);
        /* pandas leaves its index without a name */
        if (role != ROLE_CAPTION) return role == ROLE_OTHER && !word[0] ? 0 : NO_RANK;
        while (n && isdigit((unsigned char)word[n - 1])) word[--n] = 0; /* caption_1, caption_2: one kind */
    }
    return NO_RANK;
}

bool annotation_name_equal(const char *a, const char *b) {
    char x[NAME], y[NAME];
    bare(x, a);
    bare(y, b);
    return !strcmp(a, b) || (x[0] && !strcmp(x, y));         /* a name of signs alone is bare of everything */
}

bool annotation_is_picture(const char *name) {
    static const char *const ends[] = {".jpg", ".jpeg", ".png",  ".webp", ".bmp",  ".gif",  ".tif",
                                       ".tiff", ".jfif", ".jpe", ".heic", ".avif", NULL};
    return path_ends_in(name, ends);
}

static const struct { const char *word, *split; } words[] = {
    {"train", "train"}, {"training", "train"},   {"trn", "train"}, {"val", "val"},   {"valid", "val"},
    {"validation", "val"}, {"dev", "val"}, {"test", "test"}, {"testing", "test"}, {"restval", "restval"}};

static const char *split_of(const char *word, size_t n) {
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i].word) == n && !strncasecmp(word, words[i].word, n)) return words[i].split;
    return NULL;
}

const char *annotation_split_word(const char *word) {
    size_t n = strlen(word), digits = 0;
    while (digits < n && isdigit((unsigned char)word[n - 1 - digits])) digits++;
    const char *split = split_of(word, digits == 4 ? n - 4 : n);            /* val2014, but not dev2 */
    return split ? split : word;
}

const char *annotation_split_in(const char *name) {
    const char *split = NULL;
    while (*name) {                           /* words are runs of letters: captions_val2014.json, not latest.json */
        size_t n = 0;
        while (isalpha((unsigned char)name[n])) n++;
        const char *found = split_of(name, n);
        if (found) split = found;                            /* the last: train/val2014/x.jpg is in val */
        name += n ? n : 1;
    }
    return split;
}

const char *annotation_split_on_way(const char *name) {
    char *folders = mem_format("%.*s", (int)(path_base(name) - name), name);
    const char *split = annotation_split_in(folders ? folders : "");
    free(folders);
    return split;
}
