/* The compiled-in vocabulary: tables made by scripts/gen_vocab.c, laid out in o200k_blob.h. */
    .section .rodata
    .balign 64
    .globl o200k_blob
    .hidden o200k_blob
    .type o200k_blob, %object
o200k_blob:
    .incbin "o200k.bin"
    .size o200k_blob, . - o200k_blob
    .section .note.GNU-stack, "", %progbits
