/* The option table: one list of commands and options that feeds everything a person meets.
 *
 * A program states its commands and options once, as two constant arrays. From them come the
 * parsing of arguments, the environment variables, `--help`, the man page, shell completion and
 * the reference in docs/ (conf_doc.c), so that none of them can disagree with another.
 *
 * Precedence of a value: argument > environment > the model's own configuration (conf_suggest) >
 * default. An option may have several rows, each for other commands, when its default or its help
 * differs between them; the rows' command sets must not overlap.
 *
 * Accepted spellings: `--flag value`, `--flag=value`, `-n 5`, `-n5`, `-abc` for flags without
 * values, `--flag` and `--no-flag` for booleans, `--` to end the options; `--a_b` is `--a-b`.
 * Arguments and options may be mixed; a number such as `-5` and a lone `-` are arguments. Names are
 * never abbreviated.
 *
 * Nothing is copied: values point into argv, the environment or the table.
 */
#ifndef BASE_CONF_H
#define BASE_CONF_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum conf_kind {
    CONF_FLAG,   /* --x, --no-x; in the environment 1/0, true/false, yes/no, on/off */
    CONF_INT,    /* whole number in [lo, hi] */
    CONF_NUM,    /* finite number in [lo, hi], or (lo, hi] with `above` */
    CONF_STR,    /* any text but the empty one */
    CONF_CHOICE, /* one of the words in `arg`: "low|medium|high"; "cuda:N" and "N" take any number
                  */
    CONF_LIST    /* text, may be given several times */
};

enum conf_source { CONF_UNSET, CONF_DEFAULT, CONF_MODEL, CONF_ENV, CONF_ARG };

struct conf_opt {
    const char *name;  /* without dashes; its variable is PREFIX_NAME */
    const char *alias; /* other names, separated by blanks, or NULL */
    char letter;       /* or 0 */
    enum conf_kind kind;
    const char *arg; /* placeholder in help ("N", "FILE"), or the words of a choice */
    double lo, hi;   /* bounds of numbers; hi >= 2^63 means the type's own */
    bool above;      /* lo itself is not allowed */
    bool required;
    const char *def;   /* default, in the form of an argument, or NULL */
    uint64_t cmds;     /* one bit per command */
    const char *group; /* heading in help, or NULL for the command's own */
    const char *help;  /* one sentence, lower case, no full stop */
};

struct conf_cmd {
    const char *name;     /* "infer" or two words: "harmony render" */
    const char *args;     /* arguments in the usage line: "[PROMPT]" or "" */
    int max_pos;          /* most arguments; -1: any number */
    const char *brief;    /* one line */
    const char *text;     /* paragraphs separated by '\n'; a line that begins with two blanks is
                             printed as it is */
    const char *examples; /* lines of shell */
    const char *alias;    /* other names, one word each, separated by blanks, or NULL */
};

struct conf_table {
    const char *program; /* "gloss" */
    const char *brief;   /* what the program is */
    const char *version;
    const char *env_prefix; /* "GLOSS_" */
    const char *const
        *notes; /* [n_note][2]: heading and text of further sections of the man page */
    int n_note;
    const struct conf_cmd *cmd; /* [n_cmd] */
    int n_cmd;
    const struct conf_opt *opt; /* [n_opt] */
    int n_opt;
};

struct conf_val {
    enum conf_source source;
    int64_t i; /* CONF_INT; 0 or 1 of a flag; index of a choice's word */
    double d;  /* CONF_NUM */
    const char *s;
    const char **list; /* [n_list] of a CONF_LIST */
    int n_list;
};

/* The options of one command line. */
struct conf {
    const struct conf_table *t;
    int cmd;
    bool help;            /* --help was met: nothing behind it was looked at */
    struct conf_val *val; /* [t->n_opt] */
    const char **pos;     /* [n_pos] arguments */
    int n_pos;
    struct arena mem;
};

/* Reads arguments (behind the command's name) and environment. E_INPUT is a usage error whose
 * message names option, value and what is allowed. Call conf_fini in any case. */
MUST_USE status conf_parse(struct conf *c, const struct conf_table *t, int cmd, int argc,
                           char *const *argv, struct err *e);
void conf_fini(struct conf *c);

/* Values by name; the option must belong to the command (asserted). conf_str is NULL when unset. */
const struct conf_val *conf_get(const struct conf *c, const char *name);
bool conf_on(const struct conf *c, const char *name);
int64_t conf_int(const struct conf *c, const char *name);
double conf_num(const struct conf *c, const char *name);
const char *conf_str(const struct conf *c, const char *name);
static inline bool conf_given(const struct conf *c, const char *name)
{
    return conf_get(c, name)->source >= CONF_ENV;
}

/* A default from the model's own files: used unless an argument or the environment said otherwise.
 */
void conf_suggest_int(struct conf *c, const char *name, int64_t v);
void conf_suggest_num(struct conf *c, const char *name, double v);

/* The command whose one or two words begin argv, or -1; *n_word words were used. */
int conf_find_cmd(const struct conf_table *t, int argc, char *const *argv, int *n_word);
/* The known command nearest to `word`. */
const char *conf_nearest_cmd(const struct conf_table *t, const char *word);
/* Number of single-character edits (insert, delete, replace, swap neighbours) between two words,
 * of which at most 63 bytes count. */
int conf_distance(const char *a, const char *b);

static inline bool conf_applies(const struct conf_opt *o, int cmd)
{
    return o->cmds >> cmd & 1;
}

/* ---- conf_doc.c: the table as text ---- */

void conf_usage(struct buf *b, const struct conf_table *t);         /* the whole program, short */
void conf_help(struct buf *b, const struct conf_table *t, int cmd); /* one command */
void conf_man(struct buf *b, const struct conf_table *t);           /* troff */
void conf_markdown(struct buf *b, const struct conf_table *t);      /* for docs/cli.md */
/* `shell` is bash, zsh or fish; E_INPUT otherwise. */
MUST_USE status conf_completion(struct buf *b, const struct conf_table *t, const char *shell,
                                struct err *e);

/* "a whole number from 1 to 8": what a value of the option may be. */
void conf_allowed(struct buf *b, const struct conf_opt *o);
/* The option's environment variable. */
void conf_env_name(struct buf *b, const struct conf_table *t, const char *name);

#endif
