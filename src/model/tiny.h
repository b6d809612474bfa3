/* The compiled-in demonstration checkpoint (assets/tiny), as its files. */
#ifndef MODEL_TINY_H
#define MODEL_TINY_H

#include <stdint.h>

extern const char tiny_config[], tiny_config_end[];
extern const char tiny_generation[], tiny_generation_end[];
extern const char tiny_tokenizer[], tiny_tokenizer_end[];
extern const uint8_t tiny_tensors[], tiny_tensors_end[];

#endif
