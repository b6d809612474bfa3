/* What commands read: files named by options, standard input, token ids, dates, lines. */
#include "base/file.h"
#include "base/mem.h"
#include "base/num.h"
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

status input_file(const char *path, struct buf *b, struct err *e)
{
    status st = file_read(path, b, e);
    if (st < 0 && strcmp(path, "-") == 0 && e->msg[0] == '-') {
        char rest[256];
        snprintf(rest, sizeof rest, "%s", e->msg + 1);
        return err_set(e, st, "standard input%s", rest);
    }
    return st;
}

status input_ids_json(const struct json *j, const char *what, int32_t **ids, size_t *n_ids,
                      struct err *e)
{
    *ids = NULL;
    *n_ids = 0;
    if (json_kind(j) != J_ARR)
        return err_set(e, E_INPUT, "%s: a JSON array of token ids is wanted", what);
    size_t n = json_len(j);
    int32_t *v = mem_array(n, sizeof *v);
    if (!v)
        return err_set(e, E_NOMEM, "out of memory for %zu tokens", n);
    for (size_t i = 0; i < n; i++) {
        const struct json *x = json_at(j, i);
        if (json_kind(x) != J_INT || json_int(x) < 0 || json_int(x) > INT32_MAX) {
            mem_free(v);
            return err_set(e, E_INPUT, "%s: element %zu is not a token id", what, i);
        }
        v[i] = (int32_t)json_int(x);
    }
    *ids = v;
    *n_ids = n;
    return OK;
}

status input_ids(const char *text, size_t n, const char *what, int32_t **ids, size_t *n_ids,
                 struct err *e)
{
    struct json *root = NULL;
    struct err je = {0};
    /* ids are short: let as many through as the text can hold */
    struct json_limits lim = {.max_bytes = CLI_TEXT_MAX, .max_depth = 4, .max_values = SIZE_MAX};
    status st = json_parse(text, n, &lim, &root, &je);
    if (st < 0)
        return err_set(e, st, "%s: %.200s", what, je.msg);
    st = input_ids_json(root, what, ids, n_ids, e);
    json_free(root);
    return st;
}

status input_utf8(const char *s, size_t n, const char *what, struct err *e)
{
    /* the encoder is what checks text; inside the request's JSON its offset would mean nothing */
    struct err why = {0};
    int32_t *ids;
    size_t n_ids;
    status st = gloss_encode(NULL, s, n, GLOSS_SPECIAL_TEXT, &ids, &n_ids, pub(&why));
    gloss_free(ids);
    return st < 0 ? err_set(e, st, "%s: %.200s", what, why.msg) : OK;
}

void input_args(const struct conf *c, struct buf *b)
{
    for (int i = 0; i < c->n_pos; i++) {
        if (i)
            buf_putc(b, ' ');
        buf_puts(b, c->pos[i]);
    }
}

/* Whether s is a day of the calendar written as YYYY-MM-DD. */
static bool is_date(const char *s)
{
    static const int days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (strlen(s) != 10 || strspn(s, "0123456789-") != 10 || s[4] != '-' || s[7] != '-')
        return false;
    char part[3][5] = {{0}};
    memcpy(part[0], s, 4);
    memcpy(part[1], s + 5, 2);
    memcpy(part[2], s + 8, 2);
    int64_t y, m, d;
    if (num_i64(part[0], 1, 9999, &y) < 0 || num_i64(part[1], 1, 12, &m) < 0 ||
        num_i64(part[2], 1, 31, &d) < 0)
        return false;
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    return d <= days[m - 1] + (m == 2 && leap);
}

status input_date(const struct conf *c, char day[16], const char **date, struct err *e)
{
    const char *s = conf_str(c, "date");
    *date = NULL;
    if (strcmp(s, "none") == 0)
        return OK;
    if (strcmp(s, "today") == 0) {
        time_t now = time(NULL);
        struct tm tm;
        if (!localtime_r(&now, &tm) || strftime(day, 16, "%Y-%m-%d", &tm) != 10)
            return err_set(e, E_IO, "cannot tell today's date; give --date YYYY-MM-DD");
    } else {
        if (!is_date(s))
            return err_set(e, E_USAGE,
                           "--date: '%.60s' is not allowed here; give YYYY-MM-DD, today or none",
                           s);
        snprintf(day, 16, "%.10s", s);
    }
    *date = day;
    return OK;
}

bool input_line(const char **p, const char *end, const char **line, size_t *n)
{
    while (*p < end) {
        const char *nl = memchr(*p, '\n', (size_t)(end - *p));
        const char *stop = nl ? nl : end;
        *line = *p;
        *p = nl ? nl + 1 : end;
        while (stop > *line && (stop[-1] == '\r' || stop[-1] == ' ' || stop[-1] == '\t'))
            stop--;
        *n = (size_t)(stop - *line);
        if (*n)
            return true;
    }
    return false;
}

double input_free_memory(void)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    double bytes = 0;
    while (f && fgets(line, sizeof line, f)) {
        static const char key[] = "MemAvailable:";
        if (strncmp(line, key, sizeof key - 1) != 0)
            continue;
        char digits[32] = "";
        const char *p = line + sizeof key - 1;
        p += strspn(p, " ");
        snprintf(digits, sizeof digits, "%.*s", (int)strspn(p, "0123456789"), p);
        int64_t kib;
        if (num_i64(digits, 0, INT64_MAX / 1024, &kib) == OK)
            bytes = (double)kib * 1024;
    }
    if (f)
        fclose(f);
    return bytes;
}
