/* Headers and whole small checkpoints from memory. The input is a safetensors file; when its header
 * is accepted, every byte of every tensor is read, and the file is tried as the weights of a small
 * model, whose rows are then read too. What a header promises must be there. */
#include "model/weights.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* As tests/fuzz/corpus/safetensors/{hf,original} have it. */
static const char config[] =
    "{\"num_hidden_layers\":1,\"num_local_experts\":2,\"num_experts_per_tok\":1,\"hidden_size\":32,"
    "\"intermediate_size\":32,\"head_dim\":4,\"num_attention_heads\":2,\"num_key_value_heads\":1,"
    "\"vocab_size\":8}";

static volatile float sink; /* keeps the reads */

static void read_weights(const struct weights *w)
{
    float row[64], sum = 0;
    for (int i = 0; i < w->spec.n_vocab; i++) {
        mat_row(&w->embed, i, row);
        sum += row[0];
        mat_row(&w->unembed, i, row);
        sum += row[31];
    }
    for (int e = 0; e < w->spec.n_expert; e++)
        for (int i = 0; i < w->layer[0].gate_up.n_out; i++) {
            expert_row(&w->layer[0].gate_up, e, i, row);
            sum += row[31];
        }
    sink = sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct err e = {0};
    struct st_file *f;
    if (st_open_memory(data, n, "fuzz", &f, &e) < 0) {
        ASSERT(e.code == E_FORMAT || e.code == E_NOMEM);
        ASSERT(e.msg[0]);
        return 0;
    }
    unsigned sum = 0;
    for (int i = 0; i < st_count(f); i++) {
        const struct st_tensor *t = st_at(f, i);
        for (size_t k = 0; k < t->n_bytes; k++)
            sum += t->p[k];
        ASSERT(st_find(f, t->name) == t);
    }
    st_close(f);
    sink = (float)sum;
    struct weights_blob blob = {
        .config = config, .n_config = strlen(config), .tensors = data, .n_tensors = n};
    for (int all = 0; all < 2; all++) {
        struct weights *w;
        if (weights_open_memory(&blob, all, &w, &e) == OK)
            read_weights(w);
        else
            ASSERT(e.code < 0 && e.msg[0]);
        weights_close(w);
    }
    return 0;
}
