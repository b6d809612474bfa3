/* What the files of the command line share. See README in this folder.
 *
 * A command is `status cmd_x(struct conf *, struct err *)`: it writes results with out_* and
 * returns OK or a code with one line in the error record; main.c prints the line and exits with
 * the code of docs/cli.md. The program uses gloss.h and the base library, nothing else.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/buf.h"
#include "base/conf.h"
#include "base/err.h"
#include "base/json.h"
#include "gloss.h"

#include <stdbool.h>
#include <stdint.h>

/* A mistake in the command line itself: exit code 2. Beside the codes of base/err.h. */
enum { E_USAGE = -100 };

/* Of `gloss run`, whose exit codes are the runner's: bad parameters (3), a run that failed (4). */
enum { E_PARAMS = -101, E_RUN = -102 };

/* Ceilings of what is read and kept. */
enum {
    CLI_TEXT_MAX = 1 << 30, /* bytes of a prompt, of standard input, of a batch file */
    CLI_ANSWER_MAX = 256 << 20
};

/* ---- table.c ---- */

enum cli_cmd {
    CMD_INFER,
    CMD_TOKENIZE,
    CMD_RENDER,
    CMD_PARSE,
    CMD_LOGITS,
    CMD_SCORE,
    CMD_SERVE,
    CMD_BENCH_LATENCY,
    CMD_BENCH_MEMORY,
    CMD_BENCH_ENERGY,
    CMD_BENCH_SERVE,
    CMD_BENCH_ABLATION,
    CMD_BENCH_GOVERNANCE,
    CMD_BENCH_UNIFY,
    CMD_BENCH_APE,
    CMD_BENCH_STUDY,
    CMD_BENCH_DECODE,
    CMD_BENCH_PREFILL,
    CMD_BENCH_ENGINE,
    CMD_BENCH_KERNELS,
    CMD_BENCH_FIDELITY,
    CMD_REPORT,
    CMD_EVAL,
    CMD_RUN,
    CMD_MLPERF_HARMONIZE,
    CMD_MLPERF_RUN,
    CMD_MLPERF_ACCURACY,
    CMD_MLPERF_COMPLIANCE,
    CMD_INFO,
    CMD_SYNTH,
    CMD_QUANTIZE,
    CMD_COMPLETION,
    CMD_HELP,
    N_CMD
};
extern const struct conf_table cli_table;

/* ---- the commands ---- */

MUST_USE status cmd_infer(struct conf *, struct err *);
MUST_USE status cmd_tokenize(struct conf *, struct err *);
MUST_USE status cmd_render(struct conf *, struct err *);
MUST_USE status cmd_parse(struct conf *, struct err *);
MUST_USE status cmd_logits(struct conf *, struct err *);
MUST_USE status cmd_score(struct conf *, struct err *);
MUST_USE status cmd_serve(struct conf *, struct err *);
MUST_USE status cmd_bench_kernels(struct conf *, struct err *);
MUST_USE status cmd_bench_fidelity(struct conf *, struct err *);
MUST_USE status cmd_bench_latency(struct conf *, struct err *);
MUST_USE status cmd_bench_memory(struct conf *, struct err *);
MUST_USE status cmd_bench_energy(struct conf *, struct err *);
MUST_USE status cmd_bench_serve(struct conf *, struct err *);
MUST_USE status cmd_bench_ablation(struct conf *, struct err *);
MUST_USE status cmd_bench_governance(struct conf *, struct err *);
MUST_USE status cmd_bench_unify(struct conf *, struct err *);
MUST_USE status cmd_bench_ape(struct conf *, struct err *);
MUST_USE status cmd_bench_study(struct conf *, struct err *);
MUST_USE status cmd_report(struct conf *, struct err *);
MUST_USE status cmd_bench_decode(struct conf *, struct err *);
MUST_USE status cmd_bench_prefill(struct conf *, struct err *);
MUST_USE status cmd_bench_engine(struct conf *, struct err *);
MUST_USE status cmd_mlperf_harmonize(struct conf *, struct err *);
MUST_USE status cmd_mlperf_run(struct conf *, struct err *);
MUST_USE status cmd_mlperf_accuracy(struct conf *, struct err *);
MUST_USE status cmd_mlperf_compliance(struct conf *, struct err *);
MUST_USE status cmd_eval(struct conf *, struct err *);
MUST_USE status cmd_run(struct conf *, struct err *);
MUST_USE status cmd_info(struct conf *, struct err *);
MUST_USE status cmd_synth(struct conf *, struct err *);
MUST_USE status cmd_quantize(struct conf *, struct err *);
MUST_USE status cmd_completion(struct conf *, struct err *);
MUST_USE status cmd_help(struct conf *, struct err *);

/* ---- main.c ---- */

/* The signal that asked to stop (SIGINT, SIGTERM), or 0. */
int cli_stopped(void);
/* From now on a first signal only sets cli_stopped, so that the command can clean up; without it,
 * and on a second signal, the process ends at once. */
void cli_catch_signals(void);
/* The command ended cleanly after the signal: exit code 0. */
void cli_signal_served(void);
/* E_CANCEL when cli_stopped. */
MUST_USE status cli_check_stop(struct err *e);

/* gloss.h and base have error records of one layout (asserted in main.c). */
static inline struct gloss_err *pub(struct err *e)
{
    return (struct gloss_err *)(void *)e;
}

/* ---- open.c: models by name ---- */

/* What gloss_model_open takes for a name: "tiny" or a checkpoint's folder. */
MUST_USE status cli_find_model(const char *name, char *path, size_t cap, struct err *e);
/* --arith as GLOSS_ARITH_. */
int cli_arith(const struct conf *c);
/* Opens --model; with_config: generation_config.json becomes defaults of the sampling options. */
MUST_USE status cli_open_model(struct conf *c, bool with_config, gloss_model **m, struct err *e);
/* The same of a model that --model does not name. */
MUST_USE status cli_open_named(struct conf *c, const char *name, gloss_model **m, struct err *e);
/* --model only when it was given, else *m = NULL: the compiled-in vocabulary. */
MUST_USE status cli_open_vocab(struct conf *c, gloss_model **m, struct err *e);
/* The options of group Model as the command has them. */
void cli_engine_opts(const struct conf *c, struct gloss_engine_opts *o);
/* n_ctx: most tokens of one request, 0 for the model's own; n_request: how many run at once;
 * script: the file of --scripted, or NULL. */
MUST_USE status cli_open_engine(struct conf *c, gloss_model *m, int n_ctx, int n_request,
                                const char *script, gloss_engine **g, struct err *e);
/* The same with further options; those of group Model are the command's. */
MUST_USE status cli_start_engine(struct conf *c, gloss_model *m, const struct gloss_engine_opts *,
                                 const char *script, gloss_engine **g, struct err *e);

/* ---- input.c: what commands read ---- */

/* Whole file or "-"; the error names the option. */
MUST_USE status input_file(const char *path, struct buf *b, struct err *e);
/* A JSON array of token ids. Free *ids with mem_free. */
MUST_USE status input_ids(const char *text, size_t n, const char *what, int32_t **ids,
                          size_t *n_ids, struct err *e);
/* The same from a node of a parsed tree. */
MUST_USE status input_ids_json(const struct json *j, const char *what, int32_t **ids, size_t *n_ids,
                               struct err *e);
/* E_INPUT with the byte offset unless the text is UTF-8. */
MUST_USE status input_utf8(const char *s, size_t n, const char *what, struct err *e);
/* The arguments joined by blanks. */
void input_args(const struct conf *c, struct buf *b);
/* --date as "YYYY-MM-DD" in day, or *date = NULL for none. */
MUST_USE status input_date(const struct conf *c, char day[16], const char **date, struct err *e);
/* Next line of [*p, end) without its line end; false at the end. Blank lines are skipped. */
bool input_line(const char **p, const char *end, const char **line, size_t *n);
/* Memory that a program can have now (MemAvailable of proc(5)), in bytes; 0 when unknown. */
double input_free_memory(void);

/* ---- out.c: what commands write ---- */

/* Standard output. Errors stick; out_close tells. */
void out_put(const void *p, size_t n);
void out_puts(const char *s);
void out_flush(void);
MUST_USE status out_buf(const struct buf *b, struct err *e); /* the buffer, checked */
/* One record of several: a reader sees it at once, and a full disk is noticed at once. */
MUST_USE status out_line(const struct buf *b, struct err *e);
MUST_USE status out_close(struct err *e);
bool out_is_terminal(void);

/* Whether colour may be used on standard output (--color, NO_COLOR, TERM). */
bool out_color(const struct conf *c);

/* Text of the model on a terminal: control characters shown as harmless pictures (^[), since a
 * model's output must not drive the terminal. Newline and tab pass. */
void out_visible(struct buf *b, const char *s, size_t n);
/* Bytes at the end of s that begin a UTF-8 character without completing it. */
size_t out_cut_tail(const char *s, size_t n);

/* One line on standard error, "gloss: ...", unless --quiet. */
void out_note(const struct conf *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* A progress bar on standard error, only on a terminal and without --quiet. */
struct progress {
    bool on;
    const char *what;
    uint64_t start_ns, last_ns;
};
void progress_begin(struct progress *p, const struct conf *c, const char *what);
void progress_show(struct progress *p, int64_t done, int64_t total);
void progress_end(struct progress *p); /* wipes the bar */

/* ---- yaml.c ---- */

/* A YAML document (JSON is one) as JSON text: maps, lists and scalars, which are typed as YAML's
 * core schema does. Anchors, aliases, tags and further documents are refused. */
MUST_USE status yaml_to_json(const char *s, size_t n, struct buf *out, struct err *e);

/* ---- hold.c: what an answer is held to ---- */

/* The tools, choice and format of a request, as gloss_params wants them. */
struct hold {
    struct json *root;                              /* the request */
    struct buf tool_text, choice_text, format_text; /* what the arrays point into, and the format */
    struct gloss_tool *tools;                       /* [n_tools] */
    const char **allowed;                           /* [n_allowed] */
    int n_tools, n_allowed, choice, format;
};
/* From an OpenAI request as JSON text; --tool-choice, --schema (its JSON text, or empty), --regex,
 * --choice and --json-object go before what it says. */
MUST_USE status hold_read(struct hold *h, const struct conf *c, const struct buf *request,
                          const struct buf *schema, struct err *e);
void hold_apply(const struct hold *h, struct gloss_params *p);
void hold_fini(struct hold *h); /* zeroed allowed */

/* ---- generate.c: one generation ---- */

enum part { PART_NONE, PART_ANALYSIS, PART_COMMENTARY, PART_FINAL, PART_RAW };

/* An answer as it arrives and when it is complete. */
struct answer {
    struct buf response, analysis, commentary; /* text by channel */
    struct buf calls;                          /* tool calls as a JSON array of OpenAI's form */
    struct buf call_lines;                     /* functions.name({...}) a line each */
    int n_call;
    struct buf raw; /* every token's bytes; kept only with `want_raw` */
    bool want_raw;
    /* Called with text that will not be taken back; NULL for none. */
    void (*show)(void *ctx, enum part, const char *text, size_t n);
    void *ctx;
    const char *finish; /* "stop", "length", "tool_calls" */
    int64_t n_prompt, n_completion, n_reasoning;
    double ttft_ms, prefill_per_s, decode_per_s;
    bool in_analysis;      /* the last token stood in, or opened, an analysis body */
    int message[PART_RAW]; /* by part: the message its last text came from, or -1 */
    int at_message;        /* whose body the last token stood in, or -1 */
};
void answer_init(struct answer *a);
void answer_fini(struct answer *a);
void answer_clear(struct answer *a);
/* A request under way and the conversation that its tokens belong to. */
struct running {
    gloss_chat *chat;
    gloss_request *r;
    const int32_t *ids; /* [n] the prompt, borrowed from chat */
    size_t n;
    uint64_t start_ns; /* when it was submitted */
};
MUST_USE status running_start(struct running *q, gloss_engine *g, const struct gloss_params *p,
                              struct err *e);
void running_end(struct running *q); /* stops and releases it; harmless when not started */
/* Takes its tokens until the end. E_CANCEL after a signal. */
MUST_USE status answer_take(struct answer *a, gloss_model *m, struct running *q, struct err *e);

#endif
