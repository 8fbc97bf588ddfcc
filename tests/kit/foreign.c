/* foreign: see foreign.h. */
#include "tests/kit/foreign.h"

#include <hdf5.h>

#include "tests/kit/check.h"

void foreign_layout(const char *path, hsize_t rows, hsize_t tokens, bool deflate) {
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), old = H5Dopen2(file, "/images/features", H5P_DEFAULT);
    hid_t space = H5Dget_space(old), type = H5Dget_type(old), list = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t chunk[3] = {rows, tokens, FIX_E};
    static char all[1 << 16];
    assert_true(H5Dread(old, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all) >= 0);
    H5Pset_chunk(list, 3, chunk);
    if (deflate) H5Pset_deflate(list, 4);
    H5Dclose(old);
    H5Ldelete(file, "/images/features", H5P_DEFAULT);
    hid_t ds = H5Dcreate2(file, "/images/features", type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(H5Dwrite(ds, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all) >= 0);
    H5Dclose(ds);
    H5Pclose(list);
    H5Tclose(type);
    H5Sclose(space);
    H5Fclose(file);
}
