/* The program's entry: finds the command, reads its options, runs it, and turns its status into
 * one line on standard error and an exit code.
 */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(sizeof(struct err) == sizeof(struct gloss_err) &&
                   offsetof(struct err, param) == offsetof(struct gloss_err, param) &&
                   offsetof(struct err, msg) == offsetof(struct gloss_err, msg),
               "one layout of error records");

/* ---- signals ---- */

static volatile sig_atomic_t stop_signal;   /* the first SIGINT or SIGTERM */
static volatile sig_atomic_t stop_graceful; /* the command cleans up by itself */

static void on_signal(int sig)
{
    if (!stop_graceful || stop_signal)
        _exit(128 + sig);
    stop_signal = sig;
}

int cli_stopped(void)
{
    return stop_signal;
}

void cli_catch_signals(void)
{
    stop_graceful = 1;
}

void cli_signal_served(void)
{
    stop_signal = 0;
}

status cli_check_stop(struct err *e)
{
    return stop_signal ? err_set(e, E_CANCEL, "stopped") : OK;
}

/* A shell that started us in the background with SIGINT ignored wants it to stay so. */
static void install(int sig)
{
    struct sigaction old, act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    if (sigaction(sig, NULL, &old) == 0 && old.sa_handler != SIG_IGN)
        sigaction(sig, &act, NULL);
}

/* ---- start and end ---- */

/* A closed standard stream would make the next opened file take its number and receive what is
 * written there. Output descriptors are opened for reading, so that writes still fail. */
static void fill_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDONLY) < 0)
            _exit(1);
}

/* One line, whatever a file's content put into it. */
static void complain(const char *msg)
{
    char line[400];
    int n = snprintf(line, sizeof line, "gloss: %s", msg);
    for (int i = 0; i < n && line[i]; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = ' ';
    fprintf(stderr, "%s\n", line);
}

static int finish(status st, const struct err *e)
{
    if (stop_signal)
        return 128 + stop_signal;
    const char *msg = e->msg[0] ? e->msg : err_name(st);
    char text[320];
    if (st == E_NOMEM) {
        snprintf(text, sizeof text, "%s (%.1f GB are free on this machine)", msg,
                 input_free_memory() * 1e-9);
        msg = text;
    }
    if (st < 0)
        complain(msg);
    return st == E_USAGE ? 2 : st == E_PARAMS ? 3 : st == E_RUN ? 4 : err_exit_code(st);
}

static int run(struct conf *c, struct err *e)
{
    static status (*const commands[N_CMD])(struct conf *, struct err *) = {
        [CMD_INFER] = cmd_infer,
        [CMD_TOKENIZE] = cmd_tokenize,
        [CMD_RENDER] = cmd_render,
        [CMD_PARSE] = cmd_parse,
        [CMD_LOGITS] = cmd_logits,
        [CMD_SCORE] = cmd_score,
        [CMD_SERVE] = cmd_serve,
        [CMD_BENCH_LATENCY] = cmd_bench_latency,
        [CMD_BENCH_MEMORY] = cmd_bench_memory,
        [CMD_BENCH_ENERGY] = cmd_bench_energy,
        [CMD_BENCH_SERVE] = cmd_bench_serve,
        [CMD_BENCH_ABLATION] = cmd_bench_ablation,
        [CMD_BENCH_GOVERNANCE] = cmd_bench_governance,
        [CMD_BENCH_UNIFY] = cmd_bench_unify,
        [CMD_BENCH_APE] = cmd_bench_ape,
        [CMD_BENCH_STUDY] = cmd_bench_study,
        [CMD_REPORT] = cmd_report,
        [CMD_BENCH_DECODE] = cmd_bench_decode,
        [CMD_BENCH_PREFILL] = cmd_bench_prefill,
        [CMD_BENCH_ENGINE] = cmd_bench_engine,
        [CMD_BENCH_KERNELS] = cmd_bench_kernels,
        [CMD_BENCH_FIDELITY] = cmd_bench_fidelity,
        [CMD_EVAL] = cmd_eval,
        [CMD_RUN] = cmd_run,
        [CMD_INFO] = cmd_info,
        [CMD_SYNTH] = cmd_synth,
        [CMD_QUANTIZE] = cmd_quantize,
        [CMD_COMPLETION] = cmd_completion,
        [CMD_HELP] = cmd_help,
        [CMD_MLPERF_HARMONIZE] = cmd_mlperf_harmonize,
        [CMD_MLPERF_RUN] = cmd_mlperf_run,
        [CMD_MLPERF_ACCURACY] = cmd_mlperf_accuracy,
        [CMD_MLPERF_COMPLIANCE] = cmd_mlperf_compliance,
    };
    return commands[c->cmd](c, e);
}

/* ---- help ---- */

/* Appends the help of every command whose first word is `word`; false when there is none. */
static bool help_group(struct buf *b, const char *word)
{
    bool any = false;
    size_t n = strlen(word);
    for (int i = 0; i < N_CMD; i++) {
        const char *name = cli_table.cmd[i].name;
        if (strncmp(name, word, n) != 0 || name[n] != ' ')
            continue;
        if (any)
            buf_puts(b, "\n");
        conf_help(b, &cli_table, i);
        any = true;
    }
    return any;
}

/* `second` is the word behind it, or NULL. */
static status unknown_command(const char *word, const char *second, struct err *e)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    bool group = help_group(&b, word);
    buf_fini(&b);
    if (group) {
        char both[128];
        snprintf(both, sizeof both, "%s %s", word, second ? second : "");
        return err_set(e, E_USAGE, "unknown command '%.60s'; did you mean '%s'? (gloss help %s)",
                       both, conf_nearest_cmd(&cli_table, both), word);
    }
    return err_set(e, E_USAGE, "unknown command '%.60s'; did you mean '%s'? (gloss help)", word,
                   conf_nearest_cmd(&cli_table, word));
}

status cmd_help(struct conf *c, struct err *e)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    status st = OK;
    int n_word, format = (int)conf_get(c, "as")->i;
    int cmd = conf_find_cmd(&cli_table, c->n_pos, (char *const *)(uintptr_t)c->pos, &n_word);
    if (format == 1)
        conf_man(&b, &cli_table);
    else if (format == 2)
        conf_markdown(&b, &cli_table);
    else if (c->n_pos == 0)
        conf_usage(&b, &cli_table);
    else if (cmd >= 0 && n_word == c->n_pos)
        conf_help(&b, &cli_table, cmd);
    else if (cmd >= 0)
        st = err_set(e, E_USAGE, "unexpected argument '%.60s' (gloss help)", c->pos[n_word]);
    else if (c->n_pos > 1 || !help_group(&b, c->pos[0]))
        st = unknown_command(c->pos[0], c->n_pos > 1 ? c->pos[1] : NULL, e);
    if (st == OK)
        st = out_buf(&b, e);
    buf_fini(&b);
    return st;
}

status cmd_completion(struct conf *c, struct err *e)
{
    if (c->n_pos == 0)
        return err_set(e, E_USAGE, "which shell? give bash, zsh or fish");
    struct buf b;
    buf_init(&b, 1 << 20);
    status st = conf_completion(&b, &cli_table, c->pos[0], e) < 0 ? E_USAGE : out_buf(&b, e);
    buf_fini(&b);
    return st;
}

/* ---- the program ---- */

/* Options before any command: --version and --help. */
static status without_command(const char *arg, struct err *e)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    status st = OK;
    if (strcmp(arg, "--version") == 0)
        buf_printf(&b, "gloss %s\n%s\n", gloss_version(), gloss_features());
    else if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)
        conf_usage(&b, &cli_table);
    else
        st = err_set(e, E_USAGE,
                     "unknown flag %.60s; did you mean %s? Options follow the command "
                     "(gloss help)",
                     arg,
                     conf_distance(arg, "--version") < conf_distance(arg, "--help") ? "--version"
                                                                                    : "--help");
    if (st == OK)
        st = out_buf(&b, e);
    buf_fini(&b);
    return st;
}

static status start(int argc, char **argv, struct err *e)
{
    if (argc < 2) {
        struct buf b;
        buf_init(&b, 1 << 20);
        conf_usage(&b, &cli_table);
        fwrite(b.p, 1, b.n, stderr);
        buf_fini(&b);
        return err_set(e, E_USAGE, "no command");
    }
    if (argv[1][0] == '-')
        return without_command(argv[1], e);
    int n_word = 0, cmd = conf_find_cmd(&cli_table, argc - 1, argv + 1, &n_word);
    if (cmd < 0) {
        struct buf b;
        buf_init(&b, 1 << 20);
        bool wants_help =
            argc == 3 && (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0);
        status st = wants_help && help_group(&b, argv[1])
                        ? out_buf(&b, e)
                        : unknown_command(argv[1], argc > 2 ? argv[2] : NULL, e);
        buf_fini(&b);
        return st;
    }
    struct conf c;
    status st = conf_parse(&c, &cli_table, cmd, argc - 1 - n_word, argv + 1 + n_word, e);
    if (st == E_INPUT) {
        st = E_USAGE;
    } else if (st == OK && c.help) {
        struct buf b;
        buf_init(&b, 1 << 20);
        conf_help(&b, &cli_table, cmd);
        st = out_buf(&b, e);
        buf_fini(&b);
    } else if (st == OK) {
        st = run(&c, e);
    }
    conf_fini(&c);
    return st;
}

int main(int argc, char **argv)
{
    fill_streams();
    install(SIGINT);
    install(SIGTERM);
    struct err e = {0};
    status st = start(argc, argv, &e);
    struct err closing = {0};
    status end = out_close(&closing);
    if (st == OK && end < 0)
        return finish(end, &closing);
    return finish(st, &e);
}
