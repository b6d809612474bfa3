/* Counters and histograms, and their text. See metrics.h; names follow vLLM's after "gloss:". */
#include "serve/metrics.h"

#include "serve/gen.h"

static const double bounds[HIST_BUCKETS] = {0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                            0.05,   0.1,    0.25,  0.5,    1,     2.5,  5,
                                            10,     20,     40,    80,     160,   320};

static const struct {
    const char *name, *help;
} hists[N_HIST] = {
    [HIST_TTFT] = {"time_to_first_token_seconds", "from the request's head to its first token"},
    [HIST_ITL] = {"inter_token_latency_seconds", "between two tokens of one request, its mean"},
    [HIST_E2E] = {"e2e_request_latency_seconds", "from the request's head to the answer's end"},
    [HIST_QUEUE] = {"request_queue_time_seconds", "waiting for a thread that prepares the request"},
    [HIST_PREFILL] = {"request_prefill_time_seconds", "from submission to the first token"},
    [HIST_DECODE] = {"request_decode_time_seconds", "from the first to the last token"},
};

static const char *const stages[N_START] = {"listen", "model", "engine", "all"};
static const char *const repairs[GLOSS_N_REPAIR] = {"header", "start", "end", "body"};
static const char *const reasons[N_DONE] = {"stop", "length", "tool_calls", "error", "abort"};

void metrics_init(struct metrics *m)
{
    *m = (struct metrics){0};
    pthread_mutex_init(&m->lock, NULL);
}

void metrics_fini(struct metrics *m)
{
    pthread_mutex_destroy(&m->lock);
}

void metrics_times(struct metrics *m, int hist, double seconds, uint64_t n)
{
    int i = 0;
    while (i < HIST_BUCKETS && seconds > bounds[i])
        i++;
    pthread_mutex_lock(&m->lock);
    m->hist[hist].n[i] += n;
    m->hist[hist].count += n;
    m->hist[hist].sum += seconds * (double)n;
    pthread_mutex_unlock(&m->lock);
}

void metrics_time(struct metrics *m, int hist, double seconds)
{
    metrics_times(m, hist, seconds, 1);
}

void metrics_http(struct metrics *m, int code)
{
    pthread_mutex_lock(&m->lock);
    if (code >= 100 && code < 600)
        m->http[code / 100]++;
    pthread_mutex_unlock(&m->lock);
}

static void head(struct buf *b, const char *name, const char *kind, const char *help)
{
    buf_printf(b, "# HELP gloss:%s %s\n# TYPE gloss:%s %s\n", name, help, name, kind);
}

static void gauge(struct buf *b, const char *name, const char *help, double v)
{
    head(b, name, "gauge", help);
    buf_printf(b, "gloss:%s %.9g\n", name, v);
}

static void counter(struct buf *b, const char *name, const char *help, uint64_t v)
{
    head(b, name, "counter", help);
    buf_printf(b, "gloss:%s %llu\n", name, (unsigned long long)v);
}

static void put_hist(struct buf *b, int i, const struct hist *h)
{
    head(b, hists[i].name, "histogram", hists[i].help);
    uint64_t sum = 0;
    for (int k = 0; k < HIST_BUCKETS; k++) {
        sum += h->n[k];
        buf_printf(b, "gloss:%s_bucket{le=\"%g\"} %llu\n", hists[i].name, bounds[k],
                   (unsigned long long)sum);
    }
    buf_printf(b, "gloss:%s_bucket{le=\"+Inf\"} %llu\ngloss:%s_sum %.9g\ngloss:%s_count %llu\n",
               hists[i].name, (unsigned long long)h->count, hists[i].name, h->sum, hists[i].name,
               (unsigned long long)h->count);
}

/* Pages that can't be evicted, as a share of all. */
static double kv_usage(const struct gloss_stats *st)
{
    int used = st->pages_full - st->free_full;
    int idle = st->n_running ? 0 : st->cached_full;
    used -= st->n_running ? (st->cached_full < used ? 0 : used) : (idle < used ? idle : used);
    return st->pages_full ? (double)used / st->pages_full : 0;
}

void metrics_put(struct server *s, struct buf *b)
{
    struct gloss_stats st = GLOSS_INIT(struct gloss_stats);
    bool ready = atomic_load(&s->state) != SERVER_LOADING;
    if (ready)
        gloss_engine_stats(s->engine, &st);
    struct metrics m;
    pthread_mutex_lock(&s->metrics.lock);
    m = s->metrics;
    pthread_mutex_unlock(&s->metrics.lock);
    gauge(b, "num_requests_running", "sequences that hold pages", st.n_running);
    gauge(b, "num_requests_waiting", "sequences that wait for pages, and requests being prepared",
          st.n_waiting + (s->work ? work_waiting(s->work) : 0));
    gauge(b, "kv_cache_usage_perc", "share of pages that can't be evicted", kv_usage(&st));
    gauge(b, "connections", "open connections", http_connections(s->http));
    counter(b, "prefix_cache_queries_total", "prompt tokens looked up in the prefix cache",
            m.cache_queries);
    counter(b, "prefix_cache_hits_total", "prompt tokens found there", m.cache_hits);
    counter(b, "num_preemptions_total", "sequences that gave their pages up for a while",
            st.n_preempt);
    counter(b, "swap_out_pages_total", "their pages copied to the host's memory", st.n_swap_out);
    counter(b, "swap_in_pages_total", "pages copied back from there", st.n_swap_in);
    counter(b, "drafted_total", "tokens guessed ahead", st.n_draft);
    counter(b, "accepted_total", "tokens guessed ahead that were right", st.n_accept);
    counter(b, "prompt_tokens_total", "tokens of prompts", m.prompt_tok);
    counter(b, "generation_tokens_total", "tokens generated", m.generated_tok);
    counter(b, "reasoning_tokens_total", "tokens generated as analysis", m.reasoning_tok);
    head(b, "request_success_total", "counter", "choices by how they ended");
    for (int i = 0; i < N_DONE; i++)
        buf_printf(b, "gloss:request_success_total{finished_reason=\"%s\"} %llu\n", reasons[i],
                   (unsigned long long)m.done[i]);
    head(b, "http_answers_total", "counter", "answers by class of status");
    for (int i = 1; i < 6; i++)
        buf_printf(b, "gloss:http_answers_total{class=\"%dxx\"} %llu\n", i,
                   (unsigned long long)m.http[i]);
    head(b, "harmony_repairs_total", "counter", "malformed harmony that was mended, by kind");
    for (int i = 0; i < GLOSS_N_REPAIR; i++)
        buf_printf(b, "gloss:harmony_repairs_total{kind=\"%s\"} %llu\n", repairs[i],
                   (unsigned long long)m.repair[i]);
    if (ready && s->meter) {
        double joules[N_METER];
        meter_totals(s->meter, joules);
        head(b, "energy_joules_total", "counter", "energy of this machine, by what was running");
        for (int i = 0; i < N_METER; i++)
            buf_printf(b, "gloss:energy_joules_total{phase=\"%s\"} %.6f\n", meter_phase_name[i],
                       joules[i]);
    }
    head(b, "startup_seconds", "gauge", "stages of the start, and all of it");
    for (int i = 0; i < N_START && ready; i++)
        buf_printf(b, "gloss:startup_seconds{stage=\"%s\"} %.6f\n", stages[i], m.start_s[i]);
    for (int i = 0; i < N_HIST; i++)
        put_hist(b, i, &m.hist[i]);
}
