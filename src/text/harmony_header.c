/* Message headers.
 *
 *     assistant to=functions.f<|channel|>commentary <|constrain|>json
 *     role      recipient               channel     content type
 *
 * header_read has the library's exact rules, including what it gets wrong (a lone word after the
 * channel is taken for a recipient). header_recover accepts every text; where header_read accepts a
 * header made of known channel names and at most two further words, both give the same answer but
 * for the words "json", "code" and "<|constrain|>...", which are types here.
 */
#include "text/harmony_header.h"
#include "text/utf8.h"

#include <string.h>

static const char channel_mark[] = "<|channel|>";
static const char constrain_mark[] = "<|constrain|>";

/* ASCII white space as Rust's split_ascii_whitespace has it: no vertical tab. */
static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\r';
}

/* Length of the Unicode White_Space character at s, 0 when there is none. */
static size_t space_len(const char *s, size_t n)
{
    uint32_t c = 0;
    int len = n ? utf8_decode(s, n, &c) : 0;
    bool space = (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
                 (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
                 c == 0x205f || c == 0x3000;
    return len > 0 && space ? (size_t)len : 0;
}

static struct str trim(struct str s)
{
    for (size_t k; (k = space_len(s.p, s.n)) > 0; s.n -= k)
        s.p += k;
    while (s.n) {
        size_t k = 1;
        while (k < s.n && k < 4 && ((unsigned char)s.p[s.n - k] & 0xc0) == 0x80)
            k++;
        if (space_len(s.p + s.n - k, k) != k)
            break;
        s.n -= k;
    }
    return s;
}

/* The next blank-separated word of *s, taken off; absent at the end. */
static struct str next_word(struct str *s)
{
    while (s->n && is_blank(*s->p)) {
        s->p++;
        s->n--;
    }
    struct str w = {s->n ? s->p : NULL, 0};
    while (s->n && !is_blank(*s->p)) {
        s->p++;
        s->n--;
        w.n++;
    }
    return w;
}

static bool starts_with(struct str s, const char *prefix)
{
    size_t n = strlen(prefix);
    return s.n >= n && memcmp(s.p, prefix, n) == 0;
}

static struct str without_to(struct str w)
{
    return starts_with(w, "to=") ? (struct str){w.p + 3, w.n - 3} : w;
}

static bool role_named(struct str w, enum harmony_role *role)
{
    for (int i = 0; i < N_ROLE; i++)
        if (str_eq(w, harmony_role_name[i])) {
            *role = (enum harmony_role)i;
            return true;
        }
    return false;
}

/* Joins the remaining words by single blanks, in place. */
static struct str join_words(char *base, struct str s)
{
    struct str out = {base, 0};
    for (struct str w; (w = next_word(&s)).p;) {
        if (out.n)
            base[out.n++] = ' ';
        memmove(base + out.n, w.p, w.n);
        out.n += w.n;
    }
    return out;
}

/* ---- the library's rules ---- */

/* Takes the first channel out of s; the remaining text goes to scratch with a blank before each
 * constrain marker. */
static status take_channel(const char *s, size_t n, struct buf *scratch, struct header *h,
                           struct err *e)
{
    const char *mark = memmem(s, n, channel_mark, sizeof channel_mark - 1);
    size_t head = mark ? (size_t)(mark - s) : n, tail = n;
    if (mark) {
        size_t from = head + sizeof channel_mark - 1, to = from;
        while (to < n && s[to] != '<' && !space_len(s + to, n - to))
            to++;
        if (to == from)
            return err_set(e, E_INPUT, "no channel value after <|channel|> in a message header");
        h->channel = (struct str){s + from, to - from};
        tail = to;
    }
    buf_clear(scratch);
    /* The two sides of the cut may join to a marker, so markers are looked for in the result. */
    buf_put(scratch, s, head);
    buf_put(scratch, s + tail, n - tail);
    if (buf_status(scratch) < 0)
        return err_set(e, buf_status(scratch), "%s", err_name(buf_status(scratch)));
    return OK;
}

/* Puts a blank before each constrain marker of scratch[from..]. */
static status space_markers(struct buf *scratch, struct str *text, struct err *e)
{
    const size_t n_mark = sizeof constrain_mark - 1;
    size_t count = 0;
    for (const char *p = text->p;
         (p = memmem(p, text->n - (size_t)(p - text->p), constrain_mark, n_mark)) != NULL;
         p += n_mark)
        count++;
    if (!count)
        return OK;
    size_t from = (size_t)(text->p - scratch->p), n = text->n;
    if (!buf_room(scratch, n + count))
        return err_set(e, buf_status(scratch), "%s", err_name(buf_status(scratch)));
    const char *src = scratch->p + from, *end = src + n;
    text->p = scratch->p + scratch->n;
    text->n = n + count;
    while (src < end) {
        const char *m = memmem(src, (size_t)(end - src), constrain_mark, n_mark);
        buf_put(scratch, src, (size_t)((m ? m : end) - src));
        if (!m)
            break;
        buf_putc(scratch, ' ');
        buf_put(scratch, m, n_mark);
        src = m + n_mark;
    }
    return OK;
}

/* Without a preset role the first word is a role, or a tool's name when more words follow. */
static status read_role(struct str words, struct header *h, struct str *after, struct err *e)
{
    *after = words;
    struct str rest = words, first = next_word(&rest), more = rest;
    if (!first.p)
        return err_set(e, E_INPUT, "a message header names no role");
    if (role_named(first, &h->role)) {
        if (h->role == ROLE_TOOL)
            h->name = first;
        return OK;
    }
    if (!next_word(&more).p && !starts_with(first, "to="))
        return err_set(e, E_INPUT, "unknown role \"%.*s\" in a message header",
                       (int)(first.n < 40 ? first.n : 40), first.p);
    h->role = ROLE_TOOL;
    h->name = first;
    *after = rest;
    return OK;
}

status header_read(const char *s, size_t n, bool preset, bool rest, struct buf *scratch,
                   struct header *h, struct err *e)
{
    status st = take_channel(s, n, scratch, h, e);
    if (st < 0)
        return st;
    struct str words = trim((struct str){scratch->p, scratch->n});
    st = space_markers(scratch, &words, e);
    if (st == OK && !preset)
        st = read_role(words, h, &words, e);
    if (st < 0)
        return st;
    struct str after = words, first = next_word(&after);
    if (str_eq(first, harmony_role_name[h->role]))
        words = after;
    if (rest) {
        h->rest = join_words(scratch->p + (words.p - scratch->p), words);
        return OK;
    }
    struct str last = {0}, before = {0}, w;
    int count = 0;
    for (; count < 3 && (w = next_word(&words)).p; count++) {
        before = last;
        last = w;
    }
    if (count == 3 || (count == 2 && starts_with(last, "to=")))
        return err_set(e, E_INPUT, "more words than a message header can have");
    if (count == 1) {
        h->recipient = without_to(last);
    } else if (count == 2) {
        h->recipient = without_to(before);
        h->content_type = last;
    }
    return OK;
}

/* ---- recover mode ---- */

static const char *const known_channel[] = {"analysis", "commentary", "final"};
enum { N_KNOWN = 3 };

static bool is_mark(char c)
{
    return (unsigned char)c == HEADER_CHANNEL || (unsigned char)c == HEADER_CONSTRAIN;
}

/* A channel's value ends at white space, '<' or a control token. */
static size_t value_len(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && s[i] != '<' && !is_mark(s[i]) && !space_len(s + i, n - i))
        i++;
    return i;
}

/* The model stopped inside a channel's name. */
static bool cut_name(struct str v)
{
    for (int i = 0; i < N_KNOWN; i++)
        if (v.n < strlen(known_channel[i]) && memcmp(v.p, known_channel[i], v.n) == 0)
            return true;
    return false;
}

/* Copies the header without its channels to scratch. The last known channel wins; of "finalHi" or
 * an unknown channel the odd letters are junk before a body, and text when there is none. */
static void take_channels(const char *s, size_t n, enum header_end end, struct buf *scratch,
                          struct header *h, bool *unknown)
{
    for (size_t i = 0; i < n;) {
        if ((unsigned char)s[i] != HEADER_CHANNEL) {
            const char *m = memchr(s + i, HEADER_CHANNEL, n - i);
            size_t len = m ? (size_t)(m - (s + i)) : n - i;
            buf_put(scratch, s + i, len);
            i += len;
            continue;
        }
        struct str v = {s + i + 1, value_len(s + i + 1, n - i - 1)};
        i += 1 + v.n;
        bool known = false;
        for (int k = 0; k < N_KNOWN && !known; k++) {
            size_t len = strlen(known_channel[k]);
            if (!starts_with(v, known_channel[k]))
                continue;
            h->channel = (struct str){known_channel[k], len};
            v = (struct str){v.p + len, v.n - len};
            known = true;
        }
        buf_putc(scratch, ' ');
        *unknown = *unknown || !known;
        bool cut = end == HEADER_CUT && !known && i == n && cut_name(v);
        if (end == HEADER_BODY ? starts_with(v, "to=") : !cut)
            buf_put(scratch, v.p, v.n);
    }
}

/* "role", or "role:name". */
static bool role_word(struct str w, struct header *h)
{
    const char *colon = w.n ? memchr(w.p, ':', w.n) : NULL;
    enum harmony_role role;
    if (colon && role_named((struct str){w.p, (size_t)(colon - w.p)}, &role)) {
        h->role = role;
        h->name = (struct str){colon + 1, w.n - (size_t)(colon + 1 - w.p)};
        return true;
    }
    return role_named(w, &h->role);
}

/* The next word of recover mode: a constrain mark opens one. */
static struct str next_mark_word(struct str *s)
{
    while (s->n && is_blank(*s->p)) {
        s->p++;
        s->n--;
    }
    struct str w = {s->n ? s->p : NULL, 0};
    while (s->n && !is_blank(*s->p) && !(w.n && is_mark(*s->p))) {
        s->p++;
        s->n--;
        w.n++;
    }
    return w;
}

/* The last function named is the recipient; without one, the first recipient of any kind. */
static void set_recipient(struct header *h, struct str to)
{
    const char *mark = memmem(to.p, to.n, "<|", 2);
    if (mark)
        to.n = (size_t)(mark - to.p);
    if (to.n && (!h->recipient.n || starts_with(to, "functions.")))
        h->recipient = to;
}

/* "<|constrain|>" and the value, at the end of scratch, where room was made before. */
static struct str constrained(struct buf *scratch, struct str value)
{
    struct str type = {scratch->p + scratch->n, sizeof constrain_mark - 1 + value.n};
    buf_puts(scratch, constrain_mark);
    buf_put(scratch, value.p, value.n);
    return type;
}

/* The words behind the role, of a header that a body follows. */
static void read_words(struct str words, struct buf *scratch, struct header *h)
{
    struct str bare[2] = {{0}}, value = {0};
    bool marked = false;
    int n_bare = 0;
    for (struct str w; (w = next_mark_word(&words)).p;) {
        if (is_mark(*w.p)) {
            value = (struct str){w.p + 1, w.n - 1};
            marked = true;
        } else if (marked && !value.n) {
            value = w; /* "<|constrain|> json" */
        } else if (starts_with(w, "to=") || starts_with(w, "functions.")) {
            set_recipient(h, without_to(w));
        } else if (str_eq(w, "json") || str_eq(w, "code")) {
            h->content_type = w;
        } else {
            if (n_bare < 2)
                bare[n_bare] = w;
            n_bare++;
        }
    }
    if (marked)
        h->content_type = constrained(scratch, value);
    /* As in the library, a word may be a bare recipient, and one behind the recipient is a type.
     * More than that is chatter. */
    int i = 0, most = h->recipient.n ? 1 : 2;
    if (n_bare == 0 || n_bare > most)
        return;
    if (!h->recipient.n)
        set_recipient(h, bare[i++]);
    if (i < n_bare && !h->content_type.n)
        h->content_type = bare[i];
}

/* Nothing but words that belong to a header. */
static bool only_header_words(struct str s)
{
    for (struct str w; (w = next_word(&s)).p;)
        if (!starts_with(w, "to=") && !str_eq(w, "json") && !str_eq(w, "code"))
            return false;
    return true;
}

status header_recover(const char *s, size_t n, bool preset, enum header_end end,
                      struct buf *scratch, struct header *h)
{
    bool unknown = false;
    buf_clear(scratch);
    take_channels(s, n, end, scratch, h, &unknown);
    size_t len = scratch->n;
    /* Room for the content type: nothing below moves the text that the header points into. */
    if (!buf_room(scratch, len + sizeof constrain_mark))
        return buf_status(scratch);
    struct str words = trim((struct str){scratch->p, len}), after = words;
    struct str first = next_mark_word(&after);
    if (!preset) {
        h->role = ROLE_ASSISTANT;
        if (first.p && role_word(first, h)) {
            words = after;
            if (h->role == ROLE_TOOL && !h->name.p)
                h->name = first;
        } else if (end == HEADER_BODY && first.p && !is_mark(*first.p) &&
                   !starts_with(first, "to=") && !str_eq(first, "json") && !str_eq(first, "code")) {
            h->role = ROLE_TOOL;
            h->name = first;
            words = after;
        }
    }
    for (after = words; str_eq(next_mark_word(&after), harmony_role_name[h->role]);)
        words = after;
    if (end == HEADER_BODY) {
        read_words(words, scratch, h);
        if (unknown && !h->channel.p)
            h->channel = STR("final");
        return OK;
    }
    char *base = scratch->p + (words.p - scratch->p);
    for (size_t i = 0; i < words.n; i++)
        if (is_mark(base[i]))
            base[i] = ' ';
    if (end == HEADER_STOPPED)
        h->rest = join_words(base, words);
    else if (!only_header_words(words))
        h->rest = trim(words);
    if (h->rest.n && (end == HEADER_CUT || (unknown && !h->channel.p)))
        h->channel = STR("final");
    return OK;
}
