/* filekind: see filekind.h. One table: where the magic stands, what it means, what to type. '@' stands for the path. */
#include "data/format/filekind.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

/* Bytes within (pictures of Hugging Face's data sets) become null, arrays become lists. */
#define LINES(table)                                                                                                   \
    "python3 -c \"import pandas, json; open('@.jsonl', 'w').writelines(json.dumps(r, default=lambda x: "               \
    "x.tolist() if hasattr(x, 'tolist') else None) + chr(10) for r in " table ".to_dict('records'))\" "                \
    "makes JSON Lines of it"
#define PANDAS(reader) LINES("pandas." reader "('@')")
#define PICKLE LINES("pandas.DataFrame(pandas.read_pickle('@'))")

static const struct { size_t at; const char *magic; size_t n; const char *what, *how; } kinds[] = {
    {0, "PAR1", 4, "a Parquet table", PANDAS("read_parquet")},
    {0, "ARROW1", 6, "an Arrow (Feather) table", PANDAS("read_feather")},
    {0, "\xff\xff\xff\xff", 4, "an Arrow stream (Hugging Face datasets)",
     "python3 -c \"import datasets; datasets.Dataset.from_file('@').to_json('@.jsonl')\" makes JSON Lines of it"},
    {0, "\x89HDF\r\n\x1a\n", 8, "an HDF5 file", NULL},
    {0, "\x93NUMPY", 6, "a NumPy array", NULL},
    {0, "\x80\x02\x8a\x0al\xfc\x9c" "F\xf9 j\xa8P\x19", 14, "a PyTorch file", NULL},
    {0, "\x80\x02", 2, "a Python pickle", PICKLE},
    {0, "\x80\x03", 2, "a Python pickle", PICKLE},
    {0, "\x80\x04", 2, "a Python pickle", PICKLE},
    {0, "\x80\x05", 2, "a Python pickle", PICKLE},
    {0, "PK\3\4", 4, "a zip archive (or an Excel workbook, or a PyTorch file)",
     "unzip @ unpacks an archive, pandas.read_excel reads a workbook"},
    {0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 8, "an old Excel workbook", PANDAS("read_excel")},
    {0, "\x1f\x8b", 2, "compressed by gzip", "gunzip @ unpacks it"},
    {0, "\x28\xb5\x2f\xfd", 4, "compressed by zstd", "zstd -d @ unpacks it"},
    {0, "\xfd" "7zXZ", 5, "compressed by xz", "unxz @ unpacks it"},
    {0, "BZh", 3, "compressed by bzip2", "bunzip2 @ unpacks it"},
    {0, "7z\xbc\xaf\x27\x1c", 6, "a 7-Zip archive", "7z x @ unpacks it"},
    {0, "Rar!", 4, "a RAR archive", "unrar x @ unpacks it"},
    {0, "SQLite format 3", 15, "an SQLite data base", NULL},
    {0, "MATLAB 5.0", 10, "a MATLAB file", "scipy.io.loadmat reads it and numpy.save writes an array of it"},
    {0, "version https://git-lfs", 23, "a Git LFS pointer, the file itself was not fetched", "git lfs pull fetches it"},
    {0, "<!DOCTYPE", 9, "a web page", "the download was answered with a page; fetch it again"},
    {0, "<!doctype", 9, "a web page", "the download was answered with a page; fetch it again"},
    {0, "<html", 5, "a web page", "the download was answered with a page; fetch it again"},
    {0, "<?xml", 5, "an XML document", NULL},
    {0, "%PDF", 4, "a PDF document", NULL},
    {0, "\xff\xd8\xff", 3, "a JPEG image", NULL},
    {0, "\x89PNG\r\n\x1a\n", 8, "a PNG image", NULL},
    {8, "WEBP", 4, "a WebP image", NULL},
    {0, "GIF8", 4, "a GIF image", "convert it: magick '@[0]' PNG24:out.png"},
    {0, "II*\0", 4, "a TIFF image", "convert it: magick '@[0]' out.png"},
    {0, "MM\0*", 4, "a TIFF image", "convert it: magick '@[0]' out.png"},
    {4, "ftypavif", 8, "an AVIF image", "convert it: magick @ out.png"},
    {4, "ftyphei", 7, "an HEIC image", "convert it: magick @ out.png"},
    {4, "ftypmif1", 8, "an HEIF image", "convert it: magick @ out.png"},
    {4, "ftyp", 4, "a film (MP4)", NULL},
    {0, "BM", 2, "a BMP image", "convert it: magick @ out.png"},
    {257, "ustar", 5, "a tar archive", "tar -xf @ unpacks it; extract takes one of pictures as it is (in=@)"},
    {0, "<svg", 4, "an SVG drawing", "convert it: rsvg-convert @ -o out.png"},
};

static size_t find(const void *bytes, size_t n) {
    const char *b = bytes;
    size_t i = 0;
    for (; i < sizeof kinds / sizeof *kinds; i++)
        if (n >= kinds[i].at + kinds[i].n && !memcmp(b + kinds[i].at, kinds[i].magic, kinds[i].n)) break;
    return i;
}

const char *filekind_name(const void *bytes, size_t n) {
    size_t i = find(bytes, n);
    return i < sizeof kinds / sizeof *kinds ? kinds[i].what : NULL;
}

/* `how` with the path in place of each '@'; a path with a quote in it is left to the reader. */
static char *with_path(const char *how, const char *path) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f) return NULL;
    for (; *how; how++)
        /* a quote in it would end the argument that the user pastes */
        if (*how == '@') fputs(strpbrk(path, "'\"") ? "FILE" : path, f);
        else fputc(*how, f);
    fclose(f);
    return text;
}

Status filekind_refuse(const char *path, const void *bytes, size_t n, const char *wanted) {
    size_t i = find(bytes, n);
    if (!n) return err_set(ERR_FORMAT, "%s: the file is empty", path);
    if (i == sizeof kinds / sizeof *kinds)
        return err_set(ERR_FORMAT, "%s: is not %s (by its first bytes)", path, wanted);
    char *how = kinds[i].how ? with_path(kinds[i].how, path) : NULL;
    err_set(ERR_FORMAT, "%s: is %s, not %s%s%s", path, kinds[i].what, wanted, how ? "; " : "", how ? how : "");
    free(how);
    return ERR_FORMAT;
}
