/* The description of the HTTP interface, as it is in openapi.json. */
    .section .rodata
    .global serve_openapi
    .global serve_openapi_end
    .hidden serve_openapi
    .hidden serve_openapi_end
serve_openapi:
    .incbin "src/serve/openapi.json"
serve_openapi_end:
    .byte 0
    .section .note.GNU-stack,"",%progbits
