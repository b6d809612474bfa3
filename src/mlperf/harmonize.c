/* gloss mlperf harmonize: rows with questions to rows with prompts of token ids.
 *
 * A prompt is the system message, the data set's instructions as a developer message, its examples
 * as user and assistant turns, and the question. Instructions and examples are data: a profile by
 * the data set's name, or by the longest name that it begins with.
 */
#include "base/file.h"
#include "base/mem.h"
#include "mlperf/mlperf.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { PROFILES_BYTES_MAX = 16 << 20, LINE_BYTES_MAX = 256 << 20, THREADS_MAX = 256 };

extern const char mlperf_profiles[], mlperf_profiles_end[];

struct harmonize {
    const struct mlperf_harmonize *o;
    const gloss_model *m;
    const struct rows *rows;
    const struct json *profiles;
    struct buf *line;     /* [rows->n] results; empty for rows that are left out */
    atomic_size_t next;   /* row that nobody has taken */
    atomic_bool stop;     /* a row failed */
    pthread_mutex_t lock; /* of the two below */
    size_t i_bad;         /* first row that failed */
    struct err why;       /* its error */
};

static const char *const efforts[] = {[GLOSS_EFFORT_DEFAULT] = "Medium",
                                      [GLOSS_EFFORT_LOW] = "Low",
                                      [GLOSS_EFFORT_MEDIUM] = "Medium",
                                      [GLOSS_EFFORT_HIGH] = "High"};

/* The longest profile name that `dataset` begins with; the whole name is the longest. */
static const struct json *find_profile(const struct json *all, const char *dataset)
{
    const struct json *best = NULL;
    size_t best_n = 0;
    for (void *it = json_first(all); it; it = json_next(all, it)) {
        size_t n;
        const char *key = json_key(it, &n);
        if (n > best_n && strncmp(dataset, key, n) == 0) {
            best = json_val(it);
            best_n = n;
        }
    }
    return best;
}

static void put_message(struct buf *b, const char *role, const char *text, size_t n,
                        const char *channel)
{
    buf_printf(b, ",{\"role\":\"%s\",\"content\":", role);
    json_quote(b, text, n);
    if (channel)
        buf_printf(b, ",\"channel\":\"%s\"", channel);
    buf_putc(b, '}');
}

/* A question is a text or the messages of a conversation. */
static status put_question(struct buf *b, const struct json *row, struct err *e)
{
    static const char *const columns[] = {"question", "prompt", "query"};
    const struct json *q = NULL;
    for (int i = 0; i < 3 && json_absent(q); i++)
        q = json_get(row, columns[i]);
    size_t n = 0;
    if (json_kind(q) == J_STR) {
        const char *text = json_str(q, &n);
        put_message(b, "user", text, n, NULL);
        return OK;
    }
    if (json_kind(q) != J_ARR || json_len(q) == 0)
        return err_set(e, E_INPUT, "no question: a column question, prompt or query is needed");
    for (size_t i = 0; i < json_len(q); i++) {
        const struct json *m = json_at(q, i), *text = json_get(m, "content"),
                          *role = json_get(m, "role");
        const char *r = json_kind(role) == J_STR ? json_str(role, NULL) : "";
        if (json_kind(text) != J_STR || (strcmp(r, "user") != 0 && strcmp(r, "assistant") != 0))
            return err_set(e, E_INPUT,
                           "message %zu of the question needs the role user or assistant and a "
                           "text as content",
                           i);
        const char *t = json_str(text, &n);
        put_message(b, r, t, n, NULL);
    }
    return OK;
}

/* The conversation in the harmony library's form. */
static status put_conversation(const struct harmonize *h, struct buf *b, const struct json *row,
                               const char *dataset, struct err *e)
{
    const struct json *p = find_profile(h->profiles, dataset), *shots = json_get(p, "shots"),
                      *text = json_get(p, "instructions");
    size_t n = 0;
    if (!p)
        return err_set(e, E_INPUT, "no profile for the data set '%.60s'; --profiles takes others",
                       dataset);
    if (json_kind(text) != J_STR || (!json_absent(shots) && json_kind(shots) != J_ARR))
        return err_set(e, E_FORMAT,
                       "the profile of '%.60s' must have a text \"instructions\" and a list "
                       "\"shots\"",
                       dataset);
    buf_puts(b, "{\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"system_content\","
                "\"model_identity\":\"You are ChatGPT, a large language model trained by OpenAI.\","
                "\"knowledge_cutoff\":\"2024-06\"");
    if (h->o->date)
        buf_printf(b, ",\"conversation_start_date\":\"%s\"", h->o->date);
    buf_printf(b,
               ",\"reasoning_effort\":\"%s\",\"channel_config\":{\"valid_channels\":[\"analysis\","
               "\"commentary\",\"final\"],\"channel_required\":true}}]},{\"role\":\"developer\","
               "\"content\":[{\"type\":\"developer_content\",\"instructions\":",
               efforts[h->o->effort]);
    const char *t = json_str(text, &n);
    json_quote(b, t, n);
    buf_puts(b, "}]}");
    for (size_t i = 0; i < json_len(shots); i++) {
        const struct json *ask = json_at(json_at(shots, i), 0),
                          *say = json_at(json_at(shots, i), 1);
        if (json_kind(ask) != J_STR || json_kind(say) != J_STR)
            return err_set(e, E_FORMAT, "example %zu of the profile of '%.60s' is not two texts", i,
                           dataset);
        t = json_str(ask, &n);
        put_message(b, "user", t, n, NULL);
        t = json_str(say, &n);
        put_message(b, "assistant", t, n, "final");
    }
    status st = put_question(b, row, e);
    buf_puts(b, "]}");
    return st;
}

static void put_result(struct buf *out, const struct json *row, const int32_t *ids, size_t n,
                       const char *text, size_t n_text)
{
    buf_putc(out, '{');
    for (void *it = json_first(row); it; it = json_next(row, it)) {
        size_t n_key;
        const char *key = json_key(it, &n_key);
        if (strcmp(key, "tok_input") == 0 || strcmp(key, "tok_input_len") == 0 ||
            strcmp(key, "text_input") == 0)
            continue;
        json_quote(out, key, n_key);
        buf_putc(out, ':');
        json_dump(out, json_val(it));
        buf_putc(out, ',');
    }
    buf_puts(out, "\"tok_input\":[");
    for (size_t i = 0; i < n; i++)
        buf_printf(out, i ? ",%d" : "%d", ids[i]);
    buf_printf(out, "],\"tok_input_len\":%zu,\"text_input\":", n);
    json_quote(out, text, n_text);
    buf_puts(out, "}\n");
}

static status one_row(const struct harmonize *h, gloss_chat *chat, size_t i, struct err *e)
{
    const struct row *r = &h->rows->row[i];
    const char *dataset = r->dataset ? r->dataset : "default";
    const int32_t *ids;
    size_t n, n_text;
    char *text = NULL;
    struct json *row = NULL;
    struct gloss_err *ge = (struct gloss_err *)(void *)e; /* one layout, asserted in main.c */
    struct buf b;
    status st = OK;
    buf_init(&b, LINE_BYTES_MAX);
    if (h->o->dataset && strcmp(h->o->dataset, dataset) != 0)
        goto out;
    TRY(rows_parse(r, &row, e));
    TRY(put_conversation(h, &b, row, dataset, e));
    TRY(buf_status(&b));
    TRY(gloss_chat_load(chat, b.p, b.n, GLOSS_FORM_LIBRARY, ge));
    TRY(gloss_chat_render(chat, &ids, &n, ge));
    TRY(gloss_decode(h->m, ids, n, &text, &n_text, ge));
    put_result(&h->line[i], row, ids, n, text, n_text);
    TRY(buf_status(&h->line[i]));
out:
    if (st < 0 && !e->msg[0])
        err_set(e, st, "the row is too large");
    gloss_free(text);
    json_free(row);
    buf_fini(&b);
    return st;
}

/* A thread: rows as they are free. The first bad row by number is the one reported. */
static void *work(void *ctx)
{
    struct harmonize *h = ctx;
    struct gloss_chat_opts co = GLOSS_INIT(struct gloss_chat_opts);
    gloss_chat *chat = NULL;
    struct err e = {0};
    status st = gloss_chat_new(h->m, &co, &chat, (struct gloss_err *)(void *)&e);
    size_t i = 0;
    while (st == OK && !atomic_load(&h->stop) && (i = atomic_fetch_add(&h->next, 1)) < h->rows->n)
        st = one_row(h, chat, i, &e);
    if (st < 0) {
        atomic_store(&h->stop, true);
        pthread_mutex_lock(&h->lock);
        if (h->why.code == OK || i < h->i_bad) {
            h->i_bad = i;
            err_set(&h->why, st, "line %d: %.200s", h->rows->row[i].line, e.msg);
        }
        pthread_mutex_unlock(&h->lock);
    }
    gloss_chat_free(chat);
    return NULL;
}

static void run_threads(struct harmonize *h)
{
    pthread_t id[THREADS_MAX];
    int n = 0;
    while (n < THREADS_MAX && n < h->o->n_thread - 1 && pthread_create(&id[n], NULL, work, h) == 0)
        n++;
    work(h); /* this thread too, so that one is enough */
    while (n > 0)
        pthread_join(id[--n], NULL);
}

static status read_profiles(const char *path, struct json **root, struct err *e)
{
    struct buf b;
    struct err je = {0};
    status st = OK;
    buf_init(&b, PROFILES_BYTES_MAX);
    if (path)
        TRY(file_read(path, &b, &je));
    else
        buf_put(&b, mlperf_profiles, (size_t)(mlperf_profiles_end - mlperf_profiles));
    TRY(buf_status(&b));
    TRY(json_parse(b.p, b.n, &json_limits_file, root, &je));
    if (json_kind(*root) != J_OBJ)
        TRY(err_set(&je, E_FORMAT, "not an object of profiles by data set"));
out:
    if (st < 0)
        err_set(e, st, "%.100s: %.150s", path ? path : "profiles", je.msg);
    buf_fini(&b);
    return st;
}

status mlperf_harmonize(const gloss_model *m, const struct rows *rows,
                        const struct mlperf_harmonize *o, struct buf *report, struct err *e)
{
    struct harmonize h = {.o = o, .m = m, .rows = rows};
    struct json *profiles = NULL;
    struct file_new w = {0};
    size_t n_out = 0;
    status st = OK;
    pthread_mutex_init(&h.lock, NULL);
    TRY(read_profiles(o->profiles, &profiles, e));
    h.profiles = profiles;
    h.line = mem_array(rows->n, sizeof *h.line);
    if (!h.line)
        TRY(err_set(e, E_NOMEM, "out of memory"));
    for (size_t i = 0; i < rows->n; i++)
        buf_init(&h.line[i], LINE_BYTES_MAX);
    run_threads(&h);
    if (h.why.code < 0)
        TRY(err_set(e, h.why.code, "%s", h.why.msg));
    TRY(file_begin(&w, o->output, e));
    for (size_t i = 0; i < rows->n; i++) {
        file_write(&w, h.line[i].p, h.line[i].n);
        n_out += h.line[i].n > 0;
    }
    if (n_out == 0)
        TRY(err_set(e, E_INPUT, "no row of the data set '%.100s'", o->dataset));
    TRY(file_commit(&w, e));
    buf_printf(report, "{\"rows\":%zu,\"written\":%zu}\n", rows->n, n_out);
out:
    file_abort(&w);
    for (size_t i = 0; h.line && i < rows->n; i++)
        buf_fini(&h.line[i]);
    mem_free(h.line);
    json_free(profiles);
    pthread_mutex_destroy(&h.lock);
    return st;
}
