# The rules behind the Makefile: how objects, the library, the program and the tests are made.

# A line per file; V=1 shows the commands.
Q := $(if $(V),,@)
say = $(if $(V),:,printf '  %-4s %s\n' $(1) $@)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) $(FLAGS_$(notdir $*)) -MMD -MP -c $< -o $@

$(BUILD)/t/%.o: %.c
	@mkdir -p $(@D)
	@$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -DGLOSS_FAULT $(FLAGS_$(notdir $*)) -MMD -MP -c $< -o $@

$(BUILD)/%.o: %.S
	@mkdir -p $(@D)
	@$(call say,CC)
	$(Q)$(CC) -I. -I$(BUILD)/gen -c $< -o $@

# The assembler's .incbin files are not seen by -MMD.
$(BUILD)/src/model/tiny_data.o: $(wildcard assets/tiny/*)
$(BUILD)/src/serve/openapi_data.o: src/serve/openapi.json
$(BUILD)/src/mlperf/profiles_data.o: src/mlperf/profiles.json

# The compiled-in vocabulary: tables computed here by a program of the building machine.
HOSTCC ?= gcc
$(BUILD)/gen/gen_vocab: scripts/gen_vocab.c src/text/vocab_tab.h
	@mkdir -p $(@D)
	@$(call say,CC)
	$(Q)$(HOSTCC) -std=c17 -O2 $(WARN) $(DEFS) -Isrc $< -o $@

$(BUILD)/gen/text/o200k_blob.h: $(BUILD)/gen/o200k.bin ;
$(BUILD)/gen/o200k.bin: assets/o200k/o200k_base.tiktoken $(BUILD)/gen/gen_vocab
	@mkdir -p $(BUILD)/gen/text
	@$(call say,GEN)
	$(Q)$(BUILD)/gen/gen_vocab $< $@ $(BUILD)/gen/text/o200k_blob.h

$(BUILD)/src/text/vocab.o $(BUILD)/t/src/text/vocab.o: $(BUILD)/gen/text/o200k_blob.h
$(BUILD)/src/text/vocab_blob.o: $(BUILD)/gen/o200k.bin

$(BUILD)/libgloss.a: $(LIB_OBJ)
	@rm -f $@
	@$(call say,AR)
	$(Q)ar rcs $@ $^

$(BUILD)/libgloss-test.a: $(TLIB_OBJ)
	@rm -f $@
	@$(call say,AR)
	$(Q)ar rcs $@ $^

$(BUILD)/gloss: $(CLI_OBJ) $(BUILD)/libgloss.a
	@$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) $^ -o $@ $(CLI_LIBS) $(LDLIBS)

# The programs without the command line, for tests that call into them.
$(BUILD)/libprograms.a: $(filter-out $(BUILD)/src/cli/%,$(CLI_OBJ))
	@rm -f $@
	@$(call say,AR)
	$(Q)ar rcs $@ $^

lib: $(BUILD)/libgloss.a

# libgloss-cuda.so: the kernels for each architecture, the runtime linked in, and what of base and
# model they call; it exports one function.
NVFLAGS = -std=c++17 -O3 -DGLOSS_VERSION='"$(VERSION)"' -D_GNU_SOURCE -Isrc \
          -Xcompiler -fPIC,-fvisibility=hidden,-Wall \
          $(foreach a,$(CUDA_ARCH),-gencode=arch=compute_$(a),code=sm_$(a))
$(BUILD)/cu/%.o: %.cu
	@mkdir -p $(@D)
	@$(call say,NVCC)
	$(Q)$(NVCC) $(NVFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/cu/%.o: %.c
	@mkdir -p $(@D)
	@$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -fPIC -MMD -MP -c $< -o $@

$(BUILD)/libgloss-cuda.so: $(CUDA_OBJ)
	@$(call say,LINK)
	$(Q)$(NVCC) -shared -cudart static -Xlinker --exclude-libs,ALL $^ -o $@

# libgloss-loadgen.so: LoadGen's own sources, as they are, and the shim; it exports one function.
LGFLAGS = -std=c++14 -O2 -fPIC -pthread -fvisibility=hidden -DMAJOR_VERSION=6 -DMINOR_VERSION=0 \
          -I$(LOADGEN)
$(BUILD)/lg/loadgen_shim.o: src/mlperf/loadgen_shim.cc src/mlperf/loadgen_abi.h
	@mkdir -p $(@D)
	@$(call say,CXX)
	$(Q)$(CXX) $(LGFLAGS) -Wall -Wextra -Wno-unused-parameter -isystem $(LOADGEN) -Isrc -c $< -o $@

$(BUILD)/lg/%.o: $(LOADGEN)/%.cc
	@mkdir -p $(@D)
	@$(call say,CXX)
	$(Q)$(CXX) $(LGFLAGS) -w -c $< -o $@

$(BUILD)/libgloss-loadgen.so: $(LOADGEN_OBJ)
	@$(call say,LINK)
	$(Q)$(CXX) -shared -pthread -Wl,--exclude-libs,ALL $^ -o $@

# Unit tests: tests/unit/test_X.c is one cmocka program; tests/kern/*.c is the kernel checker.
UNIT := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))

$(BUILD)/tests/%: tests/unit/%.c $(BUILD)/libprograms.a $(BUILD)/libgloss-test.a
	@mkdir -p $(@D)
	@$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -DGLOSS_FAULT -MMD -MP $^ -o $@ -lcmocka $(CLI_LIBS) $(LDLIBS)

# A stand-in for NVIDIA's management library, for the tests of power readings.
FAKE_NVML := $(BUILD)/tests/fake/libnvidia-ml.so.1
$(FAKE_NVML): tests/fake/nvml.c
	@mkdir -p $(@D)
	@$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -Wno-missing-prototypes -fPIC -shared $< -o $@

unit: $(UNIT) $(FAKE_NVML)

# The kernel checker: every kernel x instruction set against kern_c.c; with --bench, timings.
KERN_TEST := $(wildcard tests/kern/*.c)
$(BUILD)/tests/test_kern: $(KERN_TEST) $(BUILD)/libgloss-test.a
	@mkdir -p $(@D)
	@$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests $^ -o $@ $(LDLIBS)

kern: $(BUILD)/tests/test_kern

# The CUDA backend's checks and timings, for a machine with a card (tests/cuda/README.md). Static
# libraries, so that it runs where only the driver is.
$(BUILD)/tests/cuda_check: tests/cuda/cuda_check.c $(BUILD)/libgloss-test.a
	@mkdir -p $(@D)
	@$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests -MMD -MP $< $(BUILD)/libgloss-test.a -o $@ \
	    -Wl,-Bstatic -ljansson -Wl,-Bdynamic -lm -lpthread

# The same for the card's kernels.
$(BUILD)/tests/kern_card: $(BUILD)/cu/tests/cuda/kern_card.o $(CUDA_OBJ) $(BUILD)/libgloss-test.a
	@mkdir -p $(@D)
	@$(call say,LINK)
	$(Q)$(NVCC) -cudart static $^ -o $@

bench: kern
	$(BUILD)/tests/test_kern --bench

# Drivers: small programs that put one module behind a pipe, for the Python oracles in tests/oracle.
DRIVERS := $(patsubst tests/oracle/%.c,$(BUILD)/drivers/%,$(wildcard tests/oracle/*.c))
$(BUILD)/drivers/%: tests/oracle/%.c $(BUILD)/libprograms.a $(BUILD)/libgloss.a
	@mkdir -p $(@D)
	@$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP $^ -o $@ $(CLI_LIBS) $(LDLIBS)

drivers: $(DRIVERS)

# Fuzz targets: tests/fuzz/fuzz_X.c defines LLVMFuzzerTestOneInput. `make test` replays the committed
# corpus tests/fuzz/corpus/X with a plain driver; `make fuzz` builds them with clang's libFuzzer.
FUZZ_NAMES := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_REPLAY := $(FUZZ_NAMES:%=$(BUILD)/fuzz/%)
$(BUILD)/fuzz/%: tests/fuzz/fuzz_%.c tests/fuzz/replay.c $(BUILD)/libgloss-test.a
	@mkdir -p $(@D)
	@$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -DGLOSS_FAULT -MMD -MP $^ -o $@ $(LDLIBS)

replay: $(FUZZ_REPLAY)

fuzz: $(FUZZ_NAMES:%=build/libfuzzer/%)
build/libfuzzer/%: tests/fuzz/fuzz_%.c $(LIB_SRC) $(LIB_ASM)
	@mkdir -p $(@D)
	$(MAKE) --no-print-directory BUILD=build/clang-asan CC=clang-14 \
	    CFLAGS='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined' lib
	clang-14 -std=c17 -g -O1 $(DEFS) -Isrc -Iinclude -fsanitize=fuzzer,address,undefined \
	    -fno-sanitize-recover=undefined $< \
	    build/clang-asan/libgloss.a -o $@ $(LDLIBS)

-include $(CUDA_OBJ:.o=.d) $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(TLIB_OBJ:.o=.d) $(UNIT:=.d) $(DRIVERS:=.d) $(FUZZ_REPLAY:=.d)

# What the option table writes: man page, completions, and the tables of docs/cli.md.
$(BUILD)/gloss.1: $(BUILD)/gloss
	$< help --as man > $@.tmp
	@mv $@.tmp $@

docs: $(BUILD)/gloss
	@scripts/docs.sh $<

PREFIX  ?= /usr/local
DESTDIR ?=
TO      := $(DESTDIR)$(PREFIX)

install: $(BUILD)/gloss $(BUILD)/libgloss.a $(BUILD)/gloss.1 $(LOADGEN_SO) $(CUDA_SO)
	install -d $(TO)/bin $(TO)/lib $(TO)/include $(TO)/share/man/man1 \
	    $(TO)/share/bash-completion/completions $(TO)/share/zsh/site-functions \
	    $(TO)/share/fish/vendor_completions.d
	install -m 755 $(BUILD)/gloss $(TO)/bin/gloss
	install -m 644 $(BUILD)/libgloss.a $(TO)/lib/libgloss.a
	$(if $(LOADGEN_SO),install -m 644 $(LOADGEN_SO) $(TO)/lib/libgloss-loadgen.so)
	$(if $(CUDA_SO),install -m 644 $(CUDA_SO) $(TO)/lib/libgloss-cuda.so)
	install -m 644 include/gloss.h $(TO)/include/gloss.h
	install -m 644 $(BUILD)/gloss.1 $(TO)/share/man/man1/gloss.1
	$(BUILD)/gloss completion bash > $(TO)/share/bash-completion/completions/gloss
	$(BUILD)/gloss completion zsh > $(TO)/share/zsh/site-functions/_gloss
	$(BUILD)/gloss completion fish > $(TO)/share/fish/vendor_completions.d/gloss.fish

deps:
	@scripts/deps.sh build

demo:
	@scripts/deps.sh build
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@scripts/demo.sh $(BUILD)/gloss

test:
	@scripts/deps.sh build test
	@$(MAKE) --no-print-directory -j$$(nproc) all unit kern drivers replay
	@tests/run.sh $(BUILD)

lint:
	@tests/lint/lint.sh

clean:
	rm -rf $(BUILD)
