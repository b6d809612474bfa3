/* Extraction of answers. See extract.h.
 *
 * The patterns state the harnesses' rules; the table of tests/golden/extract holds what Python's
 * own re makes of the same texts.
 */
#include "eval/extract.h"

#include "base/mem.h"
#include "base/num.h"
#include "eval/pattern.h"

#include <string.h>

#define WRAP "(?:\\*{1,2}|_{1,2})" /* Markdown's bold and italic marks */
#define SEPARATOR "\\s*[:\\-\\x{2013}]?\\s*"
#define ALONE_BEFORE "(?<![A-Za-z0-9])"
#define ALONE_AFTER "(?![A-Za-z0-9])"

/* In order of priority. */
static const struct {
    const char *text;
    int flags;
} abcd[] = {
    /* **Answer:** A, *Answers* - B */
    {WRAP "Answers?\\s*[:\\-\\x{2013}]?" WRAP "\\s*([ABCD])\\b", PATTERN_ICASE},
    /* a line that begins with the answer, each part perhaps wrapped */
    {"^\\s*" WRAP "?Answer:?" WRAP "?\\s*:?\\s*" WRAP "?([ABCD])" WRAP "?\\s*",
     PATTERN_ICASE | PATTERN_MULTILINE},
    /* Answer: (C) */
    {"\\bAnswers?\\b" SEPARATOR "\\(\\s*([ABCD])\\s*\\)", PATTERN_ICASE},
    /* Answer: C */
    {"\\bAnswers?\\b" SEPARATOR "([ABCD])\\b", PATTERN_ICASE},
    /* Option B, Choice: C */
    {"\\b(?:Option|Choice)\\b" SEPARATOR "([ABCD])\\b", PATTERN_ICASE},
    /* \boxed{...A...} and the same around \textbf{} and \text{} */
    {"\\\\boxed\\{[^}]*?([ABCD])[^}]*\\}", PATTERN_MULTILINE},
    {"\\\\boxed\\{[^}]*?\\\\textbf\\{[^}]*?([ABCD])[^}]*\\}[^}]*\\}", PATTERN_MULTILINE},
    {"\\\\boxed\\{[^}]*?\\\\text\\{[^}]*?([ABCD])[^}]*\\}[^}]*\\}", PATTERN_MULTILINE},
    /* (A), [B] */
    {ALONE_BEFORE "[\\(\\[]\\s*([ABCD])\\s*[\\)\\]]" ALONE_AFTER, 0},
    /* *A*, **B**, _C_, __D__ */
    {ALONE_BEFORE WRAP "([ABCD])" WRAP ALONE_AFTER, 0},
    /* \textbf{...C...} */
    {"\\\\textbf\\{[^}]*?([ABCD])[^}]*\\}", 0},
    /* **D) some text** */
    {ALONE_BEFORE WRAP "\\s*([ABCD])\\)[^*_\\n]+?" WRAP ALONE_AFTER, 0},
    /* a line that begins with a letter */
    {"^\\s*" WRAP "?([ABCD])" WRAP "?\\s*[\\.\\)\\-\\x{2013}:]?\\s*.*$", PATTERN_MULTILINE},
};
enum { N_ABCD = sizeof abcd / sizeof abcd[0] };

enum rule {
    BOXED,
    DIGITS,
    TINY_ANSWER,
    TINY_LONE,
    GSM_STRICT,
    GSM_FLEXIBLE,
    GSM_COT,
    GSM_COMMA, /* what exact_match takes out, one pattern after the other */
    GSM_DOLLAR,
    GSM_BEFORE,
    GSM_DOT,
    N_RULE
};
static const struct {
    const char *text;
    int flags;
} rules[N_RULE] = {
    [BOXED] = {"boxed\\{(.*?)\\}|framebox\\{(.*?)\\}", PATTERN_DOTALL},
    [DIGITS] = {"\\d+", 0},
    [TINY_ANSWER] = {"\\banswer\\s*(?:is)?\\s*[:=]?\\s*\\(?([A-D])\\b", PATTERN_ICASE},
    [TINY_LONE] = {"\\b([A-D])\\b", 0},
    [GSM_STRICT] = {"#### (\\-?[0-9\\.\\,]+)", 0},
    [GSM_FLEXIBLE] = {"(-?[$0-9.,]{2,})|(-?[0-9]+)", 0},
    [GSM_COT] = {"The answer is (\\-?[0-9\\.\\,]+).", 0},
    [GSM_COMMA] = {",", 0},
    [GSM_DOLLAR] = {"\\$", 0},
    [GSM_BEFORE] = {".*#### ", PATTERN_DOTALL},
    [GSM_DOT] = {"\\.$", 0},
};

struct extract {
    struct pattern *abcd[N_ABCD], *rule[N_RULE];
};

status extract_open(struct extract **out, struct err *e)
{
    *out = NULL;
    struct extract *x = mem_calloc(1, sizeof *x);
    bool ok = x;
    for (int i = 0; ok && i < N_ABCD; i++)
        ok = (x->abcd[i] = pattern_new(abcd[i].text, abcd[i].flags)) != NULL;
    for (int i = 0; ok && i < N_RULE; i++)
        ok = (x->rule[i] = pattern_new(rules[i].text, rules[i].flags)) != NULL;
    if (!ok) {
        extract_close(x);
        return err_set(e, E_NOMEM, "out of memory for the extraction patterns");
    }
    *out = x;
    return OK;
}

void extract_close(struct extract *x)
{
    if (!x)
        return;
    for (int i = 0; i < N_ABCD; i++)
        pattern_free(x->abcd[i]);
    for (int i = 0; i < N_RULE; i++)
        pattern_free(x->rule[i]);
    mem_free(x);
}

static char upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void trim(const char **s, size_t *n)
{
    while (*n && is_space(**s))
        (*s)++, (*n)--;
    while (*n && is_space((*s)[*n - 1]))
        (*n)--;
}

/* ---- letters ---- */

static int find_abcd(struct extract *x, const char *s, size_t n, char *letter)
{
    struct pattern_match m;
    for (int i = 0; i < N_ABCD; i++)
        if (pattern_find(x->abcd[i], s, n, 0, &m)) {
            *letter = upper(s[m.begin[1]]);
            return i;
        }
    return -1;
}

int extract_abcd_pattern(struct extract *x, const char *s, size_t n)
{
    char letter;
    return find_abcd(x, s, n, &letter);
}

void extract_abcd(struct extract *x, const char *s, size_t n, struct buf *out)
{
    char letter;
    if (find_abcd(x, s, n, &letter) >= 0) {
        buf_putc(out, letter);
        return;
    }
    if (n >= 2 && s[0] == '*' && s[1] == '*')
        s += 2, n -= 2;
    size_t k = n ? 1 : 0;
    while (k && k < n && ((unsigned char)s[k] & 0xc0) == 0x80)
        k++;
    buf_put(out, s, k);
}

void extract_tinymmlu(struct extract *x, const char *s, size_t n, struct buf *out)
{
    struct pattern_match m;
    trim(&s, &n);
    if (pattern_find(x->rule[TINY_ANSWER], s, n, 0, &m)) {
        buf_putc(out, upper(s[m.begin[1]]));
        return;
    }
    bool letter = n && s[0] >= 'A' && s[0] <= 'D';
    char c = n > 1 ? upper(s[1]) : ' ';
    if (letter && !(c >= 'A' && c <= 'Z') && !((unsigned char)c & 0x80)) {
        buf_putc(out, s[0]);
        return;
    }
    char last = '?';
    for (size_t at = 0; pattern_find(x->rule[TINY_LONE], s, n, at, &m); at = m.end[0])
        last = s[m.begin[1]];
    buf_putc(out, last);
}

/* ---- numbers ---- */

void extract_boxed(struct extract *x, const char *s, size_t n, struct buf *out)
{
    struct pattern_match m;
    size_t begin = 0, end = 0;
    for (size_t at = 0; pattern_find(x->rule[BOXED], s, n, at, &m); at = m.end[0]) {
        int g = m.begin[1] != (size_t)-1 ? 1 : 2;
        if (m.end[g] > m.begin[g]) {
            begin = m.begin[g];
            end = m.end[g];
        }
    }
    bool boxed = end > begin;
    for (size_t at = 0; !boxed && pattern_find(x->rule[DIGITS], s, n, at, &m); at = m.end[0]) {
        begin = m.begin[0];
        end = m.end[0];
    }
    const char *p = s + begin;
    size_t k = end - begin;
    for (size_t i = k; boxed && i > 0; i--)
        if (p[i - 1] == ',') {
            p += i;
            k -= i;
            break;
        }
    trim(&p, &k);
    buf_put(out, p, k);
}

bool extract_int(const char *s, size_t n, int64_t *v)
{
    char digits[24];
    size_t k = 0;
    trim(&s, &n);
    if (n && (*s == '+' || *s == '-')) {
        if (*s == '-')
            digits[k++] = '-';
        s++, n--;
    }
    if (!n || s[0] == '_' || s[n - 1] == '_')
        return false;
    bool nonzero = false;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '_' && s[i - 1] != '_')
            continue; /* Python allows one between digits */
        if (s[i] < '0' || s[i] > '9' || k + 1 >= sizeof digits)
            return false;
        nonzero = nonzero || s[i] != '0';
        if (nonzero)
            digits[k++] = s[i];
    }
    if (!nonzero) {
        *v = 0;
        return true;
    }
    digits[k] = '\0';
    return num_i64(digits, INT64_MIN, INT64_MAX, v) == OK;
}

/* ---- gsm8k ---- */

static const char none[] = "[invalid]";

static void put_first_group(struct pattern *p, const char *s, size_t n, struct buf *out)
{
    struct pattern_match m;
    if (pattern_find(p, s, n, 0, &m)) {
        const char *t = s + m.begin[1];
        size_t k = m.end[1] - m.begin[1];
        trim(&t, &k);
        buf_put(out, t, k);
    } else {
        buf_puts(out, none);
    }
}

void extract_gsm8k_strict(struct extract *x, const char *s, size_t n, struct buf *out)
{
    put_first_group(x->rule[GSM_STRICT], s, n, out);
}

void extract_gsm8k_cot(struct extract *x, const char *s, size_t n, struct buf *out)
{
    put_first_group(x->rule[GSM_COT], s, n, out);
}

void extract_gsm8k_flexible(struct extract *x, const char *s, size_t n, struct buf *out)
{
    struct pattern_match m;
    size_t begin = 0, end = 0;
    for (size_t at = 0; pattern_find(x->rule[GSM_FLEXIBLE], s, n, at, &m); at = m.end[0]) {
        begin = m.begin[0];
        end = m.end[0];
    }
    if (end > begin)
        buf_put(out, s + begin, end - begin);
    else
        buf_puts(out, none);
}

/* Python's re.sub(p, "", text). */
static void strip(const struct pattern *p, struct buf *text)
{
    struct buf out;
    struct pattern_match m;
    size_t at = 0;
    buf_init(&out, text->max);
    while (at < text->n && pattern_find(p, text->p, text->n, at, &m)) {
        buf_put(&out, text->p + at, m.begin[0] - at);
        at = m.end[0];
    }
    buf_put(&out, text->p + at, text->n - at);
    buf_fini(text);
    *text = out;
}

/* Without what exact_match ignores, in lower case (ASCII). */
static void normalise(struct extract *x, const char *s, struct buf *out)
{
    buf_puts(out, s);
    for (int i = GSM_COMMA; i <= GSM_DOT; i++)
        strip(x->rule[i], out);
    for (size_t i = 0; i < out->n; i++)
        if (out->p[i] >= 'A' && out->p[i] <= 'Z')
            out->p[i] = (char)(out->p[i] - 'A' + 'a');
}

bool extract_gsm8k_same(struct extract *x, const char *a, const char *b)
{
    struct buf p, q;
    buf_init(&p, 1 << 20);
    buf_init(&q, 1 << 20);
    normalise(x, a, &p);
    normalise(x, b, &q);
    bool same = p.st == OK && q.st == OK && p.n == q.n && memcmp(p.p, q.p, p.n) == 0;
    buf_fini(&p);
    buf_fini(&q);
    return same;
}

/* ---- verdicts ---- */

bool extract_verdict(const char *s, size_t n, bool *met, struct buf *out)
{
    static const struct json_limits lim = {1 << 20, 32, 10000};
    trim(&s, &n);
    if (n >= 7 && memcmp(s, "```json", 7) == 0)
        s += 7, n -= 7;
    if (n >= 3 && memcmp(s + n - 3, "```", 3) == 0)
        n -= 3;
    trim(&s, &n);
    struct json *root = NULL;
    bool ok = json_parse(s, n, &lim, &root, NULL) == OK;
    const struct json *v = ok ? json_get(root, "criteria_met") : NULL;
    const struct json *why = ok ? json_get(root, "explanation") : NULL;
    ok = json_kind(v) == J_TRUE || json_kind(v) == J_FALSE;
    *met = json_kind(v) == J_TRUE;
    if (ok && json_kind(why) == J_STR) {
        size_t k;
        const char *t = json_str(why, &k);
        buf_put(out, t, k);
    }
    json_free(root);
    return ok;
}
