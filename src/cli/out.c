/* What commands write: results on standard output, checked to the last byte; notes and progress on
 * standard error. Colour and bars only on a terminal.
 */
#include "base/clock.h"
#include "cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int out_fault; /* errno of the first failed write */

void out_put(const void *p, size_t n)
{
    errno = 0;
    if (n && !out_fault && fwrite(p, 1, n, stdout) != n)
        out_fault = errno ? errno : EIO;
}

static status out_failed(struct err *e)
{
    return err_set(e, E_IO, "cannot write the results: %s", strerror(out_fault));
}

void out_puts(const char *s)
{
    out_put(s, strlen(s));
}

void out_flush(void)
{
    errno = 0;
    if (!out_fault && fflush(stdout) != 0)
        out_fault = errno ? errno : EIO;
}

status out_buf(const struct buf *b, struct err *e)
{
    if (buf_status(b) == E_NOMEM)
        return err_set(e, E_NOMEM, "out of memory for the output");
    if (buf_status(b) < 0)
        return err_set(e, buf_status(b), "the output is larger than %zu bytes", b->max);
    out_put(b->p, b->n);
    return out_fault ? out_failed(e) : OK;
}

status out_line(const struct buf *b, struct err *e)
{
    status st = out_buf(b, e);
    if (st < 0)
        return st;
    out_flush();
    return out_fault ? out_failed(e) : OK;
}

status out_close(struct err *e)
{
    out_flush();
    errno = 0;
    /* some file systems report a failed write only at the close */
    if (!out_fault && fclose(stdout) != 0 && errno != EBADF)
        out_fault = errno;
    return out_fault ? out_failed(e) : OK;
}

bool out_is_terminal(void)
{
    return isatty(STDOUT_FILENO);
}

bool out_color(const struct conf *c)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return out_is_terminal() && conf_on(c, "color") && !(no && *no) && term && *term &&
           strcmp(term, "dumb") != 0;
}

size_t out_cut_tail(const char *s, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)s[n - back];
        if ((c & 0xc0) == 0x80)
            continue;
        size_t len = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
        return len > back ? back : 0;
    }
    return 0;
}

void out_visible(struct buf *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        bool c1 = c == 0xc2 && i + 1 < n && (unsigned char)s[i + 1] >= 0x80 &&
                  (unsigned char)s[i + 1] < 0xa0;
        if (c1) /* U+0080..U+009F: some terminals take them as commands */
            buf_printf(b, "\\x%02x", (unsigned char)s[++i]);
        else if (c == 0x7f)
            buf_puts(b, "^?");
        else if (c < 0x20 && c != '\n' && c != '\t')
            buf_printf(b, "^%c", c + '@');
        else
            buf_putc(b, (char)c);
    }
}

void out_note(const struct conf *c, const char *fmt, ...)
{
    if (conf_on(c, "quiet"))
        return;
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    fprintf(stderr, "gloss: %s\n", line);
}

/* ---- progress ---- */

void progress_begin(struct progress *p, const struct conf *c, const char *what)
{
    *p = (struct progress){.on = isatty(STDERR_FILENO) && !conf_on(c, "quiet"), .what = what};
    p->start_ns = clock_ns();
}

void progress_show(struct progress *p, int64_t done, int64_t total)
{
    uint64_t now = clock_ns();
    if (!p->on || total <= 0 || now - p->last_ns < 100u * 1000 * 1000)
        return;
    p->last_ns = now;
    enum { WIDTH = 30 };
    char bar[WIDTH + 1];
    int full = (int)(done * WIDTH / total);
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < full ? '#' : '.';
    bar[WIDTH] = '\0';
    double s = (double)(now - p->start_ns) * 1e-9;
    fprintf(stderr, "\r%s [%s] %3d %%  %.1f of %.1f GB  %.0f MB/s ", p->what, bar,
            (int)(done * 100 / total), (double)done * 1e-9, (double)total * 1e-9,
            s > 0 ? (double)done * 1e-6 / s : 0.0);
}

void progress_end(struct progress *p)
{
    if (p->on && p->last_ns)
        fprintf(stderr, "\r%*s\r", 79, "");
    p->on = false;
}
