#include "mlperf/rules.h"

#include <stdint.h>
#include <string.h>

/* ---- characters ---- */

/* The character at p and its length; of bad UTF-8 one byte. */
static uint32_t char_at(const char *p, const char *end, size_t *n)
{
    const unsigned char *s = (const unsigned char *)p;
    size_t len = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    *n = 1;
    if (len == 1 || s[0] < 0xc2 || (size_t)(end - p) < len)
        return s[0];
    uint32_t c = s[0] & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++)
        c = c << 6 | (s[i] & 0x3f);
    *n = len;
    return c;
}

/* The character that ends before p. */
static uint32_t char_before(const char *p, const char *start)
{
    const char *q = p - 1;
    size_t n;
    while (q > start && p - q < 4 && ((unsigned char)*q & 0xc0) == 0x80)
        q--;
    return char_at(q, p, &n);
}

/* str.isspace of Python. */
static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool is_letter(uint32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(uint32_t c)
{
    return c >= '0' && c <= '9';
}

/* A letter, digit or underscore. Beyond ASCII: not in a block of punctuation, symbols or spaces. */
static bool is_word(uint32_t c)
{
    static const uint32_t no[][2] = {
        {0x80, 0xa9},     {0xab, 0xb1},       {0xb4, 0xb4},      {0xb6, 0xb8},     {0xbb, 0xbb},
        {0xbf, 0xbf},     {0xd7, 0xd7},       {0xf7, 0xf7},      {0x2c2, 0x2c5},   {0x2d2, 0x2df},
        {0x300, 0x36f},   {0x1680, 0x1680},   {0x2000, 0x206f},  {0x207a, 0x207e}, {0x208a, 0x208e},
        {0x20a0, 0x2101}, {0x2190, 0x245f},   {0x249c, 0x24e9},  {0x2500, 0x2775}, {0x2794, 0x2bff},
        {0x3000, 0x3004}, {0x3008, 0x3020},   {0x30fb, 0x30fb},  {0xd800, 0xf8ff}, {0xfe00, 0xfe6f},
        {0xfeff, 0xfeff}, {0xff01, 0xff0f},   {0xff1a, 0xff20},  {0xff3b, 0xff40}, {0xff5b, 0xff65},
        {0xffe0, 0xffff}, {0x1f000, 0x1f0ff}, {0x1f10d, 0x1faff}};
    if (c < 0x80)
        return is_letter(c) || is_digit(c) || c == '_';
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++)
        if (c >= no[i][0] && c <= no[i][1])
            return false;
    return true;
}

/* ---- scanning ---- */

static const char *skip_space(const char *p, const char *end)
{
    size_t n;
    while (p < end && is_space(char_at(p, end, &n)))
        p += n;
    return p;
}

struct span rule_trim(struct span s)
{
    const char *p = skip_space(s.p, s.p + s.n), *end = s.p + s.n;
    while (end > p && is_space(char_before(end, p))) {
        end--;
        while (end > p && ((unsigned char)*end & 0xc0) == 0x80)
            end--;
    }
    return (struct span){p, (size_t)(end - p)};
}

static bool word_before(const char *p, const char *start)
{
    return p > start && is_word(char_before(p, start));
}

static bool word_at(const char *p, const char *end)
{
    size_t n;
    return p < end && is_word(char_at(p, end, &n));
}

static bool letter_at(const char *p, const char *end)
{
    return p < end && is_letter((unsigned char)*p);
}

/* Behind the word (given in lower case), whatever its case here; NULL when it is another. */
static const char *after_word(const char *p, const char *end, const char *word)
{
    for (; *word; p++, word++)
        if (p == end || (*p | 0x20) != *word)
            return NULL;
    return p;
}

static const char *find(const char *p, const char *end, const char *what)
{
    return p < end ? memmem(p, (size_t)(end - p), what, strlen(what)) : NULL;
}

/* The option letter at p in upper case, or 0. */
static char choice_at(const char *p, const char *end, char last)
{
    if (!letter_at(p, end))
        return 0;
    char c = (char)(*p & ~0x20);
    return c <= last ? c : 0;
}

/* ---- the final message ---- */

struct span rule_final(struct span text)
{
    static const char header[] = "<|channel|>final", body[] = "<|message|>";
    text = rule_trim(text);
    const char *end = text.p + text.n;
    for (const char *p = text.p; (p = find(p, end, header)) != NULL; p++) {
        const char *q = p + sizeof header - 1;
        while (q < end && *q != '<')
            q++;
        if ((size_t)(end - q) < sizeof body - 1 || memcmp(q, body, sizeof body - 1) != 0)
            continue;
        q += sizeof body - 1;
        const char *stop = find(q, end, "<|return|>");
        return rule_trim((struct span){q, (size_t)((stop ? stop : end) - q)});
    }
    return text;
}

/* ---- multiple choice ---- */

/* Appends the text without the asterisks of **bold** pieces. */
static void put_without_bold(struct buf *b, struct span s)
{
    const char *end = s.p + s.n;
    for (const char *p = s.p; p < end;) {
        if (end - p > 4 && p[0] == '*' && p[1] == '*' && p[2] != '*') {
            const char *q = memchr(p + 2, '*', (size_t)(end - p - 2));
            if (q && q + 1 < end && q[1] == '*') {
                buf_put(b, p + 2, (size_t)(q - p - 2));
                p = q + 2;
                continue;
            }
        }
        buf_putc(b, *p++);
    }
}

/* Appends the text with written-out \n and \' made real. */
static void put_unescaped(struct buf *b, struct span s)
{
    for (size_t i = 0; i < s.n; i++) {
        bool pair = s.p[i] == '\\' && i + 1 < s.n && (s.p[i + 1] == 'n' || s.p[i + 1] == '\'');
        if (pair)
            i++;
        buf_putc(b, pair && s.p[i] == 'n' ? '\n' : s.p[i]);
    }
}

/* "['text']": a list of one text as Python prints it. */
static struct span without_list(struct span s)
{
    if (s.n < 2 || s.p[0] != '[' || (s.p[1] != '\'' && s.p[1] != '"') || s.p[s.n - 1] != ']' ||
        (s.p[s.n - 2] != '\'' && s.p[s.n - 2] != '"'))
        return s;
    return rule_trim((struct span){s.p + 2, s.n > 4 ? s.n - 4 : 0});
}

/* The first letter of all, if it stands alone. */
static char choice_first(struct span s, char last)
{
    const char *p = s.p, *end = s.p + s.n;
    while (p < end && !letter_at(p, end))
        p++;
    char c = choice_at(p, end, last);
    return c && !letter_at(p + 1, end) ? c : 0;
}

/* The first "answer: X". */
static char choice_answer(struct span s, char last)
{
    const char *end = s.p + s.n;
    for (const char *p = s.p; p < end; p++) {
        const char *q = after_word(p, end, "answer");
        if (!q || word_before(p, s.p))
            continue;
        q = skip_space(q, end);
        if (q < end && (*q == ':' || *q == '.'))
            q = skip_space(q + 1, end);
        char c = choice_at(q, end, last);
        if (c && !word_at(q + 1, end))
            return c;
    }
    return 0;
}

/* The last "[final] answer [:=] [(] X". */
static char choice_last_answer(struct span s, char last)
{
    const char *end = s.p + s.n;
    char found = 0;
    for (const char *p = s.p; p < end; p++) {
        const char *q = after_word(p, end, "answer");
        if (!q && (q = after_word(p, end, "final")) != NULL)
            q = after_word(skip_space(q, end), end, "answer");
        if (!q || word_before(p, s.p) || word_at(q, end))
            continue;
        q = skip_space(q, end);
        if (q < end && (*q == ':' || *q == '='))
            q = skip_space(q + 1, end);
        if (q < end && *q == '(')
            q = skip_space(q + 1, end);
        char c = choice_at(q, end, last);
        if (c && !letter_at(q + 1, end)) {
            found = c;
            p = q;
        }
    }
    return found;
}

/* The last letter that stands alone. */
static char choice_last(struct span s, char last)
{
    const char *end = s.p + s.n;
    char found = 0;
    for (const char *p = s.p; p < end; p++) {
        char c = choice_at(p, end, last);
        if (c && !word_before(p, s.p) && !word_at(p + 1, end))
            found = c;
    }
    return found;
}

char rule_choice(struct span text, char last, struct buf *b)
{
    text = rule_trim(text);
    if (text.n == 0)
        return 0;
    struct buf bare;
    buf_init(&bare, b->max);
    put_without_bold(&bare, rule_final(text));
    buf_clear(b); /* the final message, then the whole text */
    put_unescaped(b, without_list((struct span){bare.p, bare.n}));
    size_t mid = b->n;
    put_unescaped(b, text);
    b->st = b->st < 0 ? b->st : buf_status(&bare);
    buf_fini(&bare);
    if (buf_status(b) < 0)
        return 0;
    struct span final = {b->p, mid}, whole = {b->p + mid, b->n - mid};
    char c = choice_first(final, last);
    c = c ? c : choice_answer(final, last);
    c = c ? c : choice_last_answer(whole, last);
    if (!c && last == 'J')
        c = choice_last(final, last);
    return c;
}

/* ---- integers ---- */

static const char *skip_digits(const char *p, const char *end)
{
    while (p < end && is_digit((unsigned char)*p))
        p++;
    return p;
}

/* The value of digits, at most 1000. */
static int value(const char *p, const char *end)
{
    int v = 0;
    for (; p < end && v < 1000; p++)
        v = v * 10 + (*p - '0');
    return v < 1000 ? v : 1000;
}

int rule_integer(struct span text)
{
    static const char box[] = "\\boxed{";
    const char *end = text.p + text.n;
    int v = -1;
    for (const char *p = text.p; (p = find(p, end, box)) != NULL; p++) {
        const char *q = skip_space(p + sizeof box - 1, end), *stop = skip_digits(q, end),
                   *close = skip_space(stop, end);
        if (stop > q && close < end && *close == '}')
            v = value(q, stop);
    }
    for (const char *p = text.p; v < 0 && p < end; p++) {
        /* the last one is wanted: from behind */
        const char *at = end - 1 - (p - text.p), *q = after_word(at, end, "answer");
        if (!q || q == end || *q != ':')
            continue;
        q = skip_space(q + 1, end);
        const char *stop = skip_digits(q, end);
        if (stop > q && !word_at(stop, end) && !(stop < end && *stop == '.'))
            v = value(q, stop);
    }
    return v > 999 ? -1 : v;
}

/* ---- code ---- */

/* The last piece between `open` and ```; pieces don't overlap. */
static struct span last_fence(struct span s, const char *open)
{
    const char *end = s.p + s.n;
    struct span found = {0};
    for (const char *p = s.p; (p = find(p, end, open)) != NULL;) {
        const char *from = p + strlen(open), *to = find(from, end, "```");
        if (!to)
            break;
        found = (struct span){from, (size_t)(to - from)};
        p = to + 3;
    }
    return found.p ? rule_trim(found) : found;
}

/* Without a first line that names the language. */
static struct span without_tag(struct span s)
{
    const char *end = s.p + s.n, *q = after_word(s.p, end, "python");
    if (!q)
        q = after_word(s.p, end, "py");
    if (!q)
        return s;
    const char *blank_end = skip_space(q, end), *nl = NULL;
    for (const char *p = q; p < blank_end; p++)
        nl = *p == '\n' ? p : nl;
    return nl ? (struct span){nl + 1, (size_t)(end - nl - 1)} : s;
}

static struct span code_in(struct span s)
{
    struct span code = last_fence(s, "```python");
    if (code.p)
        return code;
    code = last_fence(s, "```");
    return code.p ? without_tag(code) : code;
}

struct span rule_code(struct span text)
{
    text = rule_trim(text);
    struct span final = rule_final(text), code = {0};
    if (final.p != text.p || final.n != text.n)
        code = code_in(final);
    return code.p ? code : code_in(text);
}
