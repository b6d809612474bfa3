#include "engine/draft.h"
#include "base/mem.h"
#include "base/num.h"

#include <string.h>

enum {
    MAX_LAST = 1 << 15, /* more runs than that share places: then the older are found less often */
    MAX_WALK = 16,      /* earlier places that are compared */
    MAX_LEN = 32        /* tokens compared backwards */
};

/* What is believed of a guess before there is experience, as so many guesses. */
static const float prior[DRAFT_CLASSES] = {0.4f, 0.5f, 0.65f, 0.8f, 0.9f};
static const float prior_weight = 3, keep = 0.97f;

status draft_open(struct draft *d, int n_max)
{
    *d = (struct draft){.n_last = 64, .n_max = n_max};
    while (d->n_last < n_max && d->n_last < MAX_LAST)
        d->n_last *= 2;
    d->last = mem_calloc((size_t)d->n_last, sizeof *d->last);
    d->before = mem_array((size_t)n_max, sizeof *d->before);
    if (d->last && d->before)
        return OK;
    draft_close(d);
    return E_NOMEM;
}

void draft_close(struct draft *d)
{
    mem_free(d->last);
    mem_free(d->before);
    *d = (struct draft){0};
}

/* The place of the run that ends before position n >= DRAFT_RUN. */
static int32_t *last_of(const struct draft *d, const int32_t *ids, int n)
{
    uint32_t h = 0;
    for (int i = n - DRAFT_RUN; i < n; i++)
        h = (h ^ (uint32_t)ids[i]) * 0x9E3779B1u;
    return &d->last[(h >> 16 ^ h) & (uint32_t)(d->n_last - 1)];
}

/* Enters the run that ends before position n, which has a token or will have one. */
static void enter(struct draft *d, const int32_t *ids, int n)
{
    if (n < DRAFT_RUN || n >= d->n_max)
        return;
    int32_t *last = last_of(d, ids, n);
    d->before[n] = *last;
    *last = n;
}

/* Tokens before positions a and b that are the same, up to MAX_LEN. */
static int common(const int32_t *ids, int a, int b)
{
    int most = min_int(MAX_LEN, min_int(a, b)), n = 0;
    while (n < most && ids[a - 1 - n] == ids[b - 1 - n])
        n++;
    return n;
}

/* The earlier position with the longest past in common with the end, the latest among equals. */
static void find(struct draft *d, const int32_t *ids, int n)
{
    d->at = d->len = 0;
    if (n < DRAFT_RUN)
        return;
    int32_t p = *last_of(d, ids, n);
    for (int i = 0; p > 0 && i < MAX_WALK && d->len < MAX_LEN; i++, p = d->before[p]) {
        int len = common(ids, p, n);
        if (len >= DRAFT_RUN && len > d->len) {
            d->len = len;
            d->at = p;
        }
    }
}

static int class_of(int len)
{
    return len < 4 ? 0 : len < 6 ? 1 : len < 10 ? 2 : len < 20 ? 3 : 4;
}

void draft_begin(struct draft *d, const int32_t *ids, int n)
{
    if (!d->n_last)
        return;
    for (int i = DRAFT_RUN; i < n; i++)
        enter(d, ids, i);
    find(d, ids, n);
    enter(d, ids, n);
}

void draft_copy(struct draft *to, const struct draft *from, int n)
{
    if (!to->n_last)
        return;
    memcpy(to->last, from->last, (size_t)to->n_last * sizeof *to->last);
    memcpy(to->before, from->before, (size_t)min_int(n + 1, to->n_max) * sizeof *to->before);
    to->at = from->at;
    to->len = from->len;
}

void draft_add(struct draft *d, const int32_t *ids, int n)
{
    if (!d->n_last)
        return;
    if (d->at) {
        int c = class_of(d->len);
        bool right = ids[d->at] == ids[n - 1];
        d->n_guess[c] = d->n_guess[c] * keep + 1;
        d->n_right[c] = d->n_right[c] * keep + (right ? 1 : 0);
        d->at += right ? 1 : -d->at;
        d->len++;
    }
    if (!d->at)
        find(d, ids, n);
    enter(d, ids, n);
}

float draft_chance(const struct draft *d)
{
    int c = class_of(d->len);
    return d->at ? (d->n_right[c] + prior_weight * prior[c]) / (d->n_guess[c] + prior_weight) : 0;
}

int draft_get(const struct draft *d, const int32_t *ids, int n, int k, int32_t *out)
{
    if (!d->at)
        return 0;
    /* Where the guess runs into the end it goes on with itself: a period. */
    for (int i = 0; i < k; i++)
        out[i] = d->at + i < n ? ids[d->at + i] : out[d->at + i - n];
    return k;
}
