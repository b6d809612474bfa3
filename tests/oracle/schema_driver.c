/* Schemas, patterns, masks and turns behind a pipe: one JSON object per line in, one out, for
 * schema_check.py.
 *
 *   {"op":"tiny","path":FILE}                 that tokenizer.json from now on -> {}
 *   {"op":"schema","schema":TEXT} | {"op":"object"} | {"op":"regex","pattern":S} |
 *   {"op":"choice","list":[S,..]}             compile and start -> {"us":N,"states":N} or
 *                                             {"error":S,"param":S,"code":N}
 *   {"op":"walk","seed":N,"max":N}            random tokens among the allowed ones, inclined to
 *                                             finish -> {"done":B,"hex":TEXT,"n":N}
 *   {"op":"accepts","hex":TEXT,"bytes":B}     its tokens (or single bytes) from the start
 *                                             -> {"ok":B,"at":N}
 *   {"op":"mask","ids":[..]}                  mask after these -> {"mask":HEX words,"end":B}
 *   {"op":"turn","tools":[[NAME,SCHEMA|null,BUILTIN],..],"final":SCHEMA|null,"must_call":B,
 *    "no_analysis":B}                         -> {} or {"error":..}; then
 *   {"op":"turn_walk","seed":N,"max":N,"stop":B}  random tokens of a turn -> {"ids":[..],"done":B};
 *                                             stop: no analysis after the first one
 *   {"op":"stats"}                            -> {"masks":N,"us":[mean,p50,p99,max],..}
 */
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/gcache.h"
#include "engine/mask.h"
#include "engine/schema.h"
#include "engine/turn.h"
#include "text/o200k.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_TIMES = 1 << 20 };

static const struct vocab *vocab;
static struct masker *masker;
static struct gcache *cache;
static struct matcher *matcher;
static struct turn *turn;
static uint32_t *bits;
static float *times; /* [n_times] us of each mask */
static size_t n_times;

static void use_vocab(const struct vocab *v, int n_id)
{
    struct err e = {0};
    turn_free(turn);
    turn = NULL;
    matcher_free(matcher);
    matcher = NULL;
    gcache_free(cache);
    masker_free(masker);
    mem_free(bits);
    vocab = v;
    if (masker_new(v, n_id, &masker, &e) < 0 ||
        gcache_new(masker_prelude(masker), 16 << 20, &cache) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    bits = mem_calloc(masker_words(masker), sizeof *bits);
    if (!bits)
        exit(1);
}

/* Time of this thread alone: the machine may be busy. */
static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void mask(void)
{
    uint64_t t = cpu_ns();
    matcher_mask(matcher, bits);
    if (n_times < MAX_TIMES)
        times[n_times++] = (float)(cpu_ns() - t) / 1000;
}

static void put_error(struct buf *out, const struct err *e)
{
    buf_puts(out, "{\"error\":");
    json_quote(out, e->msg, strlen(e->msg));
    buf_puts(out, ",\"param\":");
    json_quote(out, e->param, strlen(e->param));
    buf_printf(out, ",\"code\":%d}", e->code);
}

static void compile(const struct json *q, const char *op, struct buf *out)
{
    struct err e = {0};
    struct grammar *g = NULL;
    const struct prelude *p = masker_prelude(masker);
    size_t n;
    uint64_t t = cpu_ns();
    status st;
    if (!strcmp(op, "schema")) {
        const char *s = json_str(json_get(q, "schema"), &n);
        st = gcache_get(cache, GRAMMAR_SCHEMA, s, n, &g, &e);
    } else if (!strcmp(op, "object")) {
        st = schema_any_object(p, &g, &e);
    } else if (!strcmp(op, "regex")) {
        const char *s = json_str(json_get(q, "pattern"), &n);
        st = schema_regex(p, s, n, &g, &e);
    } else {
        const struct json *l = json_get(q, "list");
        const char **s = mem_array(json_len(l) + 1, sizeof *s);
        size_t *len = mem_array(json_len(l) + 1, sizeof *len);
        if (!s || !len)
            exit(1);
        for (size_t i = 0; i < json_len(l); i++)
            s[i] = json_str(json_at(l, i), &len[i]);
        st = schema_choice(p, s, len, json_len(l), &g, &e);
        mem_free(s);
        mem_free(len);
    }
    t = cpu_ns() - t;
    matcher_free(matcher);
    matcher = NULL;
    if (st < 0) {
        e.code = st;
        put_error(out, &e);
        return;
    }
    uint32_t states = g->n;
    if (matcher_new(masker, g, &matcher) < 0)
        exit(1);
    grammar_unref(g);
    buf_printf(out, "{\"us\":%llu,\"states\":%u}", (unsigned long long)t / 1000, states);
}

static void put_hex(struct buf *out, const struct buf *text)
{
    for (size_t i = 0; i < text->n; i++)
        buf_printf(out, "%02x", (unsigned char)text->p[i]);
}

static bool allowed(int id)
{
    return id >= 0 && bits[id >> 5] >> (id & 31) & 1;
}

/* The k-th allowed token. */
static int nth(uint64_t k)
{
    for (size_t w = 0; w < masker_words(masker); w++) {
        uint64_t n = (uint64_t)__builtin_popcount(bits[w]);
        if (k >= n) {
            k -= n;
            continue;
        }
        for (int b = 0;; b++)
            if (bits[w] >> b & 1 && k-- == 0)
                return (int)(w * 32) + b;
    }
    return -1;
}

static void walk(const struct json *q, struct buf *out)
{
    uint64_t seed = (uint64_t)json_int(json_get(q, "seed"));
    int max = (int)json_int(json_get(q, "max")), n = 0;
    static const char closers[] = "\"}],:0Z-.@"; /* what tends to end something */
    struct buf text;
    bool done = false;
    buf_init(&text, 1 << 22);
    matcher_reset(matcher);
    for (; n < max; n++) {
        double u = rng_uniform(seed, 1, (uint64_t)n), v = rng_uniform(seed, 2, (uint64_t)n);
        bool hurry = n > max / 8;
        if (matcher_can_end(matcher) && (hurry || u < 0.3)) {
            done = true;
            break;
        }
        mask();
        int id = -1;
        uint64_t total = 0;
        for (size_t w = 0; w < masker_words(masker); w++)
            total += (uint64_t)__builtin_popcount(bits[w]);
        if (!total) {
            done = matcher_can_end(matcher);
            break;
        }
        if (u < 0.5 || (hurry && u < 0.9))
            for (const char *c = closers; *c && id < 0; c++) {
                int t = vocab_find(vocab, (const uint8_t *)c, 1);
                if (allowed(t) && (hurry || v < 0.6))
                    id = t;
            }
        if (id < 0)
            id = nth((uint64_t)(v * (double)total));
        if (!matcher_allows(matcher, id) || matcher_accept(matcher, id) < 0) {
            buf_clear(&text);
            buf_printf(&text, "masked-in token %d refused", id);
            break;
        }
        size_t len;
        const uint8_t *s = vocab_bytes(vocab, id, &len);
        buf_put(&text, s, len);
    }
    buf_printf(out, "{\"done\":%s,\"n\":%d,\"hex\":\"", done ? "true" : "false", n);
    put_hex(out, &text);
    buf_puts(out, "\"}");
    buf_fini(&text);
}

static void unhex(const struct json *j, struct buf *text)
{
    size_t n;
    const char *s = json_str(j, &n);
    for (size_t i = 0; i + 1 < n; i += 2) {
        unsigned v = 0;
        sscanf(s + i, "%2x", &v);
        buf_putc(text, (char)v);
    }
}

static void accepts(const struct json *q, struct buf *out)
{
    struct buf text;
    struct ids ids;
    struct err e = {0};
    size_t i;
    bool ok = true;
    buf_init(&text, 1 << 22);
    ids_init(&ids, 1 << 22);
    unhex(json_get(q, "hex"), &text);
    if (json_kind(json_get(q, "bytes")) == J_TRUE) {
        for (i = 0; i < text.n; i++)
            ids_put(&ids, vocab_find(vocab, (const uint8_t *)text.p + i, 1));
    } else if (o200k_encode(vocab, text.p, text.n, SPECIAL_TEXT, &ids, &e) < 0) {
        exit(1);
    }
    matcher_reset(matcher);
    for (i = 0; i < ids.n; i++) {
        mask();
        bool in = allowed(ids.v[i]);
        if (in != matcher_allows(matcher, ids.v[i])) {
            fprintf(stderr, "mask and accept disagree on token %d\n", ids.v[i]);
            exit(1);
        }
        if (matcher_accept(matcher, ids.v[i]) < 0) {
            ok = false;
            break;
        }
    }
    ok = ok && matcher_can_end(matcher);
    buf_printf(out, "{\"ok\":%s,\"at\":%zu}", ok ? "true" : "false", i);
    ids_fini(&ids);
    buf_fini(&text);
}

static void one_mask(const struct json *q, struct buf *out)
{
    const struct json *ids = json_get(q, "ids");
    matcher_reset(matcher);
    for (size_t i = 0; i < json_len(ids); i++)
        if (matcher_accept(matcher, (int32_t)json_int(json_at(ids, i))) < 0) {
            buf_printf(out, "{\"refused\":%zu}", i);
            return;
        }
    mask();
    buf_puts(out, "{\"mask\":\"");
    for (size_t w = 0; w < masker_words(masker); w++)
        buf_printf(out, "%08x", bits[w]);
    buf_printf(out, "\",\"end\":%s}", matcher_can_end(matcher) ? "true" : "false");
}

static struct grammar *grammar_of(const struct json *text, struct err *e)
{
    struct grammar *g = NULL;
    struct json *j = NULL;
    size_t n;
    if (json_absent(text))
        return NULL;
    const char *s = json_str(text, &n);
    status st = json_parse(s, n, &schema_json_limits, &j, e);
    if (st == OK)
        st = schema_compile(masker_prelude(masker), j, &g, e);
    json_free(j);
    e->code = st;
    return g;
}

static void new_turn(const struct json *q, struct buf *out)
{
    struct err e = {0};
    const struct json *l = json_get(q, "tools");
    struct turn_tool tool[64] = {{{0}}};
    struct turn_spec spec = {.tool = tool, .n_tool = (int)json_len(l)};
    turn_free(turn);
    turn = NULL;
    for (int i = 0; i < spec.n_tool && i < 64; i++) {
        const struct json *t = json_at(l, (size_t)i);
        tool[i].recipient.p = json_str(json_at(t, 0), &tool[i].recipient.n);
        tool[i].args = grammar_of(json_at(t, 1), &e);
        tool[i].builtin = json_kind(json_at(t, 2)) == J_TRUE;
    }
    spec.final = grammar_of(json_get(q, "final"), &e);
    spec.must_call = json_kind(json_get(q, "must_call")) == J_TRUE;
    spec.no_analysis = json_kind(json_get(q, "no_analysis")) == J_TRUE;
    if (e.code < 0 || turn_new(masker, &spec, &turn, &e) < 0)
        put_error(out, &e);
    else
        buf_puts(out, "{}");
    for (int i = 0; i < spec.n_tool && i < 64; i++)
        grammar_unref(tool[i].args);
    grammar_unref(spec.final);
}

/* Clones the turn, walks the clone. In free bodies the end token is taken now and then. */
static void turn_walk(const struct json *q, struct buf *out)
{
    uint64_t seed = (uint64_t)json_int(json_get(q, "seed"));
    int max = (int)json_int(json_get(q, "max")), tool;
    bool stop = json_kind(json_get(q, "stop")) == J_TRUE;
    struct turn *t;
    if (turn_clone(turn, &t) < 0)
        exit(1);
    buf_puts(out, "{\"ids\":[");
    for (int n = 0; n < max && turn_place(t, &tool) != TURN_DONE; n++) {
        double u = rng_uniform(seed, 1, (uint64_t)n), v = rng_uniform(seed, 2, (uint64_t)n);
        bool hurry = n > max / 4;
        int32_t end;
        uint64_t at = cpu_ns();
        bool is_free = turn_mask(t, bits, &end);
        if (n_times < MAX_TIMES)
            times[n_times++] = (float)(cpu_ns() - at) / 1000;
        if (stop && turn_place(t, &tool) == TURN_ANALYSIS)
            turn_stop_analysis(t);
        int id = -1;
        uint64_t total = 0;
        for (size_t w = 0; w < masker_words(masker); w++)
            total += (uint64_t)__builtin_popcount(bits[w]);
        if (end >= 0 && (hurry || u < (is_free ? 0.15 : 0.3)))
            id = end;
        static const char closers[] = "\"}],:0Z-.@";
        if (id < 0 && (u < 0.5 || hurry) && !is_free)
            for (const char *c = closers; *c && id < 0; c++) {
                int k = vocab_find(vocab, (const uint8_t *)c, 1);
                if (allowed(k) && (hurry || v < 0.6))
                    id = k;
            }
        if (id < 0 && total)
            id = nth((uint64_t)(v * (double)total));
        int32_t forced = turn_forced(t);
        if (id < 0 || (forced >= 0 && (total != 1 || forced != id)) || !turn_allows(t, id) ||
            turn_accept(t, id) < 0) {
            fprintf(stderr, "turn: mask and accept disagree on token %d\n", id);
            exit(1);
        }
        buf_printf(out, n ? ",%d" : "%d", id);
    }
    buf_printf(out, "],\"done\":%s}", turn_place(t, &tool) == TURN_DONE ? "true" : "false");
    turn_free(t);
}

static int by_float(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void stats(struct buf *out)
{
    struct masker_stats s;
    double sum = 0;
    masker_stats(masker, &s);
    qsort(times, n_times, sizeof *times, by_float);
    for (size_t i = 0; i < n_times; i++)
        sum += (double)times[i];
    size_t n = n_times ? n_times : 1;
    buf_printf(out,
               "{\"masks\":%zu,\"us\":[%.2f,%.2f,%.2f,%.2f],\"built\":%llu,\"flushed\":%llu,"
               "\"cut\":%llu,\"bytes\":%zu,\"trie\":%zu}",
               n_times, sum / (double)n, (double)times[n / 2], (double)times[n * 99 / 100],
               (double)times[n - 1], (unsigned long long)s.built, (unsigned long long)s.flushed,
               (unsigned long long)s.cut, s.bytes, s.trie_nodes);
    n_times = 0;
}

int main(void)
{
    static char line[8 << 20];
    struct buf out;
    struct vocab *tiny = NULL;
    buf_init(&out, 64 << 20);
    times = mem_calloc(MAX_TIMES, sizeof *times);
    uint64_t t = cpu_ns();
    use_vocab(vocab_o200k(), 201088);
    fprintf(stderr, "masker for o200k: %.0f ms\n", (double)(cpu_ns() - t) / 1e6);
    while (times && fgets(line, sizeof line, stdin)) {
        struct json *q = NULL;
        struct err e = {0};
        buf_clear(&out);
        if (json_parse(line, strlen(line), &json_limits_file, &q, &e) < 0) {
            fprintf(stderr, "%s\n", e.msg);
            return 1;
        }
        const char *op = json_str(json_get(q, "op"), NULL);
        if (!strcmp(op, "tiny")) {
            struct file_map map = {0};
            if (file_map(json_str(json_get(q, "path"), NULL), &map, &e) < 0 ||
                vocab_from_json((const char *)map.p, map.n, &tiny, &e) < 0) {
                fprintf(stderr, "%s\n", e.msg);
                return 1;
            }
            file_unmap(&map);
            use_vocab(tiny, vocab_size(tiny));
            buf_puts(&out, "{}");
        } else if (!strcmp(op, "stats")) {
            stats(&out);
        } else if (!strcmp(op, "walk")) {
            walk(q, &out);
        } else if (!strcmp(op, "accepts")) {
            accepts(q, &out);
        } else if (!strcmp(op, "mask")) {
            one_mask(q, &out);
        } else if (!strcmp(op, "turn")) {
            new_turn(q, &out);
        } else if (!strcmp(op, "turn_walk")) {
            turn_walk(q, &out);
        } else {
            compile(q, op, &out);
        }
        json_free(q);
        puts(out.p);
        fflush(stdout);
    }
    turn_free(turn);
    matcher_free(matcher);
    gcache_free(cache);
    masker_free(masker);
    vocab_free(tiny);
    mem_free(bits);
    mem_free(times);
    buf_fini(&out);
    return 0;
}
