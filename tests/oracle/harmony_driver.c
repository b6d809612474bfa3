/* The harmony module behind a pipe: one JSON object per line in, one out, for the oracles in
 * Python.
 *
 *   {"op":"render","conv":TEXT,"form":"auto|library|openai","for":..,"drop":..,"date":..,"schema":..}
 *       -> {"tokens":[..]} or {"error":..,"param":..}
 *   {"op":"parse","mode":"strict|lenient|recover","role":NAME|null,"tokens":[..]}
 *       ->
 * {"messages":[..],"deltas":[..],"owners":[..],"heads":[[i,role,channel,recipient,type],..],
 *           "index":I|null,"finish_delta":..}
 *          deltas[i] is the text of token i or null; heads lists where the header fields change;
 *          owners has the message index of each delta, the finishing one included;
 *          index is the refused token, or the number of tokens when the end was refused.
 *   {"op":"builtin","name":"browser|python"} -> {"text":..}
 *   {"op":"tiny","path":FILE} switches to that tokenizer.json -> {}
 */
#include "base/file.h"
#include "base/mem.h"
#include "text/harmony_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct vocab *vocab;

static struct str member(const struct json *j, const char *key)
{
    struct str s = {0};
    if (json_kind(json_get(j, key)) == J_STR)
        s.p = json_str(json_get(j, key), &s.n);
    return s;
}

static int choice(const struct json *j, const char *key, const char *const *names)
{
    struct str s = member(j, key);
    for (int i = 0; s.p && names[i]; i++)
        if (str_eq(s, names[i]))
            return i;
    return 0;
}

static void put_opt(struct buf *b, struct str s)
{
    if (s.p)
        json_quote(b, s.p, s.n);
    else
        buf_puts(b, "null");
}

static void render(const struct json *q, struct buf *out)
{
    static const char *const forms[] = {"auto", "library", "openai", NULL};
    static const char *const fors[] = {"completion", "training", "conversation", NULL};
    static const char *const drops[] = {"library", "closed-turns", "nothing", NULL};
    struct harmony_render_opts o = {.mode = (enum harmony_for)choice(q, "for", fors),
                                    .drop = (enum harmony_drop)choice(q, "drop", drops)};
    struct harmony_openai_opts oo = {.current_date = member(q, "date"),
                                     .response_schema = member(q, "schema"),
                                     .identity = member(q, "identity")};
    struct str text = member(q, "conv");
    struct json *root = NULL;
    struct arena a;
    struct ids ids;
    struct err e = {0};
    struct harmony_conversation c;
    arena_init(&a, (size_t)64 << 20);
    ids_init(&ids, (size_t)16 << 20);
    status st = json_parse(text.p, text.n, &json_limits_file, &root, &e);
    if (st == OK)
        st = harmony_from_json(root, (enum harmony_json_form)choice(q, "form", forms), &oo, &a, &c,
                               &e);
    if (st == OK)
        st = harmony_render(vocab, &c, &o, &ids, &e);
    if (st == OK) {
        buf_puts(out, "{\"tokens\":[");
        for (size_t i = 0; i < ids.n; i++)
            buf_printf(out, "%s%d", i ? "," : "", ids.v[i]);
        buf_puts(out, "]}");
    } else {
        buf_puts(out, "{\"error\":");
        json_quote(out, e.msg, strlen(e.msg));
        buf_printf(out, ",\"status\":%d,\"param\":", st);
        json_quote(out, e.param, strlen(e.param));
        buf_putc(out, '}');
    }
    ids_fini(&ids);
    arena_fini(&a);
    json_free(root);
}

struct head {
    const char *role;
    struct str channel, recipient, type;
};

static bool same(struct str a, struct str b)
{
    return !a.p == !b.p && a.n == b.n && (!a.n || memcmp(a.p, b.p, a.n) == 0);
}

static void parse(const struct json *q, struct buf *out)
{
    static const char *const modes[] = {"strict", "lenient", "recover", NULL};
    const struct json *tokens = json_get(q, "tokens");
    struct str role = member(q, "role");
    enum harmony_role r = ROLE_ASSISTANT;
    for (int i = 0; i < N_ROLE; i++)
        if (str_eq(role, harmony_role_name[i]))
            r = (enum harmony_role)i;
    struct harmony_parser *p;
    if (harmony_parser_new(vocab, (enum harmony_mode)choice(q, "mode", modes), role.p != NULL, r,
                           (size_t)64 << 20, &p) < 0) {
        buf_puts(out, "{\"error\":\"no parser\"}");
        return;
    }
    struct buf heads, owners;
    buf_init(&heads, (size_t)256 << 20);
    buf_init(&owners, (size_t)256 << 20);
    struct harmony_delta d;
    struct err e;
    const char *last_role = NULL;
    struct buf last[3];
    struct str last_str[3] = {{0}};
    for (int k = 0; k < 3; k++)
        buf_init(&last[k], 1 << 20);
    size_t n = json_len(tokens), index = SIZE_MAX, n_head = 0;
    buf_puts(out, "{\"deltas\":[");
    for (size_t i = 0; i < n; i++) {
        if (harmony_feed(p, (int32_t)json_int(json_at(tokens, i)), &d, &e) < 0) {
            index = i;
            break;
        }
        if (i)
            buf_putc(out, ',');
        put_opt(out, d.has_delta ? d.delta : (struct str){0});
        if (d.has_delta)
            buf_printf(&owners, "%s%d", owners.n ? "," : "", d.i_msg);
        const char *now_role = d.has_role ? harmony_role_name[d.role] : NULL;
        struct str now[3] = {d.channel, d.recipient, d.content_type};
        if (now_role == last_role && same(now[0], last_str[0]) && same(now[1], last_str[1]) &&
            same(now[2], last_str[2]))
            continue;
        buf_printf(&heads, "%s[%zu,%s%s%s", n_head++ ? "," : "", i, now_role ? "\"" : "",
                   now_role ? now_role : "null", now_role ? "\"" : "");
        last_role = now_role;
        for (int k = 0; k < 3; k++) {
            buf_putc(&heads, ',');
            put_opt(&heads, now[k]);
            buf_clear(&last[k]);
            buf_put(&last[k], now[k].p, now[k].n);
            last_str[k] = (struct str){now[k].p ? last[k].p : NULL, now[k].n};
        }
        buf_putc(&heads, ']');
    }
    buf_puts(out, "],\"heads\":[");
    buf_put(out, heads.p, heads.n);
    buf_puts(out, "],\"finish_delta\":");
    if (index == SIZE_MAX && harmony_finish(p, &d, &e) < 0)
        index = n;
    bool last_delta = index == SIZE_MAX && d.has_delta;
    put_opt(out, last_delta ? d.delta : (struct str){0});
    if (last_delta)
        buf_printf(&owners, "%s%d", owners.n ? "," : "", d.i_msg);
    buf_puts(out, ",\"owners\":[");
    buf_put(out, owners.p, owners.n);
    buf_puts(out, "],\"index\":");
    if (index == SIZE_MAX)
        buf_puts(out, "null");
    else
        buf_printf(out, "%zu", index);
    int n_msg;
    const struct harmony_message *m = harmony_messages(p, &n_msg);
    buf_puts(out, ",\"messages\":[");
    for (int i = 0; i < n_msg; i++) {
        if (i)
            buf_putc(out, ',');
        harmony_message_json(out, &m[i]);
    }
    buf_puts(out, "]}");
    for (int k = 0; k < 3; k++)
        buf_fini(&last[k]);
    buf_fini(&heads);
    buf_fini(&owners);
    harmony_parser_free(p);
}

static void builtin(const struct json *q, struct buf *out)
{
    struct harmony_namespace ns;
    struct buf b;
    buf_init(&b, 1 << 20);
    if (str_eq(member(q, "name"), "python"))
        harmony_builtin_python(&ns);
    else
        harmony_builtin_browser(&ns);
    harmony_tools_section(&b, &ns, 1);
    buf_puts(out, "{\"text\":");
    json_quote(out, b.p, b.n);
    buf_putc(out, '}');
    buf_fini(&b);
}

static void tiny(const struct json *q, struct buf *out)
{
    struct buf b;
    struct vocab *v = NULL;
    struct err e = {0};
    buf_init(&b, (size_t)64 << 20);
    status st = file_read(member(q, "path").p, &b, &e);
    if (st == OK)
        st = vocab_from_json(b.p, b.n, &v, &e);
    buf_puts(out, "{");
    if (st < 0) {
        buf_puts(out, "\"error\":");
        json_quote(out, e.msg, strlen(e.msg));
    } else {
        vocab = v; /* kept until the program ends */
    }
    buf_puts(out, "}");
    buf_fini(&b);
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    struct buf out;
    buf_init(&out, (size_t)512 << 20);
    vocab = vocab_o200k();
    for (ssize_t n; (n = getline(&line, &cap, stdin)) > 0;) {
        struct json *q;
        struct err e = {0};
        buf_clear(&out);
        if (json_parse(line, (size_t)n, &json_limits_file, &q, &e) < 0) {
            fprintf(stderr, "harmony_driver: %s\n", e.msg);
            return 1;
        }
        struct str op = member(q, "op");
        if (str_eq(op, "render"))
            render(q, &out);
        else if (str_eq(op, "parse"))
            parse(q, &out);
        else if (str_eq(op, "builtin"))
            builtin(q, &out);
        else
            tiny(q, &out);
        json_free(q);
        if (buf_status(&out) < 0)
            return 1;
        fwrite(out.p, 1, out.n, stdout);
        putchar('\n');
        fflush(stdout);
    }
    buf_fini(&out);
    free(line);
    return 0;
}
