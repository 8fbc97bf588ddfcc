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
WEBP     ?= $(call try,-lwebp -lwebpdemux,webp/demux.h)
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
            -Wpointer-arith -Wwrite-strings -Wundef -Wformat=2 -Wvla -Wno-maybe-uninitialized
            # the last: gcc 12 at -O3 sees uses that a status excludes; the sanitizers and clang-tidy watch instead
OPT      := -O3 -march=$(MARCH) -fno-math-errno -fno-trapping-math
CFLAGS   := -std=c11 -D_GNU_SOURCE -I. -g $(OPT) $(OPT_DIST) $(WARN) -fopenmp -MMD -MP
LDLIBS   := -lm -lpthread -lz $(HDF5_L) -lyaml -ljansson -lutf8proc -ljpeg -lpng

ifneq ($(call on,$(DNNL)),)
CFLAGS   += -DHAVE_DNNL
LDLIBS   += -ldnnl
else ifneq ($(call on,$(CBLAS)),)
CFLAGS   += -DHAVE_CBLAS
LDLIBS   += -lopenblas
endif
ifneq ($(call on,$(WEBP)),)
WEBP_DEF := -DHAVE_WEBP
LDLIBS   += -lwebpdemux -lwebp
endif
ifneq ($(call on,$(MPI)),)
CFLAGS   += -DHAVE_MPI
MPI_SYS  := $(patsubst -I%,-isystem %,$(MPI_C))
LDLIBS   += $(MPI_L)
endif

ifeq ($(FLAVOUR),asan)
CFLAGS   += -O1 -fsanitize=address -fno-omit-frame-pointer
LDFLAGS  += -fsanitize=address
else ifeq ($(FLAVOUR),ubsan)
CFLAGS   += -O1 -fsanitize=undefined -fno-sanitize-recover=all
LDFLAGS  += -fsanitize=undefined
else ifeq ($(FLAVOUR),tsan)
CFLAGS   += -O1 -fsanitize=thread
LDFLAGS  += -fsanitize=thread
else ifeq ($(FLAVOUR),fuzz)
CFLAGS   := $(filter-out -fopenmp -Wno-maybe-uninitialized,$(CFLAGS)) -Wno-unknown-pragmas -Wno-unused-variable -Wno-unknown-warning-option -Wno-missing-field-initializers -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
LDFLAGS  += -fsanitize=fuzzer,address,undefined
else ifeq ($(FLAVOUR),cov)
CFLAGS   += -O0 --coverage
LDFLAGS  += --coverage
endif
ifneq ($(FLAVOUR),release)
CFLAGS   += -Wno-format-truncation                           # an opinion that changes with the sanitizer
BIN      := $(B)/qformer
endif

VERSION  := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

# ---- what is built -------------------------------------------------------------------------------------------------
# kernels/cpu is compiled twice, once an element type. CUDA: .cu leaves by nvcc, host code beside them by the C compiler.
# The floors, from the ground up; an include goes down, never up (tests/house.sh).
FLOORS   := kernels configs data checkpoints eval train
SRC      := $(filter-out kernels/cpu/% kernels/cuda/%,$(foreach f,$(FLOORS),$(wildcard $(f)/*.c $(f)/*/*.c)))
CPU_SRC  := $(wildcard kernels/cpu/*.c)
OBJ      := $(SRC:%.c=$(B)/%.o) $(CPU_SRC:%.c=$(B)/%.f32.o) $(CPU_SRC:%.c=$(B)/%.bf16.o)

ifneq ($(and $(call on,$(CUDA)),$(wildcard kernels/cuda/device.c)),)
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(shell readlink -f $(NVCC)))
CUDA_DEF  := -DHAVE_CUDA
# A100; RTX 4090 and L4; H100; B200. They take minutes: while working on a kernel, `make SM=90` builds for that one alone.
# The first one leaves PTX too, which the driver translates for GPUs that are not listed.
SM       ?= 80 89 90 100
GENCODE  := $(if $(filter 1,$(words $(SM))),-arch=sm_$(SM),$(foreach s,$(SM),-gencode arch=compute_$(s),code=sm_$(s)) \
            -gencode arch=compute_$(firstword $(SM)),code=compute_$(firstword $(SM)))
NVFLAGS  := -O3 -std=c++17 -lineinfo -cudart shared -I. --threads 2 -Xcompiler -fPIC,-Wall,-Wextra,-fno-threadsafe-statics,-fno-exceptions,-fno-rtti
# wgmma is of sm_90a alone: the files that use it, other architectures get without.
OTHERS   := $(filter-out 90,$(SM))
GENCODE_A = $(foreach s,$(OTHERS),-gencode arch=compute_$(s),code=sm_$(s)) \
            $(foreach s,$(firstword $(OTHERS)),-gencode arch=compute_$(s),code=compute_$(s)) \
            $(if $(filter 90,$(SM)),-DHAVE_SM90A -gencode 'arch=compute_90a$(COMMA)code=[sm_90a$(COMMA)compute_90a]')
COMMA    := ,
# .cu is compiled alike for all flavours.
CU        := build/cuda
CUDA_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard kernels/cuda/*.c)) $(patsubst %.cu,$(CU)/%.cu.o,$(wildcard kernels/cuda/*.cu))
OBJ      += $(CUDA_OBJ)
LDLIBS   += -L$(CUDA_HOME)/lib64 -Wl,-rpath,$(CUDA_HOME)/lib64 -lcudart -ldl
endif

TESTS    := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/test_*.c))
FUZZERS  := $(patsubst tests/fuzz/%.c,$(B)/bin/%,$(wildcard tests/fuzz/fuzz_*.c))
BENCHES  := $(patsubst tests/bench/%.c,$(B)/bench/%,$(wildcard tests/bench/bench_*.c))
LIB      := $(B)/libqformer.a
KIT      := $(B)/libkit.a

.PHONY: install dist bare fuzz-smoke v3-smoke all count cross demo demo-stage2 cuda-report test golden bench asan ubsan tsan tidy fuzz fuzzers cov clean help found tests-built
.DEFAULT_GOAL := all

all: found $(BIN)

help:
	@echo "make            build build/qformer            make demo    install, build, train on drawn scenes, evaluate"
	@echo "make demo-stage2   a language model that learns to read, then to see, and is asked about scenes"
	@echo "make test       all tests                      make golden  reference fixtures (DIR=..., device=cuda)"
	@echo "make bench      speed against limits           make fuzz    every parser, SECONDS_EACH=60"
	@echo "make asan ubsan tsan cov tidy                  the checking builds"
	@echo "make install    PREFIX=/usr/local DESTDIR=      make dist    a folder that runs and tests itself elsewhere"
	@echo "make bare       that folder in a bare Debian 12 and a bare Ubuntu 24.04, as root"
	@echo "make cross      for aarch64, its kernel and fixture tests under qemu"
	@echo "make count      lines, sizes and directions against what the house allows"

tick = $(if $(call on,$(2)),✓,✗) $(1)$(if $(call on,$(2)),, - $(3))
found:
	@echo "$(call tick,HDF5,$(HDF5),needed: libhdf5-dev)"
	@echo "$(call tick,libyaml,$(YAML),needed: libyaml-dev)    $(call tick,jansson,$(JANSSON),needed: libjansson-dev)"
	@echo "$(call tick,utf8proc,$(UTF8PROC),needed: libutf8proc-dev)   $(call tick,jpeg,$(JPEG),needed: libjpeg-dev)   $(call tick,png,$(PNG),needed: libpng-dev)"
	@echo "$(call tick,oneDNN,$(DNNL),slower without: libdnnl-dev)    $(call tick,MPI,$(MPI),several processes: libopenmpi-dev)    $(call tick,CUDA,$(CUDA),no nvcc: CPU only)    $(call tick,WebP,$(WEBP),no WebP pictures: libwebp-dev)"
	@$(if $(and $(HDF5),$(YAML),$(JANSSON),$(UTF8PROC),$(JPEG),$(PNG)),true,echo "Something needed is missing; 'tests/packages.sh build' installs it or names the line to type." >&2; exit 1)

# Other flags, other objects: a stamp changes when they do. With or without CUDA or WebP, a few files differ.
STAMP    := $(B)/flags
FLAGS    := $(CC) $(CFLAGS)
ifneq ($(FLAGS),$(shell cat $(STAMP) 2>/dev/null))
$(shell mkdir -p $(B) && printf '%s' '$(FLAGS)' > $(STAMP))
endif
ifneq ($(CUDA_DEF)$(WEBP_DEF)x,$(shell cat $(STAMP).cuda 2>/dev/null))
$(shell mkdir -p $(B) && printf '%s' '$(CUDA_DEF)$(WEBP_DEF)x' > $(STAMP).cuda)
endif
ifneq ($(if $(CUDA_DEF),$(NVFLAGS) $(GENCODE)),$(if $(CUDA_DEF),$(shell cat $(CU)/flags 2>/dev/null)))
$(shell mkdir -p $(CU) && printf '%s' '$(NVFLAGS) $(GENCODE)' > $(CU)/flags)
endif

$(BIN): $(B)/qformer.o $(LIB)
	@mkdir -p $(@D)
	@echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS) -fopenmp -o $@ $(B)/qformer.o $(LIB) $(LDLIBS)

$(LIB): $(OBJ)
	@echo "  AR   $@"
	$(Q)rm -f $@ && $(AR) rcs $@ $(OBJ)

# What `make dist` carries once for all its programs.
$(B)/libqformer.so: $(OBJ)
	@echo "  LINK $@"
	$(Q)$(CC) -shared -Wl,-soname,$(@F) $(LDFLAGS) -fopenmp -o $@ $(OBJ) $(LDLIBS)

$(B)/%.o: %.c $(STAMP)
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CC) $(CFLAGS) $(EXTRA) -c $< -o $@

$(B)/kernels/cpu/%.f32.o: kernels/cpu/%.c $(STAMP)
	@mkdir -p $(@D)
	@echo "  CC   $< (f32)"
	$(Q)$(CC) $(CFLAGS) -DELEM_BF16=0 -c $< -o $@

$(B)/kernels/cpu/%.bf16.o: kernels/cpu/%.c $(STAMP)
	@mkdir -p $(@D)
	@echo "  CC   $< (bf16)"
	$(Q)$(CC) $(CFLAGS) -DELEM_BF16=1 -c $< -o $@

WGMMA     := product_act product_group attention_wg
$(WGMMA:%=$(CU)/kernels/cuda/%.cu.o): GENCODE = $(GENCODE_A)
$(CU)/%.cu.o: %.cu $(CU)/flags
	@mkdir -p $(@D)
	@echo "  NVCC $<"
	$(Q)$(NVCC) $(NVFLAGS) $(GENCODE) -MMD -MF $(@:.o=.d) -c $< -o $@

$(B)/data/format/h5.o $(B)/data/format/h5_read.o: EXTRA += $(HDF5_C)
$(B)/data/format/webp.o $(B)/kernels/base/version.o: EXTRA += $(WEBP_DEF)
$(B)/data/format/webp.o $(B)/kernels/base/version.o: $(STAMP).cuda
$(B)/kernels/dist/dist.o: EXTRA += $(MPI_SYS)
$(B)/kernels/base/version.o: EXTRA += -DQFORMER_VERSION='"$(VERSION)"'
$(B)/kernels/backend.o $(B)/kernels/base/version.o: EXTRA += $(CUDA_DEF)
$(B)/kernels/backend.o: $(STAMP).cuda
$(CUDA_OBJ): EXTRA += $(CUDA_DEF) -isystem $(CUDA_HOME)/include

KIT_OBJ  := $(patsubst %.c,$(B)/%.o,$(wildcard tests/kit/*.c))
$(KIT_OBJ): EXTRA += $(HDF5_C)
$(KIT): $(KIT_OBJ)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(B)/tests/test_pictures: private EXTRA += $(WEBP_DEF)
$(B)/tests/%: tests/%.c $(KIT) $(LIB)
	@mkdir -p $(@D)
	@echo "  TEST $@"
	$(Q)$(CC) $(CFLAGS) $(EXTRA) $(HDF5_C) $(LDFLAGS) -o $@ $< $(KIT) $(LIB) -lcmocka $(LDLIBS)

$(B)/golden: $(wildcard tests/gold*.c) $(KIT) $(LIB) tests/gold.h
	@mkdir -p $(@D)
	@echo "  TEST $@"
	$(Q)$(CC) $(filter-out -MMD -MP,$(CFLAGS)) $(LDFLAGS) -o $@ $(filter %.c,$^) $(KIT) $(LIB) $(LDLIBS)

fuzzers: $(FUZZERS)
$(B)/bin/%: tests/fuzz/%.c $(KIT) $(LIB)
	@mkdir -p $(@D)
	@echo "  FUZZ $@"
	$(Q)$(CC) $(CFLAGS) $(HDF5_C) $(LDFLAGS) -Wno-missing-prototypes -o $@ $< $(KIT) $(LIB) -lcmocka $(LDLIBS)

# io_uring is measured where its library is, and used nowhere (tests/bench/RESULTS.md).
URING     = $(call try,-luring,liburing.h)
$(B)/bench/bench_disk: private EXTRA += $(if $(URING),-DHAVE_URING)
$(B)/bench/bench_disk: private LDLIBS += $(if $(URING),-luring)
$(B)/bench/bench_products: private EXTRA += $(CUDA_DEF) $(if $(CUDA_DEF),-isystem $(CUDA_HOME)/include)
$(B)/bench/%: tests/bench/%.c $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(EXTRA) $(HDF5_C) $(LDFLAGS) -o $@ $< $(LIB) $(LDLIBS)

# ---- what a person types ---------------------------------------------------------------------------------------------
# The probes above ran before packages were installed, so what needs them is a second make.
AGAIN     = +@$(MAKE) --no-print-directory -j$(JOBS)
JOBS     ?= $(shell nproc)

# The demo wants CUDA only where it can run: nvcc alone would add minutes to a first look.
GPU       := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -c GPU)
RUN       := run/demo
demo:
	@tests/packages.sh build
	$(AGAIN) $(if $(filter-out 0,$(GPU)),,CUDA=0) all
	@mkdir -p $(RUN)
	@test -e $(RUN)/scenes.h5 || $(BIN) synth configs/demo.yaml out=$(RUN)/scenes.h5
	@test -e $(RUN)/vocab.txt || $(BIN) vocab configs/demo.yaml in=$(RUN)/scenes.h5 out=$(RUN)/vocab.txt
	@$(BIN) pretrain configs/demo.yaml
	@$(BIN) retrieval configs/demo.yaml in=$(RUN) out=$(RUN) overwrite=true
	@$(BIN) caption configs/demo.yaml in=$(RUN) out=$(RUN)/captions.json overwrite=true
	@$(BIN) report configs/demo.yaml in=$(RUN) out=$(RUN)/report.html overwrite=true

# Each step goes on where it was stopped; the language model stays once it is there.
RUN2      := run/demo-stage2
demo-stage2:
	@tests/packages.sh build
	$(AGAIN) $(if $(filter-out 0,$(GPU)),,CUDA=0) all
	@mkdir -p $(RUN2)
	@test -e $(RUN2)/scenes.h5 || $(BIN) synth configs/demo-lm.yaml out=$(RUN2)/scenes.h5
	@test -e $(RUN2)/vocab.txt || $(BIN) vocab configs/demo-lm.yaml in=$(RUN2)/scenes.h5 out=$(RUN2)/vocab.txt
	@echo; echo "1. A language model learns to read (texts alone)"
	@$(BIN) pretrain configs/demo-lm.yaml
	@test -e $(RUN2)/lm/config.json || $(BIN) export in=$(RUN2)/reader out=$(RUN2)/lm
	@echo; echo "2. Frozen from here on, it is shown pictures"
	@$(BIN) pretrain configs/demo-stage2.yaml
	@echo; echo "3. Questions about scenes that neither has seen"
	@$(BIN) ask configs/demo-stage2.yaml in=$(RUN2) out=$(RUN2)/answers.json overwrite=true
	@$(BIN) report configs/demo-stage2.yaml in=$(RUN2) out=$(RUN2)/report.html overwrite=true

test:
	@tests/packages.sh test
	$(AGAIN) tests-built
	$(AGAIN) fuzz-smoke
	$(AGAIN) v3-smoke
	@tests/run.sh $(B)

tests-built: found $(BIN) $(TESTS) $(B)/golden $(if $(CUDA_OBJ),$(B)/bench/bench_cuda $(B)/bench/bench_step)

# Where clang and its runtime are: every parser is fuzzed for a moment by the tests too.
CLANG     := $(shell printf 'int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n){return d[0]==(unsigned char)n;}\n' | \
               clang -x c - -fsanitize=fuzzer,address,undefined -o /dev/null >/dev/null 2>&1 && echo yes)
fuzz-smoke:
	$(if $(CLANG),+@$(MAKE) --no-print-directory -j$(JOBS) -s $(FUZZED) fuzzers,@echo "no clang: the parsers are not fuzzed")

# A CPU with AVX-512 also computes as those without it do: other loops of ours, other products of oneDNN, so other roundings.
V3_TESTS  := test_ops test_beam test_train
v3-smoke:
ifneq ($(shell grep -ow -m1 avx512bw /proc/cpuinfo 2>/dev/null),)
	+@$(MAKE) --no-print-directory -s FLAVOUR=v3 MARCH=x86-64-v3 CUDA=0 build/v3/golden $(V3_TESTS:%=build/v3/tests/%)
	@echo "as x86-64-v3:"
	@ONEDNN_MAX_CPU_ISA=AVX2 tests/run.sh build/v3 $(V3_TESTS) golden
endif

DIR       ?= $(firstword $(wildcard ../shared/golden) tests/golden)
device    ?= cpu
precision ?= f32
golden: $(B)/golden
	@OMP_WAIT_POLICY=passive $(if $(filter cuda,$(device)),$(VGPU)) $(B)/golden $(DIR) device=$(device) precision=$(precision)

# On a machine without a GPU, CUDA programs run on the CPU through vgpu when it lies beside the clone.
VGPU      := $(if $(shell command -v nvidia-smi 2>/dev/null),,$(wildcard ../shared/vgpu/bin/vgpu-run))

asan ubsan tsan:
	@tests/packages.sh test
	$(AGAIN) FLAVOUR=$@ CUDA=0 tests-built
	@QFORMER_BIN=build/$@/qformer ASAN_OPTIONS=detect_leaks=1:fast_unwind_on_malloc=0:allocator_may_return_null=1 TSAN_OPTIONS=allocator_may_return_null=1:suppressions=$(CURDIR)/tests/tsan.supp LSAN_OPTIONS=suppressions=$(CURDIR)/tests/lsan.supp:print_suppressions=0 tests/run.sh build/$@

cov:
	@tests/packages.sh test
	$(AGAIN) FLAVOUR=cov CUDA=0 tests-built
	@QFORMER_BIN=build/cov/qformer tests/run.sh build/cov
	@gcov -r -o build/cov $$(find build/cov -name '*.gcno') 2>/dev/null | awk '/^File/ {f = $$2} /^Lines/ {print $$0, f}' | grep -v usr | sort -t: -k2 -n | head -40; rm -f *.gcov

tidy:
	clang-tidy --quiet --checks='-clang-analyzer-security.insecureAPI.*,-clang-analyzer-valist.*' $(SRC) $(CPU_SRC) qformer.c -- -std=c11 -D_GNU_SOURCE -I. -DELEM_BF16=0 $(HDF5_C) $(MPI_SYS)

SECONDS_EACH ?= 60
FUZZED    := FLAVOUR=fuzz CC=clang CUDA=0 DNNL=0 CBLAS=0
fuzz:
	@tests/packages.sh fuzz
	$(AGAIN) $(FUZZED) fuzzers
	@tests/fuzz.sh build/fuzz/bin $(SECONDS_EACH)

bench: found $(BENCHES)
	@for b in step; do for a in "full f32" "full bf16" "demo f32" "demo bf16"; do $(B)/bench/bench_$$b $$a; done; done
	@for b in $(filter-out %/bench_step,$(BENCHES)); do echo "== $$(basename $$b)"; $$b || exit 1; done

count: all
	@tests/house.sh $(B)

cross:
	@tests/cross.sh

# The program, its manual and what shells complete, from the tables that are in it.
PREFIX  ?= /usr/local
TO       = $(DESTDIR)$(PREFIX)
install: all
	install -Dm755 $(BIN) $(TO)/bin/qformer
	install -d $(TO)/share/man/man1 $(TO)/share/qformer/configs $(TO)/share/doc/qformer
	$(BIN) --man > $(TO)/share/man/man1/qformer.1
	install -d $(TO)/share/bash-completion/completions $(TO)/share/zsh/site-functions $(TO)/share/fish/vendor_completions.d
	$(BIN) --completion bash > $(TO)/share/bash-completion/completions/qformer
	$(BIN) --completion zsh > $(TO)/share/zsh/site-functions/_qformer
	$(BIN) --completion fish > $(TO)/share/fish/vendor_completions.d/qformer.fish
	install -m644 configs/*.yaml $(TO)/share/qformer/configs
	install -m644 README.md LICENSE $(TO)/share/doc/qformer

# One folder and tarball for any Linux with the glibc of Debian 12 or newer: see tests/dist.sh. One process: MPI's libraries
# only work where they were installed.
DIST    := B=build/dist-obj BIN=build/dist-obj/qformer LIB=build/dist-obj/libqformer.so MARCH=x86-64-v3 MPI=0 OPT_DIST=-fPIC
dist:
	@tests/packages.sh dist
	$(AGAIN) $(DIST) build/dist-obj/qformer tests-built $(patsubst %,build/dist-obj/bench/bench_%,roofline products stage2 vit)
	@tests/dist.sh build/dist-obj $(VERSION)

# That folder in a bare Debian 12 and a bare Ubuntu 24.04; root only.
bare:
	@tests/packages.sh bare
	@tests/bare.sh

cuda-report:
	@tests/bench/cuda_report.sh

clean:
	rm -rf build

-include $(OBJ:.o=.d) $(KIT_OBJ:.o=.d) $(B)/qformer.d $(TESTS:=.d) $(BENCHES:=.d)
