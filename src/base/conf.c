#include "base/conf.h"
#include "base/mem.h"
#include "base/num.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONF_MEM_MAX = 16 << 20, /* ceiling of lists and arguments: far above what execve accepts */
    CONF_WORD_MAX = 63       /* bytes of a name that take part in the search for the nearest */
};

/* ---- names ---- */

int conf_distance(const char *a, const char *b)
{
    int n = min_int((int)strlen(a), CONF_WORD_MAX), m = min_int((int)strlen(b), CONF_WORD_MAX);
    int prev2[CONF_WORD_MAX + 1], prev[CONF_WORD_MAX + 1], row[CONF_WORD_MAX + 1] = {0};
    for (int j = 0; j <= m; j++)
        row[j] = j;
    memcpy(prev, row, sizeof prev);
    for (int i = 1; i <= n; i++) {
        memcpy(prev2, prev, sizeof prev2);
        memcpy(prev, row, sizeof prev);
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = prev[j - 1] + (a[i - 1] != b[j - 1]);
            best = min_int(best, min_int(prev[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = min_int(best, prev2[j - 2] + 1);
            row[j] = best;
        }
    }
    return row[m];
}

/* Keeps the candidate nearest to `word` in *best. */
static void nearer(const char *word, const char *candidate, const char **best, int *best_d)
{
    int d = conf_distance(word, candidate);
    if (d < *best_d) {
        *best_d = d;
        *best = candidate;
    }
}

const char *conf_nearest_cmd(const struct conf_table *t, const char *word)
{
    const char *best = t->cmd[0].name;
    int d = 1000;
    for (int i = 0; i < t->n_cmd; i++)
        nearer(word, t->cmd[i].name, &best, &d);
    /* of a command in two words the first alone may be what was meant */
    for (int i = 0; i < t->n_cmd; i++) {
        const char *blank = strchr(t->cmd[i].name, ' ');
        char first[CONF_WORD_MAX + 1];
        if (!blank)
            continue;
        snprintf(first, sizeof first, "%.*s", (int)(blank - t->cmd[i].name), t->cmd[i].name);
        if (conf_distance(word, first) < d) {
            d = conf_distance(word, first);
            best = t->cmd[i].name;
        }
    }
    return best;
}

/* Whether `s` (n bytes) is the name; '_' in it may stand for '-'. */
static bool same_name(const char *name, size_t n_name, const char *s, size_t n)
{
    if (n != n_name)
        return false;
    for (size_t i = 0; i < n; i++)
        if (s[i] != name[i] && !(s[i] == '_' && name[i] == '-'))
            return false;
    return true;
}

/* Whether `s` (n bytes) is one of the blank-separated words of `words`. */
static bool word_in(const char *words, const char *s, size_t n)
{
    for (const char *p = words; p && *p;) {
        size_t len = strcspn(p, " ");
        if (same_name(p, len, s, n))
            return true;
        p += len + strspn(p + len, " ");
    }
    return false;
}

int conf_find_cmd(const struct conf_table *t, int argc, char *const *argv, int *n_word)
{
    for (int i = 0; i < t->n_cmd; i++) {
        const char *name = t->cmd[i].name, *blank = strchr(name, ' ');
        if (argc >= 1 && ((!blank && strcmp(argv[0], name) == 0) ||
                          word_in(t->cmd[i].alias, argv[0], strlen(argv[0])))) {
            *n_word = 1;
            return i;
        }
        if (argc >= 2 && blank && strlen(argv[0]) == (size_t)(blank - name) &&
            strncmp(argv[0], name, (size_t)(blank - name)) == 0 &&
            strcmp(argv[1], blank + 1) == 0) {
            *n_word = 2;
            return i;
        }
    }
    return -1;
}

static int find_long(const struct conf_table *t, int cmd, const char *s, size_t n)
{
    for (int i = 0; i < t->n_opt; i++) {
        const struct conf_opt *o = &t->opt[i];
        if (conf_applies(o, cmd) &&
            (same_name(o->name, strlen(o->name), s, n) || word_in(o->alias, s, n)))
            return i;
    }
    return -1;
}

static int find_letter(const struct conf_table *t, int cmd, char c)
{
    for (int i = 0; i < t->n_opt; i++)
        if (conf_applies(&t->opt[i], cmd) && t->opt[i].letter && t->opt[i].letter == c)
            return i;
    return -1;
}

/* The nearest option name of the command, aliases included. */
static void nearest_opt(const struct conf_table *t, int cmd, const char *word, char out[64])
{
    int best = 1000;
    snprintf(out, 64, "help");
    for (int i = 0; i < t->n_opt; i++) {
        const struct conf_opt *o = &t->opt[i];
        if (!conf_applies(o, cmd))
            continue;
        const char *p = o->name;
        for (size_t len = strlen(p); *p; len = strcspn(p, " ")) {
            char name[64];
            snprintf(name, sizeof name, "%.*s", (int)len, p);
            int d = conf_distance(word, name);
            if (d < best) {
                best = d;
                snprintf(out, 64, "%s", name);
            }
            if (p == o->name)
                p = o->alias ? o->alias : "";
            else
                p += len + strspn(p + len, " ");
        }
    }
}

/* ---- values ---- */

void conf_env_name(struct buf *b, const struct conf_table *t, const char *name)
{
    buf_puts(b, t->env_prefix);
    for (const char *p = name; *p && *p != ' '; p++)
        buf_putc(b, *p == '-' ? '_' : (char)toupper((unsigned char)*p));
}

static int64_t bound_i64(double x)
{
    return x >= 0x1p63 ? INT64_MAX : x <= -0x1p63 ? INT64_MIN : (int64_t)x;
}

void conf_allowed(struct buf *b, const struct conf_opt *o)
{
    switch (o->kind) {
    case CONF_FLAG:
        buf_puts(b, "1 or 0");
        break;
    case CONF_INT:
        buf_printf(b, "a whole number from %lld to %lld", (long long)bound_i64(o->lo),
                   (long long)bound_i64(o->hi));
        break;
    case CONF_NUM:
        buf_printf(b, o->above ? "a number above %g, at most %g" : "a number from %g to %g", o->lo,
                   o->hi);
        break;
    case CONF_CHOICE:
        for (const char *p = o->arg; *p; p++) {
            if (*p != '|')
                buf_putc(b, *p);
            else
                buf_puts(b, strchr(p + 1, '|') ? ", " : " or ");
        }
        break;
    case CONF_STR:
    case CONF_LIST:
        buf_puts(b, "text, not empty");
        break;
    }
}

/* Index of `s` among the words of a choice, or -1. A word "x:N" is met by x:0, x:1, ..., a word "N"
 * by 1, 2, ... */
static int find_choice(const char *words, const char *s)
{
    int i = 0;
    for (const char *p = words;; i++) {
        size_t n = strcspn(p, "|");
        bool number = n == 1 && *p == 'N', numbered = number;
        numbered = numbered || (n >= 2 && strncmp(p + n - 2, ":N", 2) == 0);
        if (!numbered && strlen(s) == n && strncmp(p, s, n) == 0)
            return i;
        if (numbered && strncmp(p, s, n - 1) == 0) {
            int64_t v;
            if (num_i64(s + n - 1, number, 1023, &v) == OK)
                return i;
        }
        if (!p[n])
            return -1;
        p += n + 1;
    }
}

/* -1 unless `s` is a word for yes (1) or no (0). */
static int parse_bool(const char *s)
{
    static const char *const words[] = {"0", "1", "false", "true", "no", "yes", "off", "on"};
    for (int i = 0; i < 8; i++)
        if (strcmp(s, words[i]) == 0)
            return i & 1;
    return -1;
}

/* Sets the value from text; `label` is how the person named the option ("--seed", "GLOSS_SEED"). */
static status set_text(struct conf *c, int i, const char *s, enum conf_source source,
                       const char *label, struct err *e)
{
    const struct conf_opt *o = &c->t->opt[i];
    struct conf_val *v = &c->val[i];
    struct conf_val new = *v;
    bool ok = true;
    int k;
    switch (o->kind) {
    case CONF_FLAG:
        k = parse_bool(s);
        ok = k >= 0;
        new.i = k;
        break;
    case CONF_INT:
        ok = num_i64(s, bound_i64(o->lo), bound_i64(o->hi), &new.i) == OK;
        break;
    case CONF_NUM:
        ok = num_f64(s, o->lo, o->hi, &new.d) == OK && !(o->above && new.d == o->lo);
        break;
    case CONF_CHOICE:
        k = find_choice(o->arg, s);
        ok = k >= 0;
        new.i = k;
        break;
    case CONF_STR:
        ok = *s != '\0';
        break;
    case CONF_LIST:
        ok = *s != '\0';
        if (ok && source > v->source)
            new.n_list = 0; /* arguments replace the environment's */
        break;
    }
    if (!ok) {
        struct buf b;
        buf_init(&b, 512);
        conf_allowed(&b, o);
        status st = err_param(e, E_INPUT, o->name, "%s: '%.60s' is not allowed here; give %s",
                              label, s, b.p);
        buf_fini(&b);
        return st;
    }
    if (o->kind == CONF_LIST) {
        const char **list = arena_array(&c->mem, (size_t) new.n_list + 1, sizeof *list);
        if (!list)
            return err_set(e, E_NOMEM, "out of memory reading the options");
        if (new.n_list)
            memcpy(list, new.list, (size_t) new.n_list * sizeof *list);
        list[new.n_list++] = s;
        new.list = list;
    }
    new.s = s;
    new.source = source;
    *v = new;
    return OK;
}

static status read_env(struct conf *c, struct err *e)
{
    status st = OK;
    struct buf b;
    buf_init(&b, 256);
    for (int i = 0; i < c->t->n_opt && st == OK; i++) {
        const struct conf_opt *o = &c->t->opt[i];
        if (!conf_applies(o, c->cmd) || strcmp(o->name, "help") == 0)
            continue;
        const char *p = o->name;
        while (*p && st == OK) {
            buf_clear(&b);
            conf_env_name(&b, c->t, p);
            if (buf_status(&b) < 0) {
                st = err_set(e, E_NOMEM, "out of memory reading the options");
                break;
            }
            const char *s = getenv(b.p);
            if (s && *s) { /* an empty variable counts as unset */
                st = set_text(c, i, s, CONF_ENV, b.p, e);
                break;
            }
            if (p == o->name) {
                p = o->alias ? o->alias : "";
            } else {
                p += strcspn(p, " ");
                p += strspn(p, " ");
            }
        }
    }
    buf_fini(&b);
    return st;
}

/* ---- arguments ---- */

static const char *cmd_name(const struct conf *c)
{
    return c->t->cmd[c->cmd].name;
}

static status unknown(const struct conf *c, const char *given, const char *word, struct err *e)
{
    char near[64];
    nearest_opt(c->t, c->cmd, word, near);
    return err_param(e, E_INPUT, "", "unknown flag %.60s; did you mean --%s? (%s help %s)", given,
                     near, c->t->program, cmd_name(c));
}

/* An unknown letter: the other case of a known one, else the first option that begins with it. */
static status unknown_letter(const struct conf *c, char letter, struct err *e)
{
    char other = (char)(islower((unsigned char)letter) ? toupper((unsigned char)letter)
                                                       : tolower((unsigned char)letter));
    int i = find_letter(c->t, c->cmd, other);
    if (i >= 0)
        return err_set(e, E_INPUT, "unknown flag -%c; did you mean -%c? (%s help %s)", letter,
                       other, c->t->program, cmd_name(c));
    const char *near = "help";
    for (i = c->t->n_opt - 1; i >= 0; i--)
        if (conf_applies(&c->t->opt[i], c->cmd) && c->t->opt[i].name[0] == letter)
            near = c->t->opt[i].name;
    return err_set(e, E_INPUT, "unknown flag -%c; did you mean --%s? (%s help %s)", letter, near,
                   c->t->program, cmd_name(c));
}

static status want_value(const struct conf *c, int i, const char *label, struct err *e)
{
    struct buf b;
    buf_init(&b, 512);
    conf_allowed(&b, &c->t->opt[i]);
    status st = err_param(e, E_INPUT, c->t->opt[i].name, "%s needs a value: %s", label, b.p);
    buf_fini(&b);
    return st;
}

/* One `--name`, `--name=value` or `--no-name`; *next is the argument behind it, or NULL. */
static status parse_long(struct conf *c, const char *arg, const char *next, int *used,
                         struct err *e)
{
    const char *name = arg + 2, *eq = strchr(name, '=');
    size_t n = eq ? (size_t)(eq - name) : strlen(name);
    int i = find_long(c->t, c->cmd, name, n);
    bool negated = false;
    if (i < 0 && n > 3 && strncmp(name, "no-", 3) == 0) {
        i = find_long(c->t, c->cmd, name + 3, n - 3);
        negated = i >= 0 && c->t->opt[i].kind == CONF_FLAG;
        if (!negated)
            i = -1;
    }
    char label[72];
    snprintf(label, sizeof label, "%.*s", (int)(n + 2), arg);
    if (i < 0) {
        char word[72];
        snprintf(word, sizeof word, "%.*s", (int)n, name);
        return unknown(c, label, word, e);
    }
    if (c->t->opt[i].kind == CONF_FLAG) {
        if (eq)
            return err_param(e, E_INPUT, c->t->opt[i].name,
                             "%s takes no value; write --%s or --no-%s", label, c->t->opt[i].name,
                             c->t->opt[i].name);
        return set_text(c, i, negated ? "0" : "1", CONF_ARG, label, e);
    }
    if (eq)
        return set_text(c, i, eq + 1, CONF_ARG, label, e);
    if (!next)
        return want_value(c, i, label, e);
    *used = 1;
    return set_text(c, i, next, CONF_ARG, label, e);
}

/* A cluster of letters: flags, the last one perhaps with its value attached or behind it. */
static status parse_letters(struct conf *c, const char *arg, const char *next, int *used,
                            struct err *e)
{
    /* a long name behind one dash: find_long says what was meant */
    if (arg[2] && find_long(c->t, c->cmd, arg + 1, strcspn(arg + 1, "=")) >= 0)
        return unknown(c, arg, arg + 1, e);
    for (const char *p = arg + 1; *p; p++) {
        int i = find_letter(c->t, c->cmd, *p);
        char label[3] = {'-', *p, '\0'};
        if (i < 0)
            return p == arg + 1 && p[1] ? unknown(c, arg, arg + 1, e) : unknown_letter(c, *p, e);
        if (c->t->opt[i].kind == CONF_FLAG) {
            status st = set_text(c, i, "1", CONF_ARG, label, e);
            if (st < 0)
                return st;
            continue;
        }
        if (p[1])
            return set_text(c, i, p[1] == '=' ? p + 2 : p + 1, CONF_ARG, label, e);
        if (!next)
            return want_value(c, i, label, e);
        *used = 1;
        return set_text(c, i, next, CONF_ARG, label, e);
    }
    return OK;
}

static bool is_positional(const char *arg)
{
    return arg[0] != '-' || !arg[1] || isdigit((unsigned char)arg[1]) || arg[1] == '.' ||
           isspace((unsigned char)arg[1]);
}

static status read_args(struct conf *c, int argc, char *const *argv, struct err *e)
{
    bool ended = false;
    int i_help = find_long(c->t, c->cmd, "help", 4);
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
        int used = 0;
        status st = OK;
        if (!ended && strcmp(arg, "--") == 0)
            ended = true;
        else if (ended || is_positional(arg))
            c->pos[c->n_pos++] = arg;
        else if (arg[1] == '-')
            st = parse_long(c, arg, next, &used, e);
        else
            st = parse_letters(c, arg, next, &used, e);
        if (st < 0)
            return st;
        if (i_help >= 0 && c->val[i_help].i) {
            c->help = true;
            return OK;
        }
        i += used;
    }
    return OK;
}

static status check(struct conf *c, struct err *e)
{
    const struct conf_cmd *cmd = &c->t->cmd[c->cmd];
    if (cmd->max_pos >= 0 && c->n_pos > cmd->max_pos)
        return err_set(e, E_INPUT, "unexpected argument '%.60s' (%s help %s)", c->pos[cmd->max_pos],
                       c->t->program, cmd->name);
    for (int i = 0; i < c->t->n_opt; i++) {
        const struct conf_opt *o = &c->t->opt[i];
        if (conf_applies(o, c->cmd) && o->required && c->val[i].source == CONF_UNSET)
            return err_param(e, E_INPUT, o->name, "missing --%s %s: %s (%s help %s)", o->name,
                             o->arg ? o->arg : "", o->help, c->t->program, cmd->name);
    }
    return OK;
}

status conf_parse(struct conf *c, const struct conf_table *t, int cmd, int argc, char *const *argv,
                  struct err *e)
{
    *c = (struct conf){.t = t, .cmd = cmd};
    arena_init(&c->mem, CONF_MEM_MAX);
    c->val = arena_array(&c->mem, (size_t)t->n_opt, sizeof *c->val);
    c->pos = arena_array(&c->mem, (size_t)argc + 1, sizeof *c->pos);
    if (!c->val || !c->pos)
        return err_set(e, E_NOMEM, "out of memory reading the options");
    status st = OK;
    for (int i = 0; i < t->n_opt; i++)
        if (conf_applies(&t->opt[i], cmd) && t->opt[i].def) {
            st = set_text(c, i, t->opt[i].def, CONF_DEFAULT, t->opt[i].name, e);
            ASSERT(st == OK || st == E_NOMEM); /* the table's defaults are allowed values */
            if (st < 0)
                return st;
        }
    st = read_args(c, argc, argv, e);
    if (st < 0 || c->help)
        return st;
    /* the environment last, so that a bad variable does not hide --help; it never overrides */
    struct conf env = {.t = t, .cmd = cmd, .mem = c->mem};
    env.val = arena_array(&env.mem, (size_t)t->n_opt, sizeof *env.val);
    st = env.val ? read_env(&env, e) : err_set(e, E_NOMEM, "out of memory reading the options");
    c->mem = env.mem;
    if (st < 0)
        return st;
    for (int i = 0; i < t->n_opt; i++)
        if (env.val[i].source > c->val[i].source)
            c->val[i] = env.val[i];
    return check(c, e);
}

void conf_fini(struct conf *c)
{
    arena_fini(&c->mem);
}

/* ---- access ---- */

static int index_of(const struct conf *c, const char *name)
{
    int i = find_long(c->t, c->cmd, name, strlen(name));
    ASSERT(i >= 0);
    return i;
}

const struct conf_val *conf_get(const struct conf *c, const char *name)
{
    return &c->val[index_of(c, name)];
}

bool conf_on(const struct conf *c, const char *name)
{
    return conf_get(c, name)->i != 0;
}

int64_t conf_int(const struct conf *c, const char *name)
{
    return conf_get(c, name)->i;
}

double conf_num(const struct conf *c, const char *name)
{
    return conf_get(c, name)->d;
}

const char *conf_str(const struct conf *c, const char *name)
{
    return conf_get(c, name)->s;
}

void conf_suggest_int(struct conf *c, const char *name, int64_t v)
{
    struct conf_val *val = &c->val[index_of(c, name)];
    if (val->source < CONF_MODEL)
        *val = (struct conf_val){.source = CONF_MODEL, .i = v};
}

void conf_suggest_num(struct conf *c, const char *name, double v)
{
    struct conf_val *val = &c->val[index_of(c, name)];
    if (val->source < CONF_MODEL)
        *val = (struct conf_val){.source = CONF_MODEL, .d = v};
}
