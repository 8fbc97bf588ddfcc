# qformer. `make demo` is all a newcomer types; `make help` lists the rest. Objects go to build/<flavour>/.
#
# A library is found by linking three lines against it, not by asking a package manager. Any of them can be switched
# off: make MPI=0 DNNL=0 CUDA=0. V=1 shows whole command lines.

SHELL    := /bin/bash
CC       ?= cc
MARCH    ?= native
FLAVOUR  ?= release
B        := build/$(FLAVOUR)
BIN      := build/qformer
Q        := $(if $(V),,@)

# ---- what is there -------------------------------------------------------------------------------------------------
H   := \#
try  = $(shell printf '$(H)include <$(2)>\nint main(void){return 0;}\n' | \
               $(CC) -x c - $(3) -o /dev/null $(1) >/dev/null 2>&1 && echo yes)

HDF5_C   := $(if $(call try,-lhdf5,hdf5.h),,-I/usr/include/hdf5/serial)
HDF5_L   := $(if $(HDF5_C),-lhdf5_serial,-lhdf5)
HDF5     := $(call try,$(HDF5_L),hdf5.h,$(HDF5_C))
YAML     := $(call try,-lyaml,yaml.h)
JANSSON  := $(call try,-ljansson,jansson.h)
UTF8PROC := $(call try,-lutf8proc,utf8proc.h)
JPEG     := $(shell printf '$(H)include <stdio.h>\n$(H)include <jpeglib.h>\nint main(void){return 0;}\n' | \
               $(CC) -x c - -o /dev/null -ljpeg >/dev/null 2>&1 && echo yes)
PNG      := $(call try,-lpng,png.h)
CMOCKA   := $(shell printf '$(H)include <stdarg.h>\n$(H)include <stddef.h>\n$(H)include <setjmp.h>\n$(H)include <stdint.h>\n$(H)include <cmocka.h>\nint main(void){return 0;}\n' | \
               $(CC) -x c - -o /dev/null -lcmocka >/dev/null 2>&1 && echo yes)
DNNL     ?= $(call try,-ldnnl,dnnl.h)
CBLAS    ?= $(call try,-lopenblas,cblas.h)
MPI_C    := $(shell mpicc --showme:compile 2>/dev/null || pkg-config --cflags ompi-c 2>/dev/null)
MPI_L    := $(shell mpicc --showme:link 2>/dev/null || pkg-config --libs ompi-c 2>/dev/null)
MPI      ?= $(call try,$(MPI_L),mpi.h,$(MPI_C))
NVCC     ?= $(shell command -v nvcc 2>/dev/null || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
CUDA     ?= $(if $(NVCC),yes)

on = $(filter-out 0 no,$(strip $(1)))

# ---- flags ---------------------------------------------------------------------------------------------------------
WARN     := -Wall -Wextra -Werror -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
            -Wpointer-arith -Wwrite-strings -Wundef -Wformat=2 -Wvla
OPT      := -O3 -march=$(MARCH) -fno-math-errno -fno-trapping-math
CFLAGS   := -std=c11 -D_GNU_SOURCE -I. -g $(OPT) $(WARN) -fopenmp -MMD -MP
LDLIBS   := -lm -lpthread -lz $(HDF5_L) -lyaml -ljansson -lutf8proc -ljpeg -lpng
