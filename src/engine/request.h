/* Inside the engine: requests, their sequences, and who may touch what.
 *
 * A request has one sequence per choice. The engine thread owns everything of a sequence except
 * `rd` (the reader's) and what stands under the request's lock. A request lives until both sides
 * let go: the reader by request_free, the engine when the last sequence has ended.
 */
#ifndef ENGINE_REQUEST_H
#define ENGINE_REQUEST_H

#include "engine/ahead.h"
#include "engine/budget.h"
#include "engine/draft.h"
#include "engine/engine.h"
#include "engine/gain.h"
#include "engine/prefix.h"
#include "engine/stop.h"
#include "engine/swap.h"

#include <pthread.h>
#include <stdatomic.h>

/* A token on its way to the reader. */
struct slot {
    int32_t token;
    float logprob;
    bool prompt;
    int n_hide;
    uint64_t t_ns;
    uint64_t from, to; /* its visible bytes, while a stop text is undecided */
};

enum seq_state {
    SEQ_UNBORN, /* a choice that waits for the first one to compute the prompt */
    SEQ_WAITING,
    SEQ_RUNNING,
    SEQ_DONE
};

enum want_rows { ROWS_NONE, ROWS_LAST, ROWS_ALL }; /* logits handed out instead of sampled */

struct seq {
    struct request *request;
    int index;
    struct seq *prev, *next; /* in the scheduler's list */
    enum seq_state state;
    uint64_t age; /* order of submission */
    struct tenant *tenant;

    int32_t *ids; /* [n_max] prompt, then what was generated */
    int n_prompt, n_ids, n_max;
    int n_done; /* positions in the cache */
    struct kv_seq kv;
    struct swapped swapped; /* while it waits: pages in the host's memory */
    int n_sent;             /* prompt positions whose logits were handed out */
    int n_reused, n_computed;

    bool front;                     /* was running before: goes before what never was */
    bool shielded;                  /* preempted, and no token since */
    bool starved;                   /* lacked a page though it was the oldest */
    bool paused;                    /* its reader is slow */
    uint64_t planned;               /* number of the last step it was part of */
    uint64_t looked_at;             /* number of the last step that had a look at it */
    uint64_t tried;                 /* pages given back when admission last failed */
    uint64_t wait_until;            /* scripted delay */
    uint64_t due_ns;                /* when the script's next token is due */
    const struct script_line *line; /* its tokens, or NULL */
    int i_line;                     /* of them, taken */

    struct budget budget;
    struct stop stop;
    struct sample_params sample;
    struct sample_seen seen;
    struct draft draft;  /* what it will probably say next */
    struct turn *turn;   /* what its tokens are held to; NULL: nothing */
    uint32_t *mask_bits; /* [(n_vocab + 31) / 32] of a turn */
    bool mask_ready;     /* mask_bits are those of the next token */
    bool off_turn;       /* the script wrote what the turn forbids: it only was watched */

    struct slot *slot;      /* [n_slot] ring */
    int32_t *top_id;        /* [n_slot, n_top] */
    float *top_logprob;     /* [n_slot, n_top] */
    unsigned n_slot;        /* a power of two */
    unsigned wr;            /* engine: next to write */
    atomic_uint rd;         /* reader: next to read */
    atomic_bool wants_kick; /* the engine waits for the reader to make room */

    /* under the request's lock */
    unsigned published; /* the reader may read up to here */
    enum finish finish;
    int i_stop;
    struct err err;
    uint64_t t_finish;
    bool finish_delivered;
};

struct request {
    struct engine *engine;
    struct request *next_inbox;
    atomic_int refs;
    atomic_bool cancelled;
    struct request_params par;
    uint64_t deadline_ns; /* 0: none */
    int32_t *stop_id, *bias_id;
    float *bias;
    int32_t *forbidden; /* [n_forbidden] what min_tok forbids */
    int n_forbidden;
    struct seq *seq; /* [par.n] */
    int n_left;      /* engine: sequences not done */

    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool waiting;     /* the reader sleeps on cond */
    struct seq *lent; /* reader: its slot at rd is being read */
    int next_index;   /* choice to look at first, for fairness among choices */

    /* one row block for engine_rows, handed over by `rows_full` under the lock */
    enum want_rows want;
    float *rows; /* [cap_rows, n_vocab] */
    int cap_rows, n_rows, row0;
    atomic_bool rows_full;

    /* under the engine's lock */
    struct request *next_ready;
    bool listed, freed;
};

struct sched {
    struct kv kv;
    struct prefix prefix;
    struct swap swap;
    double swap_ns,
        row_ns; /* of a position: about what copying it out and in, and computing it take */
    struct seq *waiting, *running; /* by age */
    int n_waiting, n_running, max_running, chunk;
    struct tenant *tenant; /* [n_tenant of max_tenant] */
    int n_tenant, max_tenant;
    uint64_t n_release; /* times that pages came back */
    uint64_t n_preempt;
    bool new_slow; /* a running sequence's reader turned out to be slow */
};

struct tenant {
    uint64_t id;
    uint64_t service; /* rows computed for it; of a new one: the least of the active ones */
    int n_live;       /* sequences */
};

struct engine {
    const struct spec *spec;
    const struct vocab *vocab;
    struct constrain *constrain;
    struct backend *backend;
    struct script *script;
    int n_line; /* script lines handed out */
    int n_ctx, max_live, max_rows, max_logit_rows;
    struct sched sched;
    struct sample_scratch scratch;
    struct ahead ahead;
    int32_t *top; /* [REQUEST_MAX_TOP] */

    /* the batch under construction */
    int32_t *tok, *logit_row; /* [max_rows], [max_logit_rows] */
    struct batch_seq *seq;    /* [max_running] */
    struct planned {
        struct seq *seq;
        int n_logit; /* its logit rows, the first for position pos_logit */
        int pos_logit;
        int n_draft;          /* of its rows the last ones, whose tokens are guesses ... */
        const int32_t *draft; /* ... [n_draft], in the batch */
        /* Of the last token's row and the guesses': picked by now, and made into tokens. */
        int n_picked, n_taken;
        bool open;     /* the next one counts, but was not picked */
    } * of_seq;        /* [max_running] */
    struct pick *pick; /* [max_logit_rows] of a step that was deferred */
    int max_draft;     /* most guesses of one sequence in a step; 0: none are made */
    bool draft_always; /* as many, whether they pay or not */
    struct gain gain;
    uint64_t i_step;
    uint64_t next_deadline;    /* earliest; 0: none */
    struct engine_stats count; /* the engine thread's counters */

    pthread_t thread;
    bool started;
    int fd;
    atomic_bool use_ready; /* somebody asked for engine_fd or engine_ready */
    atomic_bool swept;     /* cleared by request_cancel: look for cancelled requests */

    pthread_mutex_t lock; /* held for moments only */
    pthread_cond_t wake, drained;
    bool kicked, quit, draining;
    int n_live; /* requests that the engine still has */
    uint64_t next_age;
    struct request *inbox, *inbox_last;
    struct request *ready, *ready_last;
    struct engine_stats stats; /* what engine_stats copies */
};

/* ---- request.c: the engine thread's side of delivery ---- */

unsigned seq_room(const struct seq *s); /* free slots */
/* Writes the next slot; the reader sees it when published. */
void seq_put(struct seq *s, const struct slot *slot, const int32_t *top_id,
             const float *top_logprob);
/* Publishes what was put, but for the last `held` slots. */
void seq_publish(struct seq *s, unsigned held);
void seq_publish_finish(struct seq *s, enum finish how, int i_stop, const struct err *e);
void request_unref(struct request *r);
void engine_kick(struct engine *g);

/* ---- sched.c ---- */

MUST_USE status sched_open(struct sched *q, const struct kv_plan *plan, int window, int max_running,
                           int chunk, int max_live, bool no_cache, struct backend *b);
void sched_close(struct sched *q);
/* A new sequence waits. */
void sched_add(struct sched *q, struct seq *s);
/* The waiting sequence that is next and fits now, made running; NULL: none. */
struct seq *sched_admit(struct sched *q, uint64_t now);
/* A new choice shares what `from` computed and runs; false: it has to wait instead. */
bool sched_fork(struct sched *q, struct seq *from, struct seq *to, struct prefix_copy *copy);
/* Pages for the next n rows of a running sequence; returns how many rows it can have, after
 * preempting others if it may. `step` marks sequences that are already part of this step. */
int sched_extend(struct sched *q, struct seq *s, int n, uint64_t step);
/* Pages for up to n more rows behind the n_has that sched_extend gave, as far as there are enough
 * for everybody; the number of rows. */
int sched_extend_more(struct sched *q, struct seq *s, int n_has, int n);
/* The next sequence to get prompt rows in this step; NULL: none. */
struct seq *sched_prefill(struct sched *q, uint64_t step, uint64_t now);
void sched_charge(struct seq *s, int n_row);
void sched_learn(struct sched *q, struct seq *s);
void sched_end(struct sched *q, struct seq *s); /* from any list; pages back */
/* Not while its reader is slow or its script pauses. */
bool sched_runnable(struct sched *q, struct seq *s, uint64_t now);

#endif
