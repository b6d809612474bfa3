/* The option table as text: help, man page, Markdown reference, shell completion.
 *
 * Everything here only reads the table; see conf.h. Callers write the result to standard output.
 */
#include "base/conf.h"
#include "base/num.h"

#include <stdio.h>
#include <string.h>

enum {
    HELP_COLUMN = 28,
    HELP_WIDTH = 80,
    BOUND_SHOWN = 1 << 20 /* larger upper bounds only guard against overflow */
};

static bool flag_no_only(const struct conf_opt *o)
{
    return o->kind == CONF_FLAG && o->def && strcmp(o->def, "1") == 0;
}

/* "-n, --max-tokens N": the spelling shown first. A flag that is on by default shows as --no-x. */
static void put_spelling(struct buf *b, const struct conf_opt *o)
{
    if (o->letter)
        buf_printf(b, "-%c, ", o->letter);
    buf_printf(b, "--%s%s", flag_no_only(o) ? "no-" : "", o->name);
    if (o->kind != CONF_FLAG)
        buf_printf(b, " %s", o->arg);
}

/* The help sentence with what follows from the table: alias, default, range, obligation. */
static void put_sentence(struct buf *b, const struct conf_opt *o)
{
    buf_puts(b, o->help);
    const char *sep = " (";
    if (o->required) {
        buf_printf(b, "%srequired", sep);
        sep = "; ";
    }
    if (o->kind == CONF_INT || o->kind == CONF_NUM) {
        buf_printf(b, "%s%s %g", sep, o->above ? "above" : "from", o->lo);
        if (o->hi < BOUND_SHOWN)
            buf_printf(b, " to %g", o->hi);
        sep = "; ";
    }
    if (o->def && o->kind != CONF_FLAG) {
        buf_printf(b, "%sdefault %s", sep, o->def);
        sep = "; ";
    }
    if (o->kind == CONF_LIST) {
        buf_printf(b, "%smay be repeated", sep);
        sep = "; ";
    }
    for (const char *p = o->alias; p && *p;) {
        size_t n = strcspn(p, " ");
        buf_printf(b, "%salso --%.*s", sep, (int)n, p);
        sep = ", ";
        p += n + strspn(p + n, " ");
    }
    if (*sep != ' ' || sep[1] != '(')
        buf_putc(b, ')');
}

/* Words of `s` wrapped at HELP_WIDTH, lines after the first indented; `col` is where it begins. */
static void put_wrapped(struct buf *b, const char *s, size_t n, int indent, int col)
{
    int at = col;
    for (size_t i = 0; i < n;) {
        size_t len = 0;
        while (i + len < n && s[i + len] != ' ')
            len++;
        if (i > 0 && at + 1 + (int)len > HELP_WIDTH) {
            buf_printf(b, "\n%*s", indent, "");
            at = indent;
        } else if (i > 0) {
            buf_putc(b, ' ');
            at++;
        }
        buf_put(b, s + i, len);
        at += (int)len;
        i += len + 1;
    }
    buf_putc(b, '\n');
}

/* Calls `each` for every line of `s`. */
static void each_line(struct buf *b, const char *s,
                      void (*each)(struct buf *, const char *, size_t))
{
    while (s && *s) {
        size_t n = strcspn(s, "\n");
        each(b, s, n);
        s += n + (s[n] == '\n');
    }
}

static void help_line(struct buf *b, const char *s, size_t n)
{
    if (n >= 2 && s[0] == ' ' && s[1] == ' ')
        buf_printf(b, "%.*s\n", (int)n, s);
    else
        put_wrapped(b, s, n, 0, 0);
}

static void example_line(struct buf *b, const char *s, size_t n)
{
    buf_printf(b, "  %.*s\n", (int)n, s);
}

void conf_usage(struct buf *b, const struct conf_table *t)
{
    buf_printf(b, "%s: %s\n\nUsage: %s COMMAND [OPTION]... [ARGUMENT]...\n\n", t->program, t->brief,
               t->program);
    for (int i = 0; i < t->n_cmd; i++)
        buf_printf(b, "  %-16s %s\n", t->cmd[i].name, t->cmd[i].brief);
    buf_printf(b, "\n'%s help COMMAND' tells the options; '%s --version' the version.\n",
               t->program, t->program);
}

static void put_options(struct buf *b, const struct conf_table *t, int cmd, const char *group)
{
    bool titled = false;
    for (int i = 0; i < t->n_opt; i++) {
        const struct conf_opt *o = &t->opt[i];
        bool same = group ? o->group && strcmp(group, o->group) == 0 : !o->group;
        if (!conf_applies(o, cmd) || !same)
            continue;
        if (!titled)
            buf_printf(b, "\n%s:\n", group ? group : "Options");
        titled = true;
        size_t at = b->n;
        buf_puts(b, o->letter ? "  " : "      ");
        put_spelling(b, o);
        int col = (int)(b->n - at);
        if (col > HELP_COLUMN - 2) {
            buf_putc(b, '\n');
            col = 0;
        }
        buf_printf(b, "%*s", HELP_COLUMN - col, "");
        struct buf text;
        buf_init(&text, 4096);
        put_sentence(&text, o);
        put_wrapped(b, text.p, text.n, HELP_COLUMN, HELP_COLUMN);
        buf_fini(&text);
    }
}

/* Calls put_options for the command's own options and then for each group in table order. */
static void put_all_options(struct buf *b, const struct conf_table *t, int cmd,
                            void (*put)(struct buf *, const struct conf_table *, int, const char *))
{
    put(b, t, cmd, NULL);
    for (int i = 0; i < t->n_opt; i++) {
        const char *group = t->opt[i].group;
        bool seen = !group || !conf_applies(&t->opt[i], cmd);
        for (int j = 0; j < i && !seen; j++)
            seen = conf_applies(&t->opt[j], cmd) && t->opt[j].group &&
                   strcmp(t->opt[j].group, group) == 0;
        if (!seen)
            put(b, t, cmd, group);
    }
}

void conf_help(struct buf *b, const struct conf_table *t, int cmd)
{
    const struct conf_cmd *c = &t->cmd[cmd];
    buf_printf(b, "%s %s: %s\n\nUsage: %s %s [OPTION]...%s%s\n\n", t->program, c->name, c->brief,
               t->program, c->name, *c->args ? " " : "", c->args);
    each_line(b, c->text, help_line);
    if (c->alias)
        buf_printf(b, "Also: %s %s\n", t->program, c->alias);
    put_all_options(b, t, cmd, put_options);
    if (c->examples) {
        buf_puts(b, "\nExamples:\n");
        each_line(b, c->examples, example_line);
    }
    buf_printf(b,
               "\nEvery option can also be set in the environment: --max-tokens is "
               "%sMAX_TOKENS.\n",
               t->env_prefix);
}

/* ---- man page ---- */

/* Text with troff's own characters made harmless. */
static void put_troff(struct buf *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((i == 0 || s[i - 1] == '\n') && (s[i] == '.' || s[i] == '\''))
            buf_puts(b, "\\&");
        if (s[i] == '\\')
            buf_puts(b, "\\e");
        else if (s[i] == '-')
            buf_puts(b, "\\-");
        else
            buf_putc(b, s[i]);
    }
}

static void man_line(struct buf *b, const char *s, size_t n)
{
    if (n >= 2 && s[0] == ' ' && s[1] == ' ') {
        buf_puts(b, ".EX\n");
        put_troff(b, s, n);
        buf_puts(b, "\n.EE\n");
    } else {
        buf_puts(b, ".PP\n");
        put_troff(b, s, n);
        buf_putc(b, '\n');
    }
}

static void man_example(struct buf *b, const char *s, size_t n)
{
    put_troff(b, s, n);
    buf_putc(b, '\n');
}

static void man_options(struct buf *b, const struct conf_table *t, int cmd, const char *group)
{
    for (int i = 0; i < t->n_opt; i++) {
        const struct conf_opt *o = &t->opt[i];
        bool same = group ? o->group && strcmp(group, o->group) == 0 : !o->group;
        if (!conf_applies(o, cmd) || !same)
            continue;
        struct buf text;
        buf_init(&text, 4096);
        put_spelling(&text, o);
        buf_puts(b, ".TP\n.B ");
        put_troff(b, text.p, text.n);
        buf_putc(b, '\n');
        buf_clear(&text);
        put_sentence(&text, o);
        put_troff(b, text.p, text.n);
        buf_puts(b, ".\n");
        buf_fini(&text);
    }
}

void conf_man(struct buf *b, const struct conf_table *t)
{
    buf_printf(b, ".TH GLOSS 1 \"\" \"%s %s\" \"User Commands\"\n.SH NAME\n%s \\- %s\n", t->program,
               t->version, t->program, t->brief);
    buf_printf(b, ".SH SYNOPSIS\n.B %s\n.I COMMAND\n[OPTION]... [ARGUMENT]...\n", t->program);
    buf_puts(b, ".SH COMMANDS\n");
    for (int i = 0; i < t->n_cmd; i++) {
        const struct conf_cmd *c = &t->cmd[i];
        buf_printf(b, ".SS \"%s %s%s%s\"\n", t->program, c->name, *c->args ? " " : "", c->args);
        put_troff(b, c->brief, strlen(c->brief));
        buf_puts(b, ".\n");
        each_line(b, c->text, man_line);
        if (c->alias)
            buf_printf(b, ".PP\nAlso: %s %s\n", t->program, c->alias);
        put_all_options(b, t, i, man_options);
        if (c->examples) {
            buf_puts(b, ".PP\nExamples:\n.EX\n");
            each_line(b, c->examples, man_example);
            buf_puts(b, ".EE\n");
        }
    }
    for (int i = 0; i < t->n_note; i++) {
        buf_puts(b, ".SH \"");
        for (const char *p = t->notes[2 * i]; *p; p++)
            buf_putc(b, *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p);
        buf_puts(b, "\"\n");
        each_line(b, t->notes[2 * i + 1], man_line);
    }
}

/* ---- Markdown ---- */

/* Table cells: the bar is the one character that would end them. */
static void put_cell(struct buf *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '|')
            buf_putc(b, '\\');
        buf_putc(b, s[i]);
    }
}

void conf_markdown(struct buf *b, const struct conf_table *t)
{
    struct buf text;
    buf_init(&text, 1 << 16);
    buf_puts(b, "| command | does |\n| --- | --- |\n");
    for (int i = 0; i < t->n_cmd; i++) {
        const struct conf_cmd *c = &t->cmd[i];
        buf_printf(b, "| `%s %s%s", t->program, c->name, *c->args ? " " : "");
        put_cell(b, c->args, strlen(c->args));
        buf_puts(b, "` | ");
        put_cell(b, c->brief, strlen(c->brief));
        if (c->alias)
            buf_printf(b, "; also `%s`", c->alias);
        buf_puts(b, " |\n");
    }
    buf_puts(b, "\n| option | environment | commands | meaning |\n| --- | --- | --- | --- |\n");
    for (int i = 0; i < t->n_opt; i++) {
        const struct conf_opt *o = &t->opt[i];
        buf_clear(&text);
        put_spelling(&text, o);
        buf_puts(b, "| `");
        put_cell(b, text.p, text.n);
        buf_puts(b, "` | ");
        if (strcmp(o->name, "help") != 0) {
            buf_putc(b, '`');
            conf_env_name(b, t, o->name);
            buf_putc(b, '`');
        }
        buf_puts(b, " | ");
        bool all = true;
        for (int c = 0; c < t->n_cmd; c++)
            all = all && conf_applies(o, c);
        const char *sep = "";
        for (int c = 0; c < t->n_cmd && !all; c++)
            if (conf_applies(o, c)) {
                buf_printf(b, "%s%s", sep, t->cmd[c].name);
                sep = ", ";
            }
        buf_puts(b, all ? "all | " : " | ");
        buf_clear(&text);
        put_sentence(&text, o);
        put_cell(b, text.p, text.n);
        buf_puts(b, " |\n");
    }
    buf_fini(&text);
}

/* ---- completion ---- */

/* Every spelling of the command's options, separated by blanks. */
static void put_flags(struct buf *b, const struct conf_table *t, int cmd)
{
    const char *sep = "";
    for (int i = 0; i < t->n_opt; i++) {
        const struct conf_opt *o = &t->opt[i];
        if (!conf_applies(o, cmd))
            continue;
        buf_printf(b, "%s--%s%s", sep, flag_no_only(o) ? "no-" : "", o->name);
        sep = " ";
        for (const char *p = o->alias; p && *p;) {
            size_t n = strcspn(p, " ");
            buf_printf(b, " --%.*s", (int)n, p);
            p += n + strspn(p + n, " ");
        }
        if (o->letter)
            buf_printf(b, " -%c", o->letter);
    }
}

static void put_choices(struct buf *b, const char *words, char sep)
{
    for (const char *p = words; *p; p++)
        buf_putc(b, *p == '|' ? sep : *p);
}

/* First words of the commands, each once. */
static void put_first_words(struct buf *b, const struct conf_table *t)
{
    const char *sep = "";
    for (int i = 0; i < t->n_cmd; i++) {
        size_t n = strcspn(t->cmd[i].name, " ");
        bool seen = false;
        for (int j = 0; j < i; j++)
            seen = seen || (strcspn(t->cmd[j].name, " ") == n &&
                            strncmp(t->cmd[j].name, t->cmd[i].name, n) == 0);
        if (!seen) {
            buf_printf(b, "%s%.*s", sep, (int)n, t->cmd[i].name);
            sep = " ";
        }
    }
}

/* Of the commands whose first word is that of `first`. */
static void put_second_words(struct buf *b, const struct conf_table *t, const char *first)
{
    size_t n = strcspn(first, " ") + 1;
    for (int i = 0; i < t->n_cmd; i++)
        if (strncmp(t->cmd[i].name, first, n) == 0)
            buf_printf(b, "%s ", t->cmd[i].name + n);
    while (b->n && b->p[b->n - 1] == ' ')
        b->n--;
}

/* The words a command's arguments come from ("bash|zsh|fish"), or NULL when they are free text. */
static const char *closed_args(const struct conf_cmd *c)
{
    return strchr(c->args, '|') && !strchr(c->args, '[') ? c->args : NULL;
}

static void bash_completion(struct buf *b, const struct conf_table *t)
{
    buf_printf(b, "# bash completion for %s, made by '%s completion bash'\n", t->program,
               t->program);
    buf_printf(b,
               "_%s()\n{\n    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}"
               " cmd=${COMP_WORDS[1]} words=\n    COMPREPLY=()\n",
               t->program);
    buf_puts(b, "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"");
    put_first_words(b, t);
    buf_puts(b, " --help --version\"\n"
                "        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n        return\n    fi\n"
                "    case $cmd in\n");
    for (int i = 0; i < t->n_cmd; i++) {
        const char *blank = strchr(t->cmd[i].name, ' ');
        if (blank && (i == 0 || strncmp(t->cmd[i - 1].name, t->cmd[i].name,
                                        (size_t)(blank - t->cmd[i].name) + 1) != 0)) {
            buf_printf(b,
                       "    %.*s)\n        if [ \"$COMP_CWORD\" -eq 2 ]; then\n"
                       "            COMPREPLY=($(compgen -W \"",
                       (int)(blank - t->cmd[i].name), t->cmd[i].name);
            put_second_words(b, t, t->cmd[i].name);
            buf_puts(b, "\" -- \"$cur\"))\n            return\n        fi\n"
                        "        cmd=\"$cmd ${COMP_WORDS[2]}\" ;;\n");
        }
    }
    buf_puts(b, "    esac\n    case \"$cmd $prev\" in\n");
    for (int i = 0; i < t->n_cmd; i++)
        for (int k = 0; k < t->n_opt; k++) {
            const struct conf_opt *o = &t->opt[k];
            if (!conf_applies(o, i) || o->kind != CONF_CHOICE)
                continue;
            buf_printf(b, "    \"%s --%s\"", t->cmd[i].name, o->name);
            for (const char *p = o->alias; p && *p;) {
                size_t n = strcspn(p, " ");
                buf_printf(b, "|\"%s --%.*s\"", t->cmd[i].name, (int)n, p);
                p += n + strspn(p + n, " ");
            }
            if (o->letter)
                buf_printf(b, "|\"%s -%c\"", t->cmd[i].name, o->letter);
            buf_puts(b, ") words=\"");
            put_choices(b, o->arg, ' ');
            buf_puts(b, "\" ;;\n");
        }
    buf_puts(b, "    esac\n    if [ -z \"$words\" ]; then\n        case $cur in\n        -*)\n"
                "            case $cmd in\n");
    for (int i = 0; i < t->n_cmd; i++) {
        buf_printf(b, "            \"%s\") words=\"", t->cmd[i].name);
        put_flags(b, t, i);
        buf_puts(b, "\" ;;\n");
    }
    buf_puts(b, "            esac ;;\n        *)\n            case $cmd in\n");
    for (int i = 0; i < t->n_cmd; i++) {
        const char *args = closed_args(&t->cmd[i]);
        if (!args)
            continue;
        buf_printf(b, "            \"%s\") words=\"", t->cmd[i].name);
        put_choices(b, args, ' ');
        buf_puts(b, "\" ;;\n");
    }
    buf_puts(b, "            help) words=\"");
    put_first_words(b, t);
    buf_puts(b, "\" ;;\n            esac ;;\n        esac\n    fi\n"
                "    if [ -n \"$words\" ]; then\n"
                "        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
                "    else\n        COMPREPLY=($(compgen -f -- \"$cur\"))\n    fi\n}\n");
    buf_printf(b, "complete -o filenames -F _%s %s\n", t->program, t->program);
}

/* A sentence inside single quotes and _arguments' brackets. */
static void put_zsh(struct buf *b, const char *s)
{
    for (; *s; s++) {
        if (*s == '\'')
            buf_puts(b, "'\\''");
        else if (strchr("[]:\\", *s))
            buf_printf(b, "\\%c", *s);
        else
            buf_putc(b, *s);
    }
}

static void zsh_spec(struct buf *b, const struct conf_opt *o, const char *dashes, const char *name,
                     int n)
{
    buf_printf(b, "            '%s%s%s%.*s%s[", o->kind == CONF_LIST ? "*" : "", dashes,
               flag_no_only(o) && n > 1 ? "no-" : "", n, name,
               o->kind == CONF_FLAG ? ""
               : dashes[1]          ? "="
                                    : "+");
    put_zsh(b, o->help);
    buf_putc(b, ']');
    if (o->kind == CONF_CHOICE) {
        buf_puts(b, ":value:(");
        put_choices(b, o->arg, ' ');
        buf_putc(b, ')');
    } else if (o->kind == CONF_STR && (strstr(o->arg, "FILE") || strstr(o->arg, "DIR"))) {
        buf_printf(b, ":%s:_files", o->arg);
    } else if (o->kind != CONF_FLAG) {
        buf_printf(b, ":%s: ", o->arg);
    }
    buf_puts(b, "' \\\n");
}

static void zsh_completion(struct buf *b, const struct conf_table *t)
{
    buf_printf(b, "#compdef %s\n# made by '%s completion zsh'\n", t->program, t->program);
    buf_printf(b,
               "_%s()\n{\n    local cmd=$words[2]\n    if (( CURRENT == 2 )); then\n"
               "        local -a verbs\n        verbs=(\n",
               t->program);
    for (int i = 0; i < t->n_cmd; i++) {
        size_t n = strcspn(t->cmd[i].name, " ");
        if (i && strncmp(t->cmd[i - 1].name, t->cmd[i].name, n) == 0 && t->cmd[i].name[n] == ' ')
            continue;
        buf_printf(b, "            '%.*s:", (int)n, t->cmd[i].name);
        put_zsh(b, t->cmd[i].brief);
        buf_puts(b, "'\n");
    }
    buf_puts(b, "        )\n        _describe command verbs\n        return\n    fi\n");
    for (int i = 0; i < t->n_cmd; i++) {
        const char *blank = strchr(t->cmd[i].name, ' ');
        if (blank && (i == 0 || strncmp(t->cmd[i - 1].name, t->cmd[i].name,
                                        (size_t)(blank - t->cmd[i].name) + 1) != 0)) {
            buf_printf(b,
                       "    if [[ $cmd == %.*s ]]; then\n"
                       "        if (( CURRENT == 3 )); then\n            compadd ",
                       (int)(blank - t->cmd[i].name), t->cmd[i].name);
            put_second_words(b, t, t->cmd[i].name);
            buf_puts(b, "\n            return\n        fi\n        cmd=\"$cmd $words[3]\"\n"
                        "        shift words\n        (( CURRENT-- ))\n    fi\n");
        }
    }
    buf_puts(b, "    shift words\n    (( CURRENT-- ))\n    case $cmd in\n");
    for (int i = 0; i < t->n_cmd; i++) {
        buf_printf(b, "    '%s')\n        _arguments -s \\\n", t->cmd[i].name);
        for (int k = 0; k < t->n_opt; k++) {
            const struct conf_opt *o = &t->opt[k];
            if (!conf_applies(o, i))
                continue;
            zsh_spec(b, o, "--", o->name, (int)strlen(o->name));
            for (const char *p = o->alias; p && *p;) {
                size_t n = strcspn(p, " ");
                zsh_spec(b, o, "--", p, (int)n);
                p += n + strspn(p + n, " ");
            }
            if (o->letter)
                zsh_spec(b, o, "-", &o->letter, 1);
        }
        const char *args = closed_args(&t->cmd[i]);
        if (args) {
            buf_puts(b, "            '1:argument:(");
            put_choices(b, args, ' ');
            buf_puts(b, ")' ;;\n");
        } else {
            buf_puts(b, "            '*:argument:_files' ;;\n");
        }
    }
    buf_printf(b,
               "    esac\n}\n"
               "if [[ $funcstack[1] == _%s ]]; then\n    _%s \"$@\"\n"
               "else\n    compdef _%s %s\nfi\n",
               t->program, t->program, t->program, t->program);
}

/* A sentence inside single quotes. */
static void put_fish(struct buf *b, const char *s)
{
    for (; *s; s++) {
        if (*s == '\'' || *s == '\\')
            buf_putc(b, '\\');
        buf_putc(b, *s);
    }
}

static void fish_completion(struct buf *b, const struct conf_table *t)
{
    buf_printf(b, "# fish completion for %s, made by '%s completion fish'\n", t->program,
               t->program);
    for (int i = 0; i < t->n_cmd; i++) {
        const struct conf_cmd *c = &t->cmd[i];
        const char *blank = strchr(c->name, ' ');
        char when[160];
        if (blank) {
            int n = (int)(blank - c->name);
            snprintf(when, sizeof when,
                     "__fish_seen_subcommand_from %.*s; and __fish_seen_subcommand_from %s", n,
                     c->name, blank + 1);
            if (i == 0 || strncmp(t->cmd[i - 1].name, c->name, (size_t)n + 1) != 0) {
                buf_printf(b, "complete -c %s -f -n __fish_use_subcommand -a %.*s\n", t->program, n,
                           c->name);
                buf_printf(b, "complete -c %s -f -n '__fish_seen_subcommand_from %.*s' -a '",
                           t->program, n, c->name);
                put_second_words(b, t, t->cmd[i].name);
                buf_puts(b, "'\n");
            }
        } else {
            snprintf(when, sizeof when, "__fish_seen_subcommand_from %s", c->name);
            buf_printf(b, "complete -c %s -f -n __fish_use_subcommand -a %s -d '", t->program,
                       c->name);
            put_fish(b, c->brief);
            buf_puts(b, "'\n");
        }
        if (closed_args(c)) {
            buf_printf(b, "complete -c %s -f -n '%s' -a '", t->program, when);
            put_choices(b, c->args, ' ');
            buf_puts(b, "'\n");
        }
        for (int k = 0; k < t->n_opt; k++) {
            const struct conf_opt *o = &t->opt[k];
            if (!conf_applies(o, i))
                continue;
            buf_printf(b, "complete -c %s -n '%s' -l %s%s", t->program, when,
                       flag_no_only(o) ? "no-" : "", o->name);
            for (const char *p = o->alias; p && *p;) {
                size_t n = strcspn(p, " ");
                buf_printf(b, " -l %.*s", (int)n, p);
                p += n + strspn(p + n, " ");
            }
            if (o->letter)
                buf_printf(b, " -s %c", o->letter);
            if (o->kind == CONF_CHOICE) {
                buf_puts(b, " -x -a '");
                put_choices(b, o->arg, ' ');
                buf_putc(b, '\'');
            } else if (o->kind != CONF_FLAG) {
                buf_puts(b, " -r");
            }
            buf_puts(b, " -d '");
            put_fish(b, o->help);
            buf_puts(b, "'\n");
        }
    }
}

status conf_completion(struct buf *b, const struct conf_table *t, const char *shell, struct err *e)
{
    if (strcmp(shell, "bash") == 0)
        bash_completion(b, t);
    else if (strcmp(shell, "zsh") == 0)
        zsh_completion(b, t);
    else if (strcmp(shell, "fish") == 0)
        fish_completion(b, t);
    else
        return err_set(e, E_INPUT, "no completion for '%.40s'; give bash, zsh or fish", shell);
    return OK;
}
