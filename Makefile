# gloss: plain make. `make help` lists the targets.
#
# CC, CFLAGS, BUILD may be set; SAN=asan|ubsan|tsan builds into a folder of its own.

CC      ?= gcc
SAN     ?=
BUILD   ?= build$(if $(SAN),/$(SAN))
VERSION := 0.1.0

ARCH := $(shell uname -m)
WARN := -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla \
        -Wno-missing-field-initializers
OPT  := -O2
DEFS := -D_GNU_SOURCE -DGLOSS_VERSION='"$(VERSION)"'
ifneq ($(SAN),)
  SANFLAGS_asan  := -fsanitize=address,undefined -fno-sanitize-recover=undefined
  SANFLAGS_ubsan := -fsanitize=undefined -fno-sanitize-recover=undefined
  SANFLAGS_tsan  := -fsanitize=thread
  SANFLAGS := $(SANFLAGS_$(SAN))
  OPT := -O1 -g -fno-omit-frame-pointer
endif
ALL_CFLAGS = -std=c17 $(OPT) -g $(WARN) $(DEFS) -fvisibility=hidden -fno-math-errno -pthread \
             $(SANFLAGS) -Isrc -Iinclude -I$(BUILD)/gen $(CFLAGS)
# Linked in where the system has the static library, so that the program also runs where these
# packages are missing or older. GnuTLS and curl stay shared: they get the system's security updates.
linked   = $(if $(findstring /,$(shell $(CC) -print-file-name=lib$(1).a)),-l:lib$(1).a,-l$(1))
JANSSON  := $(call linked,jansson)
LDLIBS   := $(JANSSON) -lm -lpthread
# What the program needs beyond the library: server and client.
CLI_LIBS := $(call linked,microhttpd) $(call linked,sqlite3) -lgnutls -lcurl $(call linked,pcre2-8) \
            $(call linked,yaml) $(call linked,zstd)

# One file per instruction set; only that file gets its flags.
KERN_x86_64  := kern_avx2 kern_avxvnni kern_avx512 kern_amx
KERN_aarch64 := kern_neon kern_dotprod kern_i8mm
FLAGS_kern_avx2   := -O3 -mavx2 -mfma -mf16c
FLAGS_kern_avx512 := -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vbmi -mavx512vnni \
                     -mavx512bf16 -mfma -mf16c
FLAGS_kern_amx     := $(FLAGS_kern_avx512) -mamx-tile -mamx-bf16 -mamx-int8
FLAGS_kern_avxvnni := -O3 -mavx2 -mfma -mf16c -mavxvnni
FLAGS_kern_neon    := -O3 -march=armv8-a
FLAGS_kern_dotprod := -O3 -march=armv8.2-a+dotprod
FLAGS_kern_i8mm    := -O3 -march=armv8.2-a+i8mm
# Sampling's loops over the vocabulary are written for the vectoriser. No fused operations: every
# instruction set has the same results.
PASS := $(if $(filter x86_64,$(ARCH)),pass_avx2,pass_plain)
FLAGS_pass      := -O3 -fno-trapping-math -ffp-contract=off
FLAGS_pass_avx2 := $(FLAGS_pass) -mavx2
FLAGS_sample    := -O3 -fno-trapping-math
FLAGS_mask      := -O3

# The layers above the library: everything the program has beyond libgloss.
PROGRAMS := cli serve remote eval bench mlperf
LIB_SRC  := $(filter-out src/cpu/kern_%.c src/engine/pass_%.c,$(wildcard src/base/*.c src/text/*.c src/model/*.c \
              src/ref/*.c src/cpu/*.c src/cuda/*.c src/engine/*.c src/*.c)) \
            src/cpu/kern_c.c $(KERN_$(ARCH):%=src/cpu/%.c) src/engine/$(PASS).c
LIB_ASM  := $(filter-out src/serve/% src/mlperf/%,$(wildcard src/*/*.S))
CLI_SRC  := $(wildcard $(PROGRAMS:%=src/%/*.c))
CLI_ASM  := src/serve/openapi_data.S src/mlperf/profiles_data.S
LIB_OBJ  := $(LIB_SRC:%.c=$(BUILD)/%.o) $(LIB_ASM:%.S=$(BUILD)/%.o)
CLI_OBJ  := $(CLI_SRC:%.c=$(BUILD)/%.o) $(CLI_ASM:%.S=$(BUILD)/%.o)

# The test build: the same sources with the fault hooks of src/base/mem.h.
TLIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/t/%.o) $(LIB_ASM:%.S=$(BUILD)/%.o)

# The CUDA backend, a library of its own opened at run time: make CUDA=1 (any machine with nvcc).
CUDA     ?=
NVCC     ?= nvcc
CUDA_ARCH ?= 80 89 90a 100 120
CUDA_SRC := $(wildcard src/cuda/*.cu)
CUDA_SO  := $(if $(CUDA),$(BUILD)/libgloss-cuda.so)
CUDA_C   := src/base/err.c src/base/mem.c src/base/num.c src/model/rope.c src/model/batch.c
CUDA_OBJ := $(CUDA_SRC:%.cu=$(BUILD)/cu/%.o) $(CUDA_C:%.c=$(BUILD)/cu/%.o)

# MLCommons LoadGen, a library of its own too: built where scripts/deps.sh mlperf put its sources.
CXX      ?= g++
LOADGEN  := build/loadgen
LOADGEN_CC := early_stopping issue_query_controller loadgen logging test_settings_internal utils version \
              results generated/version_generated
LOADGEN_OBJ := $(LOADGEN_CC:%=$(BUILD)/lg/%.o) $(BUILD)/lg/loadgen_shim.o
LOADGEN_SO := $(if $(SAN),,$(if $(wildcard $(LOADGEN)/loadgen.cc),$(BUILD)/libgloss-loadgen.so))

.PHONY: all demo test unit kern drivers replay lib lint bench docs install clean help deps fuzz
all: $(BUILD)/gloss $(CUDA_SO) $(LOADGEN_SO)

help:
	@echo 'make            build $(BUILD)/gloss'
	@echo 'make demo       install what is missing, build, ask the built-in model a question'
	@echo 'make test       install what is missing, build, run every test (no network but packages)'
	@echo 'make CUDA=1     the CUDA backend too, $(BUILD)/libgloss-cuda.so (nvcc 12.8 or newer)'
	@echo 'make lib        libgloss.a alone: libc, pthreads and jansson'
	@echo 'make lint       layer rule, format, banned calls'
	@echo 'make bench      kernel timings'
	@echo 'make fuzz       fuzz targets (clang)'
	@echo 'make docs       the tables of docs/cli.md, from the option table'
	@echo 'make install    program, library, header, man page under PREFIX (/usr/local)'

include scripts/rules.mk
