# The rules behind the Makefile: how objects, the library, the program and the tests are made.

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(FLAGS_$(notdir $*)) -MMD -MP -c $< -o $@

$(BUILD)/t/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -DGLOSS_FAULT $(FLAGS_$(notdir $*)) -MMD -MP -c $< -o $@

$(BUILD)/%.o: %.S
	@mkdir -p $(@D)
	$(CC) -I. -I$(BUILD)/gen -c $< -o $@

$(BUILD)/libgloss.a: $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/libgloss-test.a: $(TLIB_OBJ)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/gloss: $(CLI_OBJ) $(BUILD)/libgloss.a
	$(CC) $(ALL_CFLAGS) $^ -o $@ $(LDLIBS)

lib: $(BUILD)/libgloss.a

# Unit tests: tests/unit/test_X.c is one cmocka program; tests/kern/*.c is the kernel checker.
UNIT := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))

$(BUILD)/tests/%: tests/unit/%.c $(BUILD)/libgloss-test.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -Itests -DGLOSS_FAULT -MMD -MP $< $(BUILD)/libgloss-test.a -o $@ -lcmocka $(LDLIBS)

unit: $(UNIT)

-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(TLIB_OBJ:.o=.d) $(UNIT:=.d)

deps:
	@scripts/deps.sh build

demo:
	@scripts/deps.sh build
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@scripts/demo.sh $(BUILD)/gloss

test:
	@scripts/deps.sh build test
	@$(MAKE) --no-print-directory -j$$(nproc) all unit kern
	@tests/run.sh $(BUILD)

lint:
	@tests/lint/lint.sh

clean:
	rm -rf $(BUILD)
