/* The loop. Everything here runs on the engine thread but for engine_open, engine_close,
 * engine_stats and engine_drain.
 */
#include "engine/engine.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/num.h"
#include "engine/request.h"
#include "engine/scripted.h"

#include <math.h>
#include <unistd.h>

enum {
    PAGE_TOK = PREFIX_PAGE_TOK, /* a window of 128 spans at most five pages */
    LOGIT_ROWS = 64, /* rows per step when every row's logits are wanted, or tokens are guessed */
    MANY_ROWS = 16,  /* steps of so many cost what their rows cost */
    AUTO_DRAFT = 15, /* most guesses of one sequence in a step */
    MIN_PAGES = 2
};

/* ---- memory ---- */

/* Window pages beside n_full full ones: what one prefilling and max_requests decoding sequences
 * hold, and for the snapshots of the prefix cache one for every four full pages. Never more than
 * full pages, because whoever holds a window page holds the full page of the same positions. */
static int window_pages(const struct engine *g, int n_full, int max_requests)
{
    int64_t n =
        (int64_t)kv_window_pages(&g->sched.kv, g->n_ctx, max_int(g->sched.chunk, LOGIT_ROWS)) +
        (int64_t)max_requests * kv_window_pages(&g->sched.kv, g->n_ctx, 1) + n_full / 4;
    return n < n_full ? (int)n : n_full;
}

/* Page numbers from the memory given, or from the rule of engine_opts. Sets g->n_ctx. */
static status plan_pages(struct engine *g, const struct engine_opts *o, struct kv_plan *plan,
                         struct err *e)
{
    size_t full_bytes, win_bytes;
    g->backend->kv_page_bytes(g->backend, PAGE_TOK, &full_bytes, &win_bytes);
    int64_t want = (int64_t)kv_pages(&g->sched.kv, o->n_ctx) * o->max_requests;
    double limit = (double)o->memory_bytes;
    if (o->memory_bytes == 0) {
        double share = o->memory_share > 0 ? o->memory_share : 0.9;
        size_t available = g->backend->kv_memory(g->backend);
        limit = available > 0 ? share * (double)available : 1e300;
    } else if (want < INT32_MAX / 4 && full_bytes + win_bytes > 0) {
        want =
            (int64_t)fmin(limit / (double)(full_bytes + (full_bytes ? 0 : win_bytes)) + 1, 1 << 28);
    }
    if (want > INT32_MAX / 4)
        return err_set(e, E_LIMIT, "%d requests of %d tokens need too many cache pages",
                       o->max_requests, o->n_ctx);
    int lo = 0, hi = (int)want;
    while (lo < hi) {
        int mid = lo + (hi - lo + 1) / 2;
        double bytes = (double)mid * (double)full_bytes +
                       (double)window_pages(g, mid, o->max_requests) * (double)win_bytes;
        if (bytes <= limit)
            lo = mid;
        else
            hi = mid - 1;
    }
    if (lo < MIN_PAGES && lo < want)
        return err_param(e, E_LIMIT, "memory-gb",
                         "%.1f MiB for the cache hold %d pages of %d tokens: too little memory",
                         limit / (1 << 20), lo, PAGE_TOK);
    plan->n_full = lo;
    plan->n_window = window_pages(g, lo, o->max_requests);
    g->n_ctx = min_int(o->n_ctx, lo * PAGE_TOK);
    g->count.page_tok = PAGE_TOK;
    g->count.n_ctx = g->n_ctx;
    g->count.pages_full = plan->n_full;
    g->count.pages_window = plan->n_window;
    g->count.page_bytes_full = full_bytes;
    g->count.page_bytes_window = win_bytes;
    return OK;
}

/* Places for swapped pages: a sequence's, of some length, are window pages for all that it may see
 * beside every full page. And what a position costs that is copied: a fifth of a nanosecond a byte
 * each way, memory's and PCIe's order of magnitude. */
static void plan_swap(struct engine *g, size_t bytes, struct kv_plan *plan)
{
    size_t full = g->count.page_bytes_full, win = g->count.page_bytes_window, left = bytes;
    int few = kv_window_pages(&g->sched.kv, g->n_ctx, 1);
    if (!g->backend->kv_swap || full + win == 0)
        return;
    while (left >= full + win && plan->n_host_full < INT32_MAX / 4) {
        bool also = plan->n_host_window < few + plan->n_host_full / 4;
        plan->n_host_full++;
        plan->n_host_window += also;
        left -= full + (also ? win : 0);
    }
    g->sched.swap_ns = 2 * 0.2 * (double)(full + win / 4) / PAGE_TOK;
}

/* ---- the end of sequences and requests ---- */

static void end_seq(struct engine *g, struct seq *s, enum finish how, int i_stop,
                    const struct err *e)
{
    struct request *r = s->request;
    sched_end(&g->sched, s);
    g->count.generated_tok += (uint64_t)(s->n_ids - s->n_prompt);
    g->count.prompt_reused += (uint64_t)s->n_reused;
    g->count.prompt_tok += (uint64_t)s->n_prompt;
    g->count.n_finished += how != FINISH_ERROR;
    g->count.n_cancelled += how == FINISH_ERROR && e->code == E_CANCEL;
    g->count.n_failed += how == FINISH_ERROR && e->code != E_CANCEL;
    seq_publish_finish(s, how, i_stop, e);
    if (--r->n_left > 0)
        return;
    request_unref(r);
    pthread_mutex_lock(&g->lock);
    if (--g->n_live == 0)
        pthread_cond_broadcast(&g->drained);
    pthread_mutex_unlock(&g->lock);
}

/* Ends all choices; the request may be gone afterwards. */
static void end_request(struct engine *g, struct request *r, const struct err *e)
{
    int n = r->par.n, left = r->n_left;
    for (int i = 0; i < n && left > 0; i++) {
        struct seq *s = &r->seq[i];
        if (s->state == SEQ_DONE)
            continue;
        left--;
        end_seq(g, s, FINISH_ERROR, -1, e);
    }
}

static bool is_over(struct engine *g, struct request *r, uint64_t now)
{
    struct err e;
    if (atomic_load(&r->cancelled)) {
        err_set(&e, E_CANCEL, "cancelled");
    } else if (r->deadline_ns && now >= r->deadline_ns) {
        err_set(&e, E_CANCEL, "the deadline of %llu ms passed",
                (unsigned long long)r->par.deadline_ms);
    } else {
        if (r->deadline_ns && (!g->next_deadline || r->deadline_ns < g->next_deadline))
            g->next_deadline = r->deadline_ns;
        return false;
    }
    end_request(g, r, &e);
    return true;
}

static void sweep_list(struct engine *g, struct seq **list, uint64_t now)
{
    for (struct seq *s = *list; s;)
        s = is_over(g, s->request, now) ? *list : s->next; /* its other choices may be gone, too */
}

/* Ends requests that were cancelled or ran out of time. */
static void sweep(struct engine *g, uint64_t now)
{
    bool late = g->next_deadline && now >= g->next_deadline;
    if (atomic_exchange(&g->swept, true) && !late)
        return;
    g->next_deadline = 0;
    sweep_list(g, &g->sched.running, now);
    sweep_list(g, &g->sched.waiting, now);
}

/* ---- planning ---- */

static void give_lines(struct engine *g, struct request *r)
{
    for (int i = 0; g->script && i < r->par.n; i++)
        r->seq[i].line = &g->script->line[g->n_line++ % g->script->n];
    if (g->script && r->seq[0].line->first_delay_ns)
        r->seq[0].wait_until = r->seq[0].due_ns = clock_ns() + r->seq[0].line->first_delay_ns;
}

/* The scripted pause behind a token, counted from when that token was due, so that pauses add up to
 * what the script says; a token late by more than a pause begins a new count. */
static void pause_after(struct seq *s, uint64_t t_ns)
{
    uint64_t delay = s->line->delay_ns;
    s->due_ns = s->due_ns + delay > t_ns ? s->due_ns + delay : t_ns + delay;
    s->wait_until = delay ? s->due_ns : 0;
}

static void admit(struct engine *g, uint64_t now)
{
    for (struct seq *s; (s = sched_admit(&g->sched, now));)
        if (s->index == 0 && !s->line)
            give_lines(g, s->request);
}

static bool wants_all(const struct seq *s)
{
    const struct request *r = s->request;
    return r->want == ROWS_ALL ||
           (r->par.prompt_logprob && s->index == 0 && s->n_sent < s->n_prompt);
}

/* Puts up to n rows of s into the batch. *extra counts logit rows that may still be asked for
 * besides one per sequence. Returns the rows. */
static int plan_rows(struct engine *g, struct batch *b, struct seq *s, int n, int *extra)
{
    int from = s->n_ids; /* positions from here on want logits */
    n = min_int(n, s->n_ids - s->n_done);
    if (wants_all(s)) {
        from = max_int(s->n_done, s->n_sent);
        int most = min_int(*extra, s->request->want == ROWS_ALL ? s->request->cap_rows
                                                                : (int)seq_room(s) - 2);
        n = min_int(n, from + max_int(0, most) - s->n_done);
    }
    s->looked_at = g->i_step;
    if (n <= 0 || (n = sched_extend(&g->sched, s, n, g->i_step)) <= 0)
        return 0;
    s->planned = g->i_step;
    int end = s->n_done + n;
    if (end == s->n_ids && s->request->want != ROWS_ALL)
        from = min_int(from, end - 1);
    g->seq[b->n_seq] = (struct batch_seq){
        .row0 = b->n_row, .n_row = n, .pos0 = s->n_done, .full = s->kv.full, .window = s->kv.win};
    g->of_seq[b->n_seq] = (struct planned){.seq = s, .pos_logit = from};
    memcpy(g->tok + b->n_row, s->ids + s->n_done, (size_t)n * sizeof *g->tok);
    for (int p = from; p < end; p++) {
        g->logit_row[b->n_logit++] = b->n_row + p - s->n_done;
        g->of_seq[b->n_seq].n_logit++;
    }
    if (wants_all(s))
        *extra -= g->of_seq[b->n_seq].n_logit;
    b->n_row += n;
    b->n_seq++;
    return n;
}

static bool is_decoding(const struct seq *s)
{
    return s->n_ids - s->n_done == 1;
}

/* How many tokens may be guessed ahead for s: not beyond its end, nor more than its reader has room
 * for; a script's pauses are kept. */
static int most_drafts(const struct engine *g, const struct seq *s)
{
    if (s->n_ids == s->n_prompt || (s->line && s->line->delay_ns) || draft_chance(&s->draft) <= 0)
        return 0;
    int left = s->request->par.max_tok - (s->n_ids - s->n_prompt) - 1;
    return max_int(0, min_int(min_int(g->max_draft, left), (int)seq_room(s) - 2));
}

/* Levels of chances (gain.h) whose guesses are worth their rows in this step. None beside a prompt,
 * whose rows make the step's time; and beside one that wants every row's logits not even if guesses
 * are always made, as they would take its share. */
static int draft_levels(struct engine *g, uint64_t now)
{
    bool prompt = false, all = false;
    if (g->max_draft == 0)
        return 0;
    gain_begin(&g->gain);
    for (const struct seq *s = g->sched.running; s; s = s->next) {
        if (s->paused || s->wait_until > now)
            continue;
        prompt = prompt || !is_decoding(s);
        all = all || wants_all(s);
        gain_offer(&g->gain, most_drafts(g, s), draft_chance(&s->draft));
    }
    if (all || (prompt && !g->draft_always))
        return 0;
    return g->draft_always ? GAIN_LEVELS : gain_decide(&g->gain, LOGIT_ROWS);
}

/* Rows for what s, planned last with the row of its last token, will probably say. */
static void plan_drafts(struct engine *g, struct batch *b, struct seq *s, int levels, int *extra)
{
    struct planned *p = &g->of_seq[b->n_seq - 1];
    int n = gain_take(most_drafts(g, s), draft_chance(&s->draft), levels);
    n = min_int(n, *extra);
    if (n > 0)
        n = sched_extend_more(&g->sched, s, 1, n);
    p->draft = g->tok + b->n_row;
    p->n_draft = n = draft_get(&s->draft, s->ids, s->n_ids, n, g->tok + b->n_row);
    for (int i = 0; i < n; i++)
        g->logit_row[b->n_logit++] = b->n_row++;
    g->seq[b->n_seq - 1].n_row += n;
    p->n_logit += n;
    *extra -= n;
    g->count.n_draft += (uint64_t)n;
}

/* The oldest if it lacked a page last time, then a row for every decoding sequence with what it
 * will probably say, then prompts within the chunk. */
static void plan(struct engine *g, struct batch *b, uint64_t now)
{
    struct sched *q = &g->sched;
    int left = q->chunk, extra = LOGIT_ROWS;
    *b = (struct batch){.tok = g->tok, .seq = g->seq, .logit_row = g->logit_row};
    g->i_step++;
    int levels = draft_levels(g, now);
    for (struct seq *s = q->running; s; s = s->next)
        if (s->starved && sched_runnable(q, s, now)) {
            bool decoding = is_decoding(s);
            int n = plan_rows(g, b, s, left, &extra);
            left -= decoding ? 0 : n;
            break;
        }
    for (struct seq *s = q->running; s; s = s->next)
        if (s->looked_at != g->i_step && is_decoding(s) && sched_runnable(q, s, now) &&
            plan_rows(g, b, s, 1, &extra) > 0 && levels > 0)
            plan_drafts(g, b, s, levels, &extra);
    for (struct seq *s; left > 0 && (s = sched_prefill(q, g->i_step, now));)
        left -= plan_rows(g, b, s, left, &extra);
}

/* ---- sampling and delivery ---- */

static bool is_end(const struct engine *g, const struct request *r, int32_t id)
{
    for (int i = 0; i < r->par.n_stop_id; i++)
        if (r->stop_id[i] == id)
            return true;
    if (r->par.ignore_eos)
        return false;
    for (int i = 0; i < g->spec->n_eos; i++)
        if (g->spec->eos[i] == id)
            return true;
    return !r->par.plain && g->vocab && harmony_is_stop(g->vocab, id);
}

/* Slots at the ring's end that a stop text may still claim. */
static unsigned held_slots(const struct seq *s, uint64_t undecided)
{
    unsigned n = 0;
    while (s->wr - n != s->published && s->slot[(s->wr - n - 1) & (s->n_slot - 1)].to > undecided)
        n++;
    return n < s->n_slot / 2 ? n : 0;
}

/* Marks what a stop text that begins at `match` takes from the tokens not yet published. */
static void hide(struct seq *s, uint64_t match)
{
    for (unsigned i = s->published; i != s->wr; i++) {
        struct slot *t = &s->slot[i & (s->n_slot - 1)];
        uint64_t from = t->from > match ? t->from : match;
        t->n_hide = t->to > from ? (int)(t->to - from) : 0;
    }
}

static void fill_top(const struct engine *g, const struct seq *s, const float *logits, double lse,
                     float *logprob)
{
    int n = s->request->par.n_top;
    if (n == 0)
        return;
    sample_top(logits, g->spec->n_vocab, min_int(n, g->spec->n_vocab), g->top);
    for (int i = 0; i < n; i++)
        logprob[i] = (float)((double)logits[g->top[i]] - lse);
}

/* What the turn allows next, as a mask; or the one token that it leaves, else -1. */
static int32_t held_to(struct seq *s, struct sample_mask *m)
{
    bool all;
    *m = (struct sample_mask){.also = -1};
    if (!s->turn)
        return -1;
    m->bits = turn_plain_mask(s->turn, &all, &m->also);
    if (m->bits || all)
        return -1;
    int32_t end, only = turn_forced(s->turn);
    if (only >= 0)
        return only;
    if (!s->mask_ready)
        turn_mask(s->turn, s->mask_bits, &end);
    s->mask_ready = true;
    m->bits = s->mask_bits;
    return -1;
}

/* The masks of grammars that this step's rows end in begin to be computed. */
static void begin_masks(struct engine *g, const struct batch *b)
{
    int n = 0;
    for (int i = 0; i < b->n_seq; i++) {
        struct seq *s = g->of_seq[i].seq;
        bool last = s->n_done + b->seq[i].n_row - g->of_seq[i].n_draft == s->n_ids;
        if (last && s->turn && !s->off_turn && !s->mask_ready && turn_in_grammar(s->turn))
            g->ahead.job[n++] = s;
    }
    ahead_begin(&g->ahead, n);
}

/* Moves the turn past a token; false: it can't, though the token was in its mask (mask.h). What a
 * script says may be anything. */
static bool turn_follow(const struct engine *g, struct seq *s, int32_t id)
{
    int unused;
    if (!s->turn || s->off_turn || turn_place(s->turn, &unused) == TURN_DONE)
        return true;
    s->mask_ready = false;
    s->off_turn = turn_accept(s->turn, id) < 0;
    if (budget_spent(&s->budget))
        turn_stop_analysis(s->turn);
    return !s->off_turn || g->script;
}

/* The one token that s can have next, dictated by its budget or left by its turn; else -1, and the
 * rules to choose by. They are not made from logits, and making them again gives the same. With
 * `ahead`, for the token behind so many guesses (only if rules_last). */
static int32_t rules_of(struct seq *s, int ahead, struct sample_rules *rules)
{
    const struct request *r = s->request;
    int i = s->n_ids - s->n_prompt + ahead;
    *rules = (struct sample_rules){.seen = s->seen.table ? &s->seen : NULL,
                                   .forbidden = r->forbidden,
                                   .n_forbidden = i < r->par.min_tok ? r->n_forbidden : 0,
                                   .mask.also = -1,
                                   .pos = (uint64_t)i};
    int32_t id = budget_next(&s->budget);
    return id >= 0 ? id : held_to(s, &rules->mask);
}

static bool wants_logprob(const struct request *r)
{
    return !r->par.no_logprob || r->par.n_top > 0;
}

/* The next token: dictated, scripted or sampled, here or by the backend (`picked`, else NULL).
 * False: the script has ended. */
static bool choose(struct engine *g, struct seq *s, const float *logits, const struct pick *picked,
                   struct slot *slot, float *top_logprob)
{
    slot->logprob = NAN;
    if (g->script) {
        slot->token = budget_next(&s->budget);
        if (slot->token < 0 && s->i_line == s->line->n)
            return false;
        if (slot->token < 0)
            slot->token = s->line->tok[s->i_line++];
        return true;
    }
    bool with_logprob = wants_logprob(s->request);
    if (picked) {
        slot->token = picked->token;
        if (with_logprob)
            slot->logprob = picked->logprob;
        return true;
    }
    double lse = 0;
    struct sample_rules rules;
    int32_t id = rules_of(s, 0, &rules);
    if (id < 0)
        id = sample_token(logits, &s->sample, &rules, with_logprob ? &lse : NULL, &g->scratch);
    else if (with_logprob)
        lse = sample_lse(logits, g->spec->n_vocab);
    slot->token = id;
    if (with_logprob)
        slot->logprob = (float)((double)logits[id] - lse);
    fill_top(g, s, logits, lse, top_logprob);
    return true;
}

/* One more token for s: picked, or to be chosen from logits, the row of its last position. False:
 * it ended, and may be gone. */
static bool take_token(struct engine *g, struct seq *s, const float *logits,
                       const struct pick *picked)
{
    const struct request *r = s->request;
    struct slot slot = {.t_ns = clock_ns()};
    float top_logprob[REQUEST_MAX_TOP];
    struct stop_found f;
    struct err e;
    if (!choose(g, s, logits, picked, &slot, top_logprob)) {
        end_seq(g, s, FINISH_STOP, -1, NULL);
        return false;
    }
    int32_t id = slot.token;
    s->shielded = false;
    sample_seen_add(&s->seen, id, true);
    s->ids[s->n_ids++] = id;
    draft_add(&s->draft, s->ids, s->n_ids);
    int n_gen = s->n_ids - s->n_prompt;
    status st = budget_feed(&s->budget, id);
    if (st == OK)
        st = stop_feed(&s->stop, id, &f);
    if (st < 0)
        err_set(&e, st, "out of memory while following the answer's channels");
    else if (!turn_follow(g, s, id))
        st = err_set(&e, E_LIMIT, "the grammar allows too many readings of this answer at once");
    if (st < 0) {
        end_seq(g, s, FINISH_ERROR, -1, &e);
        return false;
    }
    slot.from = f.from;
    slot.to = f.to;
    seq_put(s, &slot, g->top, top_logprob);
    if (s->line)
        pause_after(s, slot.t_ns);
    if (f.which >= 0 && n_gen >= r->par.min_tok) {
        hide(s, f.match);
        end_seq(g, s, FINISH_STOP, f.which, NULL);
    } else if (is_end(g, r, id)) {
        bool call = g->vocab && id == vocab_special(g->vocab, SP_CALL);
        end_seq(g, s, call ? FINISH_CALL : FINISH_STOP, -1, NULL);
    } else if (n_gen == r->par.max_tok) {
        end_seq(g, s, FINISH_LENGTH, -1, NULL);
    } else {
        seq_publish(s, s->stop.n ? held_slots(s, f.undecided) : 0);
        return true;
    }
    return false;
}

/* Row i of `logits` is that of position pos + i: it says how likely the prompt's next token was. */
static void send_prompt(struct engine *g, struct seq *s, const float *logits, int n, int pos)
{
    float top_logprob[REQUEST_MAX_TOP] = {0};
    if (s->n_sent == 0)
        seq_put(
            s,
            &(struct slot){.token = s->ids[0], .prompt = true, .logprob = NAN, .t_ns = clock_ns()},
            g->top, top_logprob);
    for (int i = 0; i < n && pos + i + 1 < s->n_prompt; i++) {
        const float *row = logits + (size_t)i * (size_t)g->spec->n_vocab;
        int32_t id = s->ids[pos + i + 1];
        double lse = sample_lse(row, g->spec->n_vocab);
        struct slot slot = {.token = id,
                            .prompt = true,
                            .logprob = (float)((double)row[id] - lse),
                            .t_ns = clock_ns()};
        fill_top(g, s, row, lse, top_logprob);
        seq_put(s, &slot, g->top, top_logprob);
    }
    s->n_sent = pos + n;
    seq_publish(s, 0);
}

static void send_rows(struct engine *g, struct seq *s, const float *logits, int n, int pos)
{
    struct request *r = s->request;
    size_t n_vocab = (size_t)g->spec->n_vocab;
    bool over = s->n_done == s->n_ids;
    if (n > 0) {
        memcpy(r->rows, logits, (size_t)n * n_vocab * sizeof *logits);
        s->n_sent = pos + n;
        pthread_mutex_lock(&r->lock);
        r->n_rows = n;
        r->row0 = pos;
        atomic_store(&r->rows_full, true);
        if (r->waiting)
            pthread_cond_signal(&r->cond);
        pthread_mutex_unlock(&r->lock);
    }
    if (over)
        end_seq(g, s, FINISH_LENGTH, -1, NULL);
}

/* The first choice has computed the prompt: the others begin from its pages and logits. */
static void give_birth(struct engine *g, struct seq *first, const float *logits)
{
    struct request *r = first->request;
    for (int i = 1; i < r->par.n; i++) {
        struct seq *s = &r->seq[i];
        struct prefix_copy c;
        if (s->state != SEQ_UNBORN)
            continue;
        if (!sched_fork(&g->sched, first, s, &c)) {
            s->front = true;
            sched_add(&g->sched, s);
            continue;
        }
        struct page_pair pair[] = {{c.full_from, c.full_to, false}, {c.win_from, c.win_to, true}};
        if (c.full_from >= 0)
            g->backend->kv_copy(g->backend, pair, 2);
        (void)take_token(g, s, logits, NULL);
    }
}

/* The next token is the first of one of several choices. */
static bool is_first_of_many(const struct seq *s)
{
    return s->request->par.n > 1 && s->n_ids == s->n_prompt;
}

/* The choices that wait for the first one's logits. */
static bool is_pregnant(const struct seq *s)
{
    return s->index == 0 && is_first_of_many(s);
}

/* After a step: logits are those of the rows planned for p, whose first n_row are certain; of a
 * step that was deferred, picks are theirs instead. True: s goes on with a token that was chosen.
 */
static bool take_rows(struct engine *g, const struct planned *p, int n_row, const float *logits,
                      const struct pick *pick)
{
    struct seq *s = p->seq;
    struct request *r = s->request;
    int n_logit = p->n_logit - p->n_draft;
    int prompt_rows = max_int(0, min_int(s->n_done + n_row, s->n_prompt) - s->n_done);
    s->n_done += n_row;
    s->n_computed += prompt_rows;
    g->count.computed_tok += (uint64_t)n_row;
    sched_charge(s, n_row + p->n_draft);
    sched_learn(&g->sched, s);
    if (r->want != ROWS_NONE) {
        send_rows(g, s, logits, n_logit, p->pos_logit);
        return false;
    }
    if (wants_all(s) && n_logit > 0 && !g->script)
        send_prompt(g, s, logits, n_logit, p->pos_logit);
    if (s->n_done < s->n_ids)
        return false;
    const float *last = logits ? logits + (size_t)(n_logit - 1) * (size_t)g->spec->n_vocab : NULL;
    if (is_pregnant(s))
        give_birth(g, s, last);
    return take_token(g, s, last, last ? NULL : pick);
}

/* Whether the token chosen last was guessed. Then the row behind it counts: what it wrote stays. */
static bool was_guessed(struct engine *g, const struct planned *p)
{
    struct seq *s = p->seq;
    if (p->n_taken > p->n_draft || s->ids[s->n_ids - 1] != p->draft[p->n_taken - 1])
        return false;
    s->n_done++;
    g->count.computed_tok++;
    g->count.n_accept++;
    sched_learn(&g->sched, s);
    return true;
}

/* The tokens behind right guesses, from logits or picks, p's rows' in both cases. True: the guess
 * was right, but its row is still to be picked. */
static bool take_drafts(struct engine *g, struct planned *p, const float *logits,
                        const struct pick *pick)
{
    do {
        if (p->n_taken == p->n_picked)
            return true;
        size_t i = (size_t)p->n_taken++;
        const float *row = logits ? logits + i * (size_t)g->spec->n_vocab : NULL;
        if (pick)
            row = pick[i].logits;
        if (!take_token(g, p->seq, row, pick && !row ? &pick[i] : NULL))
            return false;
    } while (was_guessed(g, p));
    return false;
}

/* All that a step brought for p; true: its next row is to be picked. */
static bool take_step(struct engine *g, struct planned *p, int n_row, const float *logits,
                      const struct pick *pick)
{
    p->n_taken = 1;
    if (!pick)
        p->n_picked = 1 + p->n_draft;
    return take_rows(g, p, n_row - p->n_draft, pick ? pick->logits : logits, pick) &&
           was_guessed(g, p) && take_drafts(g, p, logits, pick);
}

/* The sequence ends, and the choices that waited for it. Others of its request go on. */
static void fail(struct engine *g, struct seq *s, const struct err *e)
{
    struct request *r = s->request;
    for (int i = 1; s->index == 0 && i < r->par.n; i++)
        if (r->seq[i].state == SEQ_UNBORN)
            end_seq(g, &r->seq[i], FINISH_ERROR, -1, e);
    end_seq(g, s, FINISH_ERROR, -1, e);
}

/* A batch with bad numbers in it is repeated sequence by sequence, so that only the one concerned
 * fails. */
static void step_each(struct engine *g, const struct batch *b)
{
    for (int i = 0, i_logit = 0; i < b->n_seq; i++) {
        struct planned *p = &g->of_seq[i];
        struct batch_seq one = b->seq[i];
        struct step_out out;
        struct err e = {0};
        int n_logit = p->n_logit;
        one.n_row -= p->n_draft; /* guesses may be what the bad numbers come from */
        p->n_logit -= p->n_draft;
        p->n_draft = 0;
        for (int k = 0; k < p->n_logit; k++)
            g->logit_row[i_logit + k] -= one.row0;
        struct batch alone = {.n_row = one.n_row,
                              .tok = b->tok + one.row0,
                              .n_seq = 1,
                              .seq = &one,
                              .n_logit = p->n_logit,
                              .logit_row = g->logit_row + i_logit};
        i_logit += n_logit;
        one.row0 = 0;
        if (g->backend->step(g->backend, &alone, &out, &e) < 0)
            fail(g, p->seq, &e);
        else
            (void)take_step(g, p, one.n_row, out.logits, NULL);
    }
}

/* How many of the guesses [n] leave the rules for the token behind them what they are now. */
static int rules_last(const struct seq *s, const int32_t *guess, int n)
{
    bool all;
    int32_t end;
    int i = 0;
    if (s->seen.table || s->budget.parser)
        return 0;
    const uint32_t *bits = s->turn ? turn_plain_mask(s->turn, &all, &end) : NULL;
    while (i < n && (!s->turn || (bits && (bits[guess[i] / 32] >> (guess[i] % 32) & 1))))
        i++;
    return i;
}

/* How the backend is to choose the next token of s, or one behind `ahead` guesses. */
static void describe(struct seq *s, int ahead, struct pick *p)
{
    struct sample_rules rules;
    int32_t only = rules_of(s, ahead, &rules);
    bool with_logprob = wants_logprob(s->request);
    if (only >= 0) {
        *p = (struct pick){.kind = with_logprob ? PICK_LOGPROB : PICK_NONE, .token = only};
        return;
    }
    sample_describe(&s->sample, &rules, p);
    p->kind = PICK_TOKEN;
    p->wants_logprob = with_logprob;
}

/* What becomes of the logits of a deferred step: rows that are handed out, or that more than one
 * token is made from, come to the host; so do those of a choice that had to compute its prompt
 * itself, since the backend's log-probabilities may differ from ours in the last bit. */
static void plan_picks(struct engine *g, const struct batch *b)
{
    struct pick *at = g->pick;
    for (int i = 0; i < b->n_seq; i++) {
        struct planned *p = &g->of_seq[i];
        struct seq *s = p->seq;
        const struct request *r = s->request;
        bool next = s->n_done + b->seq[i].n_row - p->n_draft == s->n_ids && r->want == ROWS_NONE;
        for (int k = 0; k < p->n_logit; k++)
            at[k] = (struct pick){.kind = PICK_LOGITS};
        p->n_picked = 1 + p->n_draft;
        if (next && !wants_all(s) && r->par.n_top == 0 && !is_first_of_many(s)) {
            p->n_picked = 1 + rules_last(s, p->draft, p->n_draft);
            for (int k = 0; k < p->n_logit; k++)
                if (k < p->n_picked)
                    describe(s, k, &at[k]);
                else
                    at[k] = (struct pick){.kind = PICK_NONE};
        }
        at += p->n_logit;
    }
}

/* The step itself. Where the backend picks, it computes while masks and rules are made. */
static status compute(struct engine *g, struct batch *b, struct step_out *out, struct err *e)
{
    b->defer = g->backend->pick != NULL;
    begin_masks(g, b);
    uint64_t start = clock_ns();
    status st = g->backend->step(g->backend, b, out, e);
    uint64_t ns = clock_ns() - start;
    ahead_finish(&g->ahead);
    if (st == OK && b->defer) {
        plan_picks(g, b);
        st = g->backend->pick(g->backend, g->pick, b->n_logit, e);
        ns = clock_ns() - start;
    }
    g->count.step_ns += ns;
    g->count.n_step++;
    g->count.n_row += (uint64_t)b->n_row;
    if (b->n_logit == b->n_row)
        gain_measured(&g->gain, b->n_row, ns);
    /* What a row of a prompt takes, or while there was none, any row. */
    double row_ns = (double)ns / b->n_row, *mean = &g->sched.row_ns;
    if (b->n_row >= MANY_ROWS || *mean == 0)
        *mean += (row_ns - *mean) / (*mean > 0 ? 8 : 1);
    return st;
}

/* The rows behind right guesses whose rules were not known before: one row of each such sequence,
 * as long as there are any. */
static void pick_on(struct engine *g, const struct batch *b, int n_open)
{
    while (n_open > 0) {
        struct err e = {0};
        struct pick *at = g->pick;
        for (int i = 0; i < b->n_seq; at += g->of_seq[i++].n_logit) {
            struct planned *p = &g->of_seq[i];
            for (int k = 0; k < p->n_logit; k++)
                at[k] = (struct pick){.kind = PICK_NONE};
            if (p->open)
                describe(p->seq, 0, &at[p->n_picked++]);
        }
        uint64_t start = clock_ns();
        status st = g->backend->pick(g->backend, g->pick, b->n_logit, &e);
        g->count.step_ns += clock_ns() - start;
        at = g->pick;
        for (int i = 0; i < b->n_seq; at += g->of_seq[i++].n_logit) {
            struct planned *p = &g->of_seq[i];
            if (!p->open)
                continue;
            if (st < 0)
                fail(g, p->seq, &e);
            p->open = st == OK && take_drafts(g, p, NULL, at);
            n_open -= !p->open;
        }
    }
}

static void step(struct engine *g, struct batch *b)
{
    struct step_out out;
    struct err e = {0};
    status st = compute(g, b, &out, &e);
    int n_open = 0;
    if (st == E_NUMERIC && (b->n_seq > 1 || g->of_seq[0].n_draft > 0)) {
        step_each(g, b);
        return;
    }
    for (int i = 0, i_logit = 0; i < b->n_seq; i++) {
        struct planned *p = &g->of_seq[i];
        const struct pick *pick = b->defer && p->n_logit > 0 ? g->pick + i_logit : NULL;
        const float *logits = NULL;
        if (st == OK && !b->defer && out.logits)
            logits = out.logits + (size_t)i_logit * (size_t)g->spec->n_vocab;
        i_logit += p->n_logit;
        if (st < 0)
            fail(g, p->seq, &e);
        else
            p->open = take_step(g, p, b->seq[i].n_row, logits, pick);
        n_open += p->open;
    }
    pick_on(g, b, n_open);
}

/* ---- the thread ---- */

/* Takes over what was submitted; false: the engine is to stop. */
static bool take_inbox(struct engine *g)
{
    pthread_mutex_lock(&g->lock);
    struct request *r = g->inbox;
    g->inbox = g->inbox_last = NULL;
    g->kicked = false;
    bool quit = g->quit;
    pthread_mutex_unlock(&g->lock);
    for (struct request *next; r; r = next) {
        next = r->next_inbox;
        g->count.n_submitted++;
        if (r->deadline_ns && (!g->next_deadline || r->deadline_ns < g->next_deadline))
            g->next_deadline = r->deadline_ns;
        sched_add(&g->sched, &r->seq[0]);
        if (atomic_load(&r->cancelled))
            atomic_store(&g->swept, false); /* a sweep before now could not find it */
    }
    return !quit;
}

static void publish_stats(struct engine *g)
{
    struct engine_stats *c = &g->count;
    const struct sched *q = &g->sched;
    c->n_running = q->n_running;
    c->n_waiting = q->n_waiting;
    c->free_full = q->kv.full.n_free;
    c->free_window = q->kv.win.n_free;
    c->peak_full = c->pages_full - q->kv.full.min_free;
    c->peak_window = c->pages_window - q->kv.win.min_free;
    c->cached_full = q->prefix.n_node;
    c->cached_window = q->prefix.n_win;
    c->n_preempt = q->n_preempt;
    c->n_swap_out = q->swap.n_out;
    c->n_swap_in = q->swap.n_in;
    c->n_evict = q->prefix.n_evict;
    c->n_evict_window = q->prefix.n_evict_win;
    pthread_mutex_lock(&g->lock);
    g->stats = *c;
    pthread_mutex_unlock(&g->lock);
}

/* Nothing can be planned: sleeps until somebody kicks, a deadline or a scripted delay passes. */
static void idle(struct engine *g)
{
    uint64_t until = g->next_deadline ? g->next_deadline : UINT64_MAX;
    bool again = g->sched.new_slow; /* somebody waiting may take its place */
    g->sched.new_slow = false;
    if (again)
        return;
    for (struct seq *s = g->sched.running; s; s = s->next) {
        if (s->starved)
            return; /* it comes first in the next round */
        if (s->wait_until && s->wait_until < until)
            until = s->wait_until;
    }
    struct timespec t = {.tv_sec = (time_t)(until / 1000000000),
                         .tv_nsec = (long)(until % 1000000000)};
    pthread_mutex_lock(&g->lock);
    while (!g->kicked && !g->quit) {
        if (until == UINT64_MAX)
            pthread_cond_wait(&g->wake, &g->lock);
        else if (pthread_cond_timedwait(&g->wake, &g->lock, &t) != 0)
            break;
    }
    pthread_mutex_unlock(&g->lock);
}

static void *engine_main(void *arg)
{
    struct engine *g = arg;
    while (take_inbox(g)) {
        struct batch b;
        uint64_t now = clock_ns();
        sweep(g, now);
        admit(g, now);
        plan(g, &b, now);
        if (b.n_row > 0)
            step(g, &b);
        publish_stats(g);
        if (b.n_row == 0)
            idle(g);
    }
    struct err e;
    err_set(&e, E_CANCEL, "the engine was closed");
    while (g->sched.running)
        end_request(g, g->sched.running->request, &e);
    while (g->sched.waiting)
        end_request(g, g->sched.waiting->request, &e);
    return NULL;
}

/* ---- opening and closing ---- */

static void cond_init(pthread_cond_t *c)
{
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(c, &a);
    pthread_condattr_destroy(&a);
}

/* The tokens before which the prefix cache keeps snapshots. */
static void set_marks(struct prefix *p, const struct vocab *v)
{
    static const enum special ends[PREFIX_MAX_MARK] = {SP_START, SP_END, SP_CALL, SP_RETURN};
    for (int i = 0; v && i < PREFIX_MAX_MARK; i++) {
        int id = vocab_special(v, ends[i]);
        if (id >= 0)
            p->mark[p->n_mark++] = id;
    }
}

static status open_script(struct engine *g, const struct engine_opts *o, struct err *e)
{
    status st = OK;
    g->script = mem_calloc(1, sizeof *g->script);
    if (!g->script)
        TRY(E_NOMEM);
    TRY(script_open(g->script, o->script, o->n_script, o->vocab, o->weights->spec.n_vocab, e));
    TRY(backend_scripted_open(o->weights, &g->backend, e));
out:
    return st;
}

/* The card if asked for; the processor if asked for, or if no card here runs this model. */
static status open_backend(struct engine *g, const struct engine_opts *o, struct err *e)
{
    if (o->device != DEVICE_CPU) {
        status st = backend_cuda_open(o->weights, &o->compute, &g->backend, e);
        if (st == OK || o->device == DEVICE_CUDA)
            return st;
    }
    return backend_cpu_open(o->weights, &o->compute, &g->backend, e);
}

static status open_parts(struct engine *g, const struct engine_opts *o, struct err *e)
{
    int window = max_int(1, g->spec->window); /* a model without sliding layers may say 0 */
    status st = OK;
    if (o->script)
        TRY(open_script(g, o, e));
    else
        TRY(open_backend(g, o, e));
    g->count.backend = g->backend->name;
    int chunk = o->chunk > 0 ? o->chunk : g->backend->chunk;
    /* A script is not sped up unless asked for: it plays a model that takes its time. */
    g->draft_always = o->speculate > 0;
    g->max_draft = o->speculate > 0                  ? min_int(o->speculate, LOGIT_ROWS)
                   : o->speculate == 0 && !o->script ? AUTO_DRAFT
                                                     : 0;
    g->max_rows = max_int(chunk, LOGIT_ROWS) + o->max_requests + (g->max_draft ? LOGIT_ROWS : 0);
    g->max_logit_rows = o->max_requests + LOGIT_ROWS;
    struct kv_plan plan = {
        .page_tok = PAGE_TOK, .max_rows = g->max_rows, .max_logit_rows = g->max_logit_rows};
    g->sched.kv = (struct kv){.page_tok = PAGE_TOK, .window = window};
    g->sched.chunk = chunk;
    TRY(plan_pages(g, o, &plan, e));
    plan_swap(g, o->swap_bytes, &plan);
    TRY(g->backend->kv_init(g->backend, &plan, e));
    g->count.weight_bytes = o->weights->n_bytes;
    if (g->backend->memory)
        g->backend->memory(g->backend, &g->count.weight_bytes, &g->count.work_bytes);
    TRY(sched_open(&g->sched, &plan, window, o->max_requests, chunk, o->max_queue + o->max_requests,
                   o->no_prefix_cache, g->backend));
    set_marks(&g->sched.prefix, o->vocab);
    TRY(sample_scratch_open(&g->scratch, g->spec->n_vocab));
    TRY(ahead_open(&g->ahead, o->max_requests, e));
    g->top = mem_array(REQUEST_MAX_TOP, sizeof *g->top);
    g->tok = mem_array((size_t)g->max_rows, sizeof *g->tok);
    g->logit_row = mem_array((size_t)g->max_logit_rows, sizeof *g->logit_row);
    g->seq = mem_array((size_t)o->max_requests, sizeof *g->seq);
    g->of_seq = mem_array((size_t)o->max_requests, sizeof *g->of_seq);
    g->pick = mem_array((size_t)g->max_logit_rows, sizeof *g->pick);
    if (!g->top || !g->tok || !g->logit_row || !g->seq || !g->of_seq || !g->pick)
        TRY(E_NOMEM);
    publish_stats(g);
    int rc = pthread_create(&g->thread, NULL, engine_main, g);
    if (rc != 0)
        TRY(err_set(e, E_LIMIT, "cannot start the engine's thread: %s", strerror(rc)));
    g->started = true;
out:
    return st;
}

status engine_open(const struct engine_opts *o, struct engine **out, struct err *e)
{
    *out = NULL;
    struct engine *g = mem_calloc(1, sizeof *g);
    if (!g)
        return err_set(e, E_NOMEM, "out of memory");
    pthread_mutex_init(&g->lock, NULL);
    cond_init(&g->wake);
    cond_init(&g->drained);
    g->fd = -1;
    g->spec = &o->weights->spec;
    g->vocab = o->vocab;
    g->constrain = o->constrain;
    g->n_ctx = o->n_ctx;
    g->max_live = o->max_queue + o->max_requests;
    atomic_init(&g->swept, true);
    status st = open_parts(g, o, e);
    if (st < 0) {
        if (st == E_NOMEM && e && e->code != E_NOMEM)
            err_set(e, E_NOMEM, "out of memory");
        engine_close(g);
        return st;
    }
    *out = g;
    return OK;
}

void engine_close(struct engine *g)
{
    if (!g)
        return;
    if (g->started) {
        pthread_mutex_lock(&g->lock);
        g->quit = true;
        pthread_cond_signal(&g->wake);
        pthread_mutex_unlock(&g->lock);
        pthread_join(g->thread, NULL);
    }
    if (g->backend)
        g->backend->close(g->backend);
    if (g->script)
        script_close(g->script);
    mem_free(g->script);
    sched_close(&g->sched);
    sample_scratch_close(&g->scratch);
    ahead_close(&g->ahead);
    mem_free(g->top);
    mem_free(g->tok);
    mem_free(g->logit_row);
    mem_free(g->seq);
    mem_free(g->of_seq);
    mem_free(g->pick);
    if (g->fd >= 0)
        close(g->fd);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->wake);
    pthread_cond_destroy(&g->drained);
    mem_free(g);
}

void engine_stats(struct engine *g, struct engine_stats *s)
{
    pthread_mutex_lock(&g->lock);
    *s = g->stats;
    pthread_mutex_unlock(&g->lock);
}

status engine_drain(struct engine *g, int timeout_ms)
{
    uint64_t until = clock_ns() + (uint64_t)max_int(0, timeout_ms) * 1000000;
    struct timespec t = {.tv_sec = (time_t)(until / 1000000000),
                         .tv_nsec = (long)(until % 1000000000)};
    status st = OK;
    pthread_mutex_lock(&g->lock);
    g->draining = true;
    while (st == OK && g->n_live > 0) {
        if (timeout_ms < 0)
            pthread_cond_wait(&g->drained, &g->lock);
        else if (pthread_cond_timedwait(&g->drained, &g->lock, &t) != 0)
            st = E_BUSY;
    }
    pthread_mutex_unlock(&g->lock);
    return st;
}
