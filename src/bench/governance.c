/* The licence and policy review of the study: what is documented about each model, not measured.
 *
 * Four files: safety_governance_summary.json, safety_evaluation.json,
 * safety_governance_overview.csv, safety_governance_report.md. The facts below can be overridden
 * and added to by a JSON file: an object by model id, or a list of records with "id".
 */
#include "base/file.h"
#include "base/json.h"
#include "bench/bench.h"
#include "bench/machine.h"

#include <stdio.h>
#include <string.h>

enum { N_FIELD = 13, MAX_MODEL = 32, TEXT_MAX = 16 << 20 };

/* Columns of the overview; the last four are members of "sources". */
static const char columns[] =
    "id name organization license license_class usage_policy governance release_date model_card "
    "sources.license sources.usage_policy sources.model_card sources.governance";

static const char *const field[N_FIELD] = {
    "id",           "name",       "organization", "license",    "license_class",
    "usage_policy", "governance", "release_date", "model_card", "license",
    "usage_policy", "model_card", "governance"};

struct model {
    char v[N_FIELD][256];
    char features[3][160];
};

static const struct model known[] = {
    {{"gpt-oss-20b", "gpt-oss-20b", "OpenAI", "Apache-2.0", "Permissive", "gpt-oss usage policy",
      "OpenAI Preparedness Framework", "2025-08-05", "https://arxiv.org/abs/2508.10925",
      "https://huggingface.co/openai/gpt-oss-20b/blob/main/LICENSE",
      "https://huggingface.co/openai/gpt-oss-20b/blob/main/USAGE_POLICY",
      "https://arxiv.org/abs/2508.10925", "https://arxiv.org/abs/2508.10925"},
     {"deliberative alignment and instruction hierarchy in training (model card)",
      "harmful chemical, biological, radiological and nuclear data filtered in pre-training "
      "(model card)",
      "adversarial fine-tuning evaluated before release (model card)"}},
    {{"gpt-oss-120b", "gpt-oss-120b", "OpenAI", "Apache-2.0", "Permissive", "gpt-oss usage policy",
      "OpenAI Preparedness Framework", "2025-08-05", "https://arxiv.org/abs/2508.10925",
      "https://huggingface.co/openai/gpt-oss-120b/blob/main/LICENSE",
      "https://huggingface.co/openai/gpt-oss-120b/blob/main/USAGE_POLICY",
      "https://arxiv.org/abs/2508.10925", "https://arxiv.org/abs/2508.10925"},
     {"deliberative alignment and instruction hierarchy in training (model card)",
      "harmful chemical, biological, radiological and nuclear data filtered in pre-training "
      "(model card)",
      "adversarial fine-tuning evaluated before release (model card)"}},
    {{"qwen3-32b", "Qwen3-32B", "Alibaba", "Apache-2.0", "Permissive", "", "", "2025-04-29",
      "https://huggingface.co/Qwen/Qwen3-32B",
      "https://huggingface.co/Qwen/Qwen3-32B/blob/main/LICENSE", "",
      "https://huggingface.co/Qwen/Qwen3-32B", ""},
     {"", "", ""}},
    {{"yi-34b", "Yi-34B", "01.AI", "Apache-2.0", "Permissive", "", "", "2023-11-02",
      "https://huggingface.co/01-ai/Yi-34B",
      "https://huggingface.co/01-ai/Yi-34B/blob/main/LICENSE", "",
      "https://huggingface.co/01-ai/Yi-34B", ""},
     {"", "", ""}},
};

struct models {
    struct model v[MAX_MODEL];
    int n;
};

static status take(struct models *l, const char *id, const struct json *rec, struct err *e)
{
    int at = 0;
    if (json_kind(rec) != J_OBJ || !id || !*id)
        return err_set(e, E_INPUT, "--metadata: a record is no object with an id");
    while (at < l->n && strcmp(l->v[at].v[0], id) != 0)
        at++;
    if (at == MAX_MODEL)
        return err_set(e, E_LIMIT, "--metadata: more than %d models", MAX_MODEL);
    if (at == l->n)
        l->v[l->n++] = (struct model){0};
    struct model *m = &l->v[at];
    snprintf(m->v[0], sizeof m->v[0], "%s", id);
    for (int i = 1; i < N_FIELD; i++) {
        const char *text = NULL;
        status st = json_get_str(i < 9 ? rec : json_get(rec, "sources"), field[i], &text, e);
        if (st < 0)
            return st;
        if (text)
            snprintf(m->v[i], sizeof m->v[i], "%s", text);
    }
    const struct json *f = json_get(rec, "safety_features");
    for (size_t i = 0; i < 3 && json_kind(f) == J_ARR; i++) {
        const struct json *one = json_at(f, i);
        snprintf(m->features[i], sizeof m->features[i], "%s",
                 json_kind(one) == J_STR ? json_str(one, NULL) : "");
    }
    return OK;
}

static status read_models(struct models *l, const char *path, struct err *e)
{
    struct buf b;
    struct json *root = NULL;
    buf_init(&b, TEXT_MAX);
    status st = OK;
    l->n = sizeof known / sizeof *known;
    memcpy(l->v, known, sizeof known);
    if (!path)
        goto out;
    TRY(file_read(path, &b, e));
    TRY(json_parse(b.p, b.n, &json_limits_file, &root, e));
    if (json_kind(root) == J_ARR)
        for (size_t i = 0; i < json_len(root); i++) {
            const char *id = NULL;
            TRY(json_get_str(json_at(root, i), "id", &id, e));
            TRY(take(l, id, json_at(root, i), e));
        }
    else
        for (void *it = json_first(root); it; it = json_next(root, it))
            TRY(take(l, json_key(it, NULL), json_val(it), e));
out:
    json_free(root);
    buf_fini(&b);
    return st;
}

/* ---- the files ---- */

static void quote(struct buf *b, const char *s)
{
    json_quote(b, s, strlen(s));
}

static void put_features(struct buf *b, const struct model *m)
{
    const char *sep = "";
    buf_puts(b, "[");
    for (int i = 0; i < 3; i++)
        if (m->features[i][0]) {
            buf_puts(b, sep);
            quote(b, m->features[i]);
            sep = ", ";
        }
    buf_puts(b, "]");
}

static void put_environment(struct buf *b, const char *date)
{
    struct machine m;
    machine_read(&m);
    buf_printf(b, "{\"gloss\": \"%s\", \"system\": ", gloss_version());
    quote(b, m.system);
    buf_puts(b, ", \"processor\": ");
    quote(b, m.cpu);
    buf_printf(b, ", \"timestamp\": \"%s\"}", date);
}

/* {"id": true, ...}: whether the field is filled. */
static void put_has(struct buf *b, const struct models *l, int i_field)
{
    for (int i = 0; i < l->n; i++) {
        buf_puts(b, i ? ", " : "{");
        quote(b, l->v[i].v[0]);
        buf_puts(b, l->v[i].v[i_field][0] ? ": true" : ": false");
    }
    buf_puts(b, "}");
}

static void put_classes(struct buf *b, const struct models *l)
{
    const char *sep = "";
    buf_puts(b, "{");
    for (int i = 0; i < l->n; i++) {
        int n = 0, first = i;
        for (int k = 0; k < l->n; k++)
            if (strcmp(l->v[k].v[4], l->v[i].v[4]) == 0) {
                n++;
                first = k < first ? k : first;
            }
        if (first != i)
            continue;
        buf_puts(b, sep);
        quote(b, l->v[i].v[4][0] ? l->v[i].v[4] : "Unknown");
        buf_printf(b, ": %d", n);
        sep = ", ";
    }
    buf_puts(b, "}");
}

static int n_without_policy(const struct models *l)
{
    int n = 0;
    for (int i = 0; i < l->n; i++)
        n += l->v[i].v[5][0] == '\0';
    return n;
}

static const char *const advice[] = {
    "Read the licence and the usage policy of the exact version you deploy.",
    "Measure refusals and over-refusals on prompts of your own domain (gloss eval safety).",
    "Keep the chain of thought from end users: it was not trained to be free of harmful text.",
    "Document filters of the deployment apart from what the model itself does."};
enum { N_ADVICE = sizeof advice / sizeof *advice };

static void put_findings(struct buf *b, const struct models *l, const char *before,
                         const char *between, const char *after)
{
    int without = n_without_policy(l);
    buf_printf(b, "%s%d models reviewed from their documents; nothing was probed here.%s", before,
               l->n, between);
    buf_printf(b, "%d of them have no usage policy of their own beside the licence.%s", without,
               between);
    buf_printf(b, "Licences: ");
    for (int i = 0; i < l->n; i++)
        buf_printf(b, "%s%s %s", i ? ", " : "", l->v[i].v[0],
                   l->v[i].v[3][0] ? l->v[i].v[3] : "unknown");
    buf_printf(b, ".%s", after);
}

static void put_summary(struct buf *b, const struct models *l, const char *date)
{
    buf_printf(b, "{\"analysis_date\": \"%s\",\n \"environment\": ", date);
    put_environment(b, date);
    buf_puts(b, ",\n \"models\": {");
    for (int i = 0; i < l->n; i++) {
        const struct model *m = &l->v[i];
        buf_puts(b, i ? ",\n  " : "\n  ");
        quote(b, m->v[0]);
        buf_puts(b, ": {");
        for (int k = 0; k < 9; k++) {
            buf_puts(b, k ? ", " : "");
            quote(b, field[k]);
            buf_puts(b, ": ");
            quote(b, m->v[k]);
        }
        buf_puts(b, ", \"safety_features\": ");
        put_features(b, m);
        buf_puts(b, ", \"sources\": {");
        for (int k = 9; k < N_FIELD; k++) {
            buf_puts(b, k > 9 ? ", " : "");
            quote(b, field[k]);
            buf_puts(b, ": ");
            quote(b, m->v[k]);
        }
        buf_puts(b, "}}");
    }
    buf_puts(b, "},\n \"comparative_analysis\": {\"license_classes\": ");
    put_classes(b, l);
    buf_puts(b, ", \"has_usage_policy\": ");
    put_has(b, l, 5);
    buf_puts(b, ", \"has_model_card_link\": ");
    put_has(b, l, 8);
    buf_puts(b, "},\n \"key_findings\": [\"");
    put_findings(b, l, "", "\", \"", "\"],\n \"recommendations\": [");
    for (int i = 0; i < N_ADVICE; i++) {
        buf_puts(b, i ? ", " : "");
        quote(b, advice[i]);
    }
    buf_puts(b, "]}\n");
}

static void put_evaluation(struct buf *b, const struct models *l)
{
    buf_puts(b, "{\"evaluation_method\": \"Documentation review (qualitative only)\",\n"
                " \"note\": \"Nothing was probed; gloss eval safety measures refusals.\",\n"
                " \"suggested_next_steps\": [\"Run gloss eval safety on the deployed model.\"],\n"
                " \"models\": {");
    for (int i = 0; i < l->n; i++) {
        buf_puts(b, i ? ",\n  " : "\n  ");
        quote(b, l->v[i].v[0]);
        buf_puts(b, ": {\"safety_score\": \"N/A (qualitative)\", \"strengths\": ");
        put_features(b, &l->v[i]);
        buf_puts(b, ", \"limitations\": [\"Effectiveness not measured\", \"From public documents; "
                    "may be incomplete\"]}");
    }
    buf_puts(b, "}}\n");
}

static void put_report(struct buf *b, const struct models *l, const char *date)
{
    static const char *const label[] = {"Organization", "License",    "License class",
                                        "Usage policy", "Governance", "Release date",
                                        "Model card"};
    buf_printf(b, "# Safety and governance (documents only)\n\nMade %s by gloss %s.\n\n## Models\n",
               date, gloss_version());
    for (int i = 0; i < l->n; i++) {
        const struct model *m = &l->v[i];
        buf_printf(b, "\n### %s (`%s`)\n\n", m->v[1], m->v[0]);
        for (int k = 2; k < 9; k++)
            buf_printf(b, "- %s: %s\n", label[k - 2], m->v[k][0] ? m->v[k] : "none found");
        for (int k = 0; k < 3; k++)
            if (m->features[k][0])
                buf_printf(b, "- %s\n", m->features[k]);
    }
    buf_puts(b, "\n## Findings\n\n- ");
    put_findings(b, l, "", "\n- ", "\n");
    buf_puts(b, "\n## Recommendations\n\n");
    for (int i = 0; i < N_ADVICE; i++)
        buf_printf(b, "- %s\n", advice[i]);
}

static status save(const char *dir, const char *name, const struct buf *b, struct err *e)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return buf_status(b) < 0 ? err_set(e, E_NOMEM, "out of memory")
                             : file_save(path, b->p, b->n, e);
}

static status save_overview(const char *dir, const struct models *l, struct err *e)
{
    struct sheet s = {0};
    char path[4096];
    status st = OK;
    TRY(sheet_init(&s, columns, e));
    for (int i = 0; i < l->n; i++) {
        sheet_row(&s);
        for (int k = 0; k < N_FIELD; k++)
            sheet_text(&s, s.col[k], l->v[i].v[k]);
        TRY(sheet_end_row(&s, e));
    }
    snprintf(path, sizeof path, "%s/safety_governance_overview.csv", dir);
    TRY(sheet_save(&s, path, e));
out:
    sheet_fini(&s);
    return st;
}

status governance_run(const char *dir, const char *metadata, struct err *e)
{
    struct models l;
    struct buf b;
    char date[32];
    buf_init(&b, TEXT_MAX);
    machine_date(date);
    status st = OK;
    TRY(read_models(&l, metadata, e));
    TRY(bench_folder(dir, e));
    put_summary(&b, &l, date);
    TRY(save(dir, "safety_governance_summary.json", &b, e));
    buf_clear(&b);
    put_evaluation(&b, &l);
    TRY(save(dir, "safety_evaluation.json", &b, e));
    buf_clear(&b);
    put_report(&b, &l, date);
    TRY(save(dir, "safety_governance_report.md", &b, e));
    TRY(save_overview(dir, &l, e));
out:
    buf_fini(&b);
    return st;
}
