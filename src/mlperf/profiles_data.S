/* The prompts of the data sets, as they are in profiles.json. */
    .section .rodata
    .global mlperf_profiles
    .global mlperf_profiles_end
    .hidden mlperf_profiles
    .hidden mlperf_profiles_end
mlperf_profiles:
    .incbin "src/mlperf/profiles.json"
mlperf_profiles_end:
    .byte 0
    .section .note.GNU-stack,"",%progbits
