/* Who runs next, and with which pages.
 *
 * Rules. Running sequences are kept by age (order of submission). Waiting ones are chosen by
 * priority, then those that ran before, then the tenant with the least service so far, then age:
 * start-time fair queueing by rows. The first choice that does not fit blocks the rest, so that a
 * long prompt is not overtaken for ever.
 *
 * Pages are taken as sequences grow. When none are left, idle pages of the prefix cache go first,
 * then a running sequence is preempted: it gives its pages to the prefix cache and waits, with
 * prompt and generated tokens as the rows to feed, or with copies of its pages in the host's memory
 * (swap.h), where there is room and copying takes less time than computing. Rows do not depend on
 * how they were batched and random numbers only on the position, so it resumes with the same
 * tokens. Who may be preempted: whose reader is slow; else who is younger than the one in need. One
 * that was preempted and has made no token since is spared, unless the oldest is in need. So the
 * oldest always progresses, and there is no livelock. Nobody loses its pages who is already part of
 * the step.
 */
#include "base/mem.h"
#include "base/num.h"
#include "base/rng.h"
#include "engine/request.h"

status sched_open(struct sched *q, const struct kv_plan *plan, int window, int max_running,
                  int chunk, int max_live, bool no_cache, struct backend *b)
{
    *q = (struct sched){.max_running = max_running, .chunk = chunk, .max_tenant = max_live};
    uint32_t r[4];
    rng_block(rng_os_seed(), 0, 0, r);
    struct hash_key key = {(uint64_t)r[0] << 32 | r[1], (uint64_t)r[2] << 32 | r[3]};
    status st = OK;
    TRY(kv_open(&q->kv, plan, window));
    TRY(swap_open(&q->swap, plan, b));
    TRY(prefix_open(&q->prefix, &q->kv, !no_cache, key));
    q->tenant = mem_calloc((size_t)max_live, sizeof *q->tenant);
    if (!q->tenant)
        TRY(E_NOMEM);
out:
    if (st < 0)
        sched_close(q);
    return st;
}

void sched_close(struct sched *q)
{
    prefix_close(&q->prefix);
    kv_close(&q->kv);
    swap_close(&q->swap);
    mem_free(q->tenant);
    *q = (struct sched){0};
}

/* ---- lists ---- */

static void list_insert(struct seq **list, struct seq *s)
{
    struct seq *before = NULL;
    struct seq **at = list;
    while (*at && ((*at)->age < s->age || ((*at)->age == s->age && (*at)->index < s->index))) {
        before = *at;
        at = &before->next;
    }
    s->prev = before;
    s->next = *at;
    if (s->next)
        s->next->prev = s;
    *at = s;
}

static void list_remove(struct seq **list, struct seq *s)
{
    *(s->prev ? &s->prev->next : list) = s->next;
    if (s->next)
        s->next->prev = s->prev;
    s->prev = s->next = NULL;
}

/* ---- tenants ---- */

static struct tenant *tenant_of(struct sched *q, uint64_t id)
{
    struct tenant *t = NULL, *spare = NULL;
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < q->n_tenant; i++) {
        struct tenant *k = &q->tenant[i];
        if (k->n_live > 0 && k->service < least)
            least = k->service;
        if (k->id == id)
            t = k;
        else if (k->n_live == 0 && (!spare || k->service < spare->service))
            spare = k;
    }
    if (!t) {
        /* As many entries as sequences may live: there is room or an entry nobody uses. */
        t = q->n_tenant < q->max_tenant ? &q->tenant[q->n_tenant++] : spare;
        ASSERT(t);
        *t = (struct tenant){.id = id};
    }
    /* Who was away doesn't come back with a credit. */
    if (t->n_live == 0 && least != UINT64_MAX && t->service < least)
        t->service = least;
    return t;
}

void sched_charge(struct seq *s, int n_row)
{
    s->tenant->service += (uint64_t)n_row;
}

/* ---- pages ---- */

static struct prefix_seq view(struct seq *s)
{
    return (struct prefix_seq){.tenant = s->request->par.tenant,
                               .ids = s->ids,
                               .n_ids = s->n_ids,
                               .n_prompt = s->n_prompt,
                               .kv = &s->kv};
}

/* Must every prompt position be computed, because its logits are wanted, or to measure that? What
 * was preempted may take its own pages up again. */
static bool needs_rows(const struct seq *s)
{
    return s->request->want != ROWS_NONE || (s->request->par.no_cache && !s->front) ||
           (s->request->par.prompt_logprob && s->index == 0 && s->n_sent < s->n_prompt);
}

static void release(struct sched *q, struct seq *s)
{
    struct prefix_seq v = view(s);
    prefix_release(&q->prefix, &v, s->n_done);
    s->n_done = 0;
    q->n_release++;
}

void sched_learn(struct sched *q, struct seq *s)
{
    struct prefix_seq v = view(s);
    if (s->request->want == ROWS_NONE)
        prefix_learn(&q->prefix, &v, s->n_done);
}

void sched_add(struct sched *q, struct seq *s)
{
    s->tenant = tenant_of(q, s->request->par.tenant);
    s->tenant->n_live++;
    s->state = SEQ_WAITING;
    s->tried = UINT64_MAX;
    list_insert(&q->waiting, s);
    q->n_waiting++;
}

static void run(struct sched *q, struct seq *s)
{
    s->state = SEQ_RUNNING;
    list_insert(&q->running, s);
    q->n_running++;
}

static void unwait(struct sched *q, struct seq *s)
{
    list_remove(&q->waiting, s);
    q->n_waiting--;
}

static bool goes_before(const struct seq *a, const struct seq *b)
{
    const struct request *ra = a->request, *rb = b->request;
    if (ra->par.priority != rb->par.priority)
        return ra->par.priority > rb->par.priority;
    if (a->front != b->front)
        return a->front;
    if (a->tenant->service != b->tenant->service)
        return a->tenant->service < b->tenant->service;
    return a->age < b->age;
}

bool sched_fork(struct sched *q, struct seq *from, struct seq *to, struct prefix_copy *copy)
{
    if (q->n_running >= q->max_running ||
        !prefix_fork(&q->prefix, &from->kv, &to->kv, from->n_done, copy))
        return false;
    to->tenant = from->tenant;
    to->tenant->n_live++;
    to->n_done = from->n_done;
    to->n_reused = to->n_prompt;
    run(q, to);
    return true;
}

void sched_end(struct sched *q, struct seq *s)
{
    if (s->state == SEQ_RUNNING) {
        list_remove(&q->running, s);
        q->n_running--;
        release(q, s);
    } else if (s->state == SEQ_WAITING) {
        unwait(q, s);
        swap_drop(&q->swap, &s->swapped);
    }
    if (s->tenant)
        s->tenant->n_live--;
    s->tenant = NULL;
    s->state = SEQ_DONE;
}

static void preempt(struct sched *q, struct seq *s)
{
    list_remove(&q->running, s);
    q->n_running--;
    if (q->swap.full.n > 0 && q->swap_ns < q->row_ns)
        (void)swap_out(&q->swap, &q->kv, &s->kv, s->n_done, &s->swapped);
    release(q, s);
    s->state = SEQ_WAITING;
    s->front = s->shielded = true;
    s->starved = false;
    s->tried = UINT64_MAX;
    list_insert(&q->waiting, s);
    q->n_waiting++;
    q->n_preempt++;
}

/* Who gives way to s: the youngest whose reader is slow, else the youngest of all that are younger
 * than s. */
static struct seq *victim(const struct sched *q, const struct seq *s, bool oldest, uint64_t step)
{
    struct seq *slow = NULL, *young = NULL;
    for (struct seq *k = q->running; k; k = k->next) {
        if (k == s || k->planned == step || k->kv.n_full == 0)
            continue;
        if (k->paused)
            slow = k;
        else if (k->age > s->age && (oldest || !k->shielded))
            young = k;
        else if (k->age == s->age && k->index > s->index && (oldest || !k->shielded))
            young = k;
    }
    return slow ? slow : young;
}

static bool is_slow(struct seq *s, unsigned least_room)
{
    return atomic_load(&s->request->rows_full) || seq_room(s) < least_room;
}

bool sched_runnable(struct sched *q, struct seq *s, uint64_t now)
{
    unsigned half = s->n_slot / 2;
    bool was = s->paused;
    s->paused = is_slow(s, was ? half : 4); /* a prompt's row may need a few slots */
    if (s->paused) {
        /* The flag before the second look: a reader who makes room in between is noticed. */
        atomic_store(&s->wants_kick, true);
        s->paused = is_slow(s, half);
        q->new_slow |= s->paused && !was;
    }
    if (s->wait_until <= now)
        s->wait_until = 0;
    return !s->paused && !s->wait_until;
}

/* The waiting sequence that is next; those whose reader is slow are passed over. */
static struct seq *pick(struct sched *q, uint64_t now)
{
    struct seq *best = NULL;
    for (struct seq *s = q->waiting; s; s = s->next)
        if ((!best || goes_before(s, best)) && (!s->paused || sched_runnable(q, s, now)))
            best = s;
    return best;
}

/* Takes the pages of a running sequence whose reader is slow; false when there is none. */
static bool preempt_slow(struct sched *q)
{
    for (struct seq *s = q->running; s; s = s->next)
        if (s->paused) {
            preempt(q, s);
            return true;
        }
    return false;
}

static bool fits(const struct sched *q, const struct seq *s)
{
    const struct kv *kv = &q->kv;
    int need = kv_pages(kv, s->n_ids + 1) - s->kv.n_full;
    int need_win = kv_window_pages(kv, s->n_ids, kv->page_tok) - (s->kv.win_hi - s->kv.win_lo);
    int spare = min_int(q->n_running + 1, kv->full.n / 8); /* for those who run already */
    return q->n_running == 0 ||
           (prefix_room(&q->prefix) >= need + spare && prefix_room_window(&q->prefix) >= need_win);
}

/* A sequence that fits gets back what the host's memory has of it beyond the `reused` positions
 * that the prefix cache gave it. Returns the positions it has. */
static int come_back(struct sched *q, struct seq *s, int reused)
{
    struct prefix_seq v = view(s);
    int n = s->swapped.n;
    if (n > reused && prefix_extend(&q->prefix, &v, n, 1)) {
        swap_in(&q->swap, &s->kv, reused / q->kv.page_tok, &s->swapped);
        reused = n;
    } else if (n > reused) { /* pages lack after all: window pages for `reused` are gone */
        release(q, s);
        reused = needs_rows(s) ? 0 : prefix_match(&q->prefix, &v);
    }
    swap_drop(&q->swap, &s->swapped);
    return reused;
}

struct seq *sched_admit(struct sched *q, uint64_t now)
{
    struct seq *s = q->waiting ? pick(q, now) : NULL;
    if (!s || (q->n_running >= q->max_running && !preempt_slow(q)))
        return NULL;
    if (s->tried == q->n_release && q->n_running > 0 && !preempt_slow(q))
        return NULL; /* nothing came back since it didn't fit */
    struct prefix_seq v = view(s);
    int reused = needs_rows(s) ? 0 : prefix_match(&q->prefix, &v);
    while (!fits(q, s))
        if (!preempt_slow(q)) {
            release(q, s);
            s->tried = q->n_release;
            return NULL;
        }
    s->n_done = reused = come_back(q, s, reused);
    if (!s->front)
        s->n_reused = min_int(reused, s->n_prompt);
    unwait(q, s);
    run(q, s);
    return s;
}

int sched_extend(struct sched *q, struct seq *s, int n, uint64_t step)
{
    struct prefix_seq v = view(s);
    struct seq *oldest = q->running;
    while (oldest != s && (oldest->paused || oldest->wait_until))
        oldest = oldest->next;
    while (!prefix_extend(&q->prefix, &v, s->n_done, n)) {
        struct seq *other = victim(q, s, s == oldest, step);
        if (!other) {
            int fit = min_int(s->kv.n_full, s->kv.win_hi) * q->kv.page_tok - s->n_done;
            s->starved = s == oldest && fit <= 0;
            return max_int(0, min_int(fit, n));
        }
        preempt(q, other);
    }
    s->starved = false;
    return n;
}

int sched_extend_more(struct sched *q, struct seq *s, int n_has, int n)
{
    struct prefix_seq v = view(s);
    bool spare = min_int(prefix_room(&q->prefix), prefix_room_window(&q->prefix)) > q->n_running;
    if (spare && prefix_extend(&q->prefix, &v, s->n_done, n_has + n))
        return n;
    int fit = min_int(s->kv.n_full, s->kv.win_hi) * q->kv.page_tok - s->n_done - n_has;
    return max_int(0, min_int(fit, n));
}

struct seq *sched_prefill(struct sched *q, uint64_t step, uint64_t now)
{
    struct seq *best = NULL;
    for (struct seq *s = q->running; s; s = s->next)
        if (s->looked_at != step && s->n_ids - s->n_done > 1 && sched_runnable(q, s, now) &&
            (!best || goes_before(s, best)))
            best = s;
    return best;
}
