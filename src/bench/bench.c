#include "bench/bench.h"
#include "base/file.h"
#include "base/num.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

status int_list_read_from(struct int_list *l, const char *text, int lo, int hi, const char *what,
                          struct err *e)
{
    char word[16];
    *l = (struct int_list){0};
    for (const char *p = text;; p++) {
        size_t n = strcspn(p, ",");
        int64_t v;
        snprintf(word, sizeof word, "%.*s", n < sizeof word ? (int)n : 0, p);
        if (num_i64(word, lo, hi, &v) < 0 || l->n == MAX_LIST)
            return err_param(
                e, E_INPUT, what,
                "--%s '%.60s': must be at most %d numbers from %d to %d, as in 128,512", what, text,
                MAX_LIST, lo, hi);
        l->v[l->n++] = (int)v;
        p += n;
        if (*p == '\0')
            return OK;
    }
}

status int_list_read(struct int_list *l, const char *text, int hi, const char *what, struct err *e)
{
    return int_list_read_from(l, text, 1, hi, what, e);
}

int int_list_most(const struct int_list *l)
{
    int v = 0;
    for (int i = 0; i < l->n; i++)
        v = l->v[i] > v ? l->v[i] : v;
    return v;
}

bool bench_listed(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; *p; p += *p == ',') {
        size_t len = strcspn(p, ",");
        if (len == n && strncmp(p, word, n) == 0)
            return true;
        p += len;
    }
    return false;
}

void bench_say(const struct bench *b, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    b->say(b->ctx, line);
}

void bench_tag(const char *name, char to[128])
{
    size_t n = strlen(name);
    while (n > 1 && name[n - 1] == '/')
        n--;
    const char *slash = memrchr(name, '/', n > 0 ? n - 1 : 0), *p = slash ? slash + 1 : name;
    size_t k = 0;
    for (; p < name + n && k < 127; p++)
        to[k++] = isalnum((unsigned char)*p) || strchr(".-_", *p) ? *p : '_';
    to[k] = '\0';
}

status bench_folder(const char *path, struct err *e)
{
    char part[4096];
    size_t n = strlen(path);
    if (n >= sizeof part)
        return err_set(e, E_INPUT, "the path %.80s... is too long", path);
    memcpy(part, path, n + 1);
    for (size_t i = 1; i < n; i++) {
        if (part[i] != '/')
            continue;
        part[i] = '\0';
        status st = file_mkdir(part, e);
        if (st < 0)
            return st;
        part[i] = '/';
    }
    return file_mkdir(part, e);
}
