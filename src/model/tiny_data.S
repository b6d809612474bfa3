/* assets/tiny as read-only data; the names are declared in tiny.h. */
    .section .rodata, "a"

    .macro file name, path
    .balign 64
    .globl \name
    .hidden \name
\name:
    .incbin "\path"
    .globl \name\()_end
    .hidden \name\()_end
\name\()_end:
    .byte 0
    .endm

    file tiny_config, "assets/tiny/config.json"
    file tiny_generation, "assets/tiny/generation_config.json"
    file tiny_tokenizer, "assets/tiny/tokenizer.json"
    file tiny_tensors, "assets/tiny/model.safetensors"

    .section .note.GNU-stack, "", %progbits
