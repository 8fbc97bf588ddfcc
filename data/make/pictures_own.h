/* pictures_own: what pictures.c, which finds pictures, and pictures_list.c, which lists them, share.
 * Nobody else includes it. */
#pragma once
#include "data/format/tar.h"
#include "data/make/pictures.h"
#include "kernels/base/strmap.h"

/* A folder or an archive. */
typedef struct {
    char *path;
    Tar *tar;                      /* NULL: a folder */
    bool folder;                   /* else one picture, which is its own name */
    char *stem;                    /* of an archive's name: "00000" of "cc3m/00000.tar" */
} PicturesPlace;

/* A member of an archive that is a picture, or lies beside one. */
typedef struct { char *name; const PicturesPlace *place; const TarMember *m; } PicturesMember;

struct Pictures {
    PicturesPlace *place;                  /* (places) */
    int64_t places, folders, tars;
    PicturesMember *member;                /* (members) */
    int64_t members;
    bool prefixed;                 /* member names have the archive's name in front */
    StrMap by_name;                /* of members */
};
