/* The option table of the program: every command and every option, once. See base/conf.h. */
#include "cli/cli.h"

#define BIT(c) (1ull << (c))
#define ALL (BIT(N_CMD) - 1)
#define SPEED (BIT(CMD_BENCH_DECODE) | BIT(CMD_BENCH_PREFILL) | BIT(CMD_BENCH_ENGINE))
#define STEPS (BIT(CMD_BENCH_DECODE) | BIT(CMD_BENCH_PREFILL))
#define POWER (BIT(CMD_BENCH_ENERGY) | BIT(CMD_BENCH_MEMORY) | BIT(CMD_BENCH_STUDY))
#define TABLE (BIT(CMD_BENCH_LATENCY) | BIT(CMD_BENCH_MEMORY) | BIT(CMD_BENCH_ENERGY))
#define ROWS (TABLE | BIT(CMD_BENCH_SERVE))
#define STUDY (ROWS | BIT(CMD_BENCH_ABLATION) | BIT(CMD_BENCH_STUDY))
#define UNIFY (BIT(CMD_BENCH_UNIFY) | BIT(CMD_BENCH_APE) | BIT(CMD_REPORT))
#define RUN                                                                                        \
    (BIT(CMD_INFER) | BIT(CMD_LOGITS) | BIT(CMD_SCORE) | BIT(CMD_SERVE) | BIT(CMD_MLPERF_RUN) |    \
     SPEED | STUDY | BIT(CMD_BENCH_FIDELITY) | BIT(CMD_EVAL) | BIT(CMD_RUN))
#define MEASURED (SPEED | STUDY | BIT(CMD_BENCH_FIDELITY) | BIT(CMD_MLPERF_RUN))
#define OPEN (RUN | BIT(CMD_INFO))
#define VOCAB                                                                                      \
    (BIT(CMD_TOKENIZE) | BIT(CMD_RENDER) | BIT(CMD_PARSE) | BIT(CMD_MLPERF_HARMONIZE) |            \
     BIT(CMD_MLPERF_ACCURACY) | BIT(CMD_MLPERF_COMPLIANCE))
#define LCB (BIT(CMD_MLPERF_ACCURACY) | BIT(CMD_MLPERF_COMPLIANCE))
#define ANY 0x1p63

static const char g_model[] = "Model";
static const char g_sample[] = "Sampling";
static const char g_common[] = "General";
static const char g_http[] = "Server";

static const struct conf_opt options[] = {
    /* infer: what goes in */
    {"prompt-file", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_INFER),
     .help = "read the prompt from FILE ('-' is standard input)"},
    {"messages", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_INFER),
     .help = "read a conversation: an OpenAI messages array, or an object with messages and "
             "tools ('-' is standard input)"},
    {"system", NULL, 0, CONF_STR, "TEXT", .cmds = BIT(CMD_INFER),
     .help = "a system message before the conversation"},
    {"developer", NULL, 0, CONF_STR, "TEXT", .cmds = BIT(CMD_INFER),
     .help = "a developer message (instructions) before the conversation"},
    {"tools", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_INFER),
     .help = "function tools in OpenAI's form, an array or an object with tools; replaces those "
             "of --messages"},
    {"schema", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_INFER),
     .help = "a JSON Schema for the answer: shown to the model as its response format, and the "
             "answer is held to it"},
    {"json-object", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_INFER),
     .help = "hold the answer to any JSON object"},
    {"regex", NULL, 0, CONF_STR, "PATTERN", .cmds = BIT(CMD_INFER),
     .help = "hold the whole answer to a regular expression"},
    {"choice", NULL, 0, CONF_LIST, "TEXT", .cmds = BIT(CMD_INFER),
     .help = "hold the answer to one of these texts"},
    {"tool-choice", NULL, 0, CONF_STR, "auto|none|required|NAME", .cmds = BIT(CMD_INFER),
     .help = "whether a tool is called: as the model decides, never, always, or the function NAME; "
             "unset: as the request says, else auto"},
    {"header-grammar", NULL, 0, CONF_FLAG, .def = "1", .cmds = BIT(CMD_INFER),
     .help = "let the model write malformed message headers, calls of unknown tools among them"},
    {"date", NULL, 0, CONF_STR, "YYYY-MM-DD|today|none", .def = "today",
     .cmds = BIT(CMD_INFER) | BIT(CMD_RENDER),
     .help = "the current date told to the model (of an OpenAI conversation)"},
    /* infer: what comes out */
    {"json", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_INFER),
     .help = "print one JSON value with answer, analysis, tool calls, usage and timings"},
    {"raw", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_INFER),
     .help = "print the generated harmony tokens as they are, markers included"},
    {"show-analysis", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_INFER),
     .help = "print the analysis before the answer; on a terminal that is the default, and "
             "--no-show-analysis hides it"},
    {"save", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_INFER),
     .help = "also write the JSON value to a file"},
    {"outdir", NULL, 0, CONF_STR, "DIR", .def = ".", .cmds = BIT(CMD_INFER),
     .help = "folder of the file of --save; made when missing"},
    {"outfile", NULL, 0, CONF_STR, "FILE", .def = "response.json", .cmds = BIT(CMD_INFER),
     .help = "name of the file of --save"},
    {"input-path", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_INFER),
     .help = "answer every conversation of a JSON Lines file ('-' is standard input)"},
    {"output-path", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_INFER),
     .help = "write the answers of --input-path to FILE, a line each; else standard output"},
    {"scripted", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_INFER),
     .help = "for tests: emit the lines of a JSON Lines file instead of what the model would "
             "(docs/engine.md)"},
    {"parallel", NULL, 0, CONF_INT, "N", 1, 256, .def = "4", .cmds = BIT(CMD_INFER),
     .help = "conversations of --input-path computed at once; the answers do not depend on it"},

    /* tokenize */
    {"decode", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_TOKENIZE),
     .help = "read a JSON array of ids and write their bytes"},
    {"special", NULL, 0, CONF_CHOICE, "allow|text|error", .def = "text", .cmds = BIT(CMD_TOKENIZE),
     .help = "text that looks like a special token: becomes that token, stays text, or is an "
             "error"},
    {"count", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_TOKENIZE), .help = "print the number of tokens"},

    /* harmony */
    {"format", NULL, 0, CONF_CHOICE, "auto|harmony|openai", .def = "auto", .cmds = BIT(CMD_RENDER),
     .help = "form of the conversation; auto tells by its content"},
    {"for", NULL, 0, CONF_CHOICE, "completion|training|conversation", .def = "completion",
     .cmds = BIT(CMD_RENDER),
     .help = "end with the assistant's start, as a training sample, or with the last message"},
    {"keep-analysis", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_RENDER),
     .help = "keep the analysis of finished turns"},
    {"drop", NULL, 0, CONF_CHOICE, "library|closed-turns", .def = "library",
     .cmds = BIT(CMD_RENDER),
     .help = "which analysis is dropped: as the harmony library does, or of every finished turn"},
    {"role", NULL, 0, CONF_CHOICE, "assistant|none", .def = "assistant", .cmds = BIT(CMD_PARSE),
     .help = "whether the tokens follow '<|start|>assistant' or begin with <|start|>"},
    {"mode", NULL, 0, CONF_CHOICE, "strict|lenient|recover", .def = "recover",
     .cmds = BIT(CMD_PARSE), .help = "what happens with malformed messages"},
    {"deltas", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_PARSE),
     .help = "also print what each token added"},

    /* logits */
    {"tokens", NULL, 0, CONF_STR, "IDS", .cmds = BIT(CMD_LOGITS),
     .help = "token ids as a JSON array"},
    {"tokens-file", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_LOGITS),
     .help = "read the token ids from FILE ('-' is standard input)"},
    {"out", NULL, 'o', CONF_STR, "FILE", .required = true, .cmds = BIT(CMD_LOGITS),
     .help = "the .npy file to write"},
    {"reference", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_LOGITS),
     .help = "use the plain reference forward"},
    {"last", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_LOGITS), .help = "only the last token's row"},

    /* bench */
    {"prompt-tokens", NULL, 0, CONF_INT, "N", 1, 1 << 20, .def = "128",
     .cmds = BIT(CMD_BENCH_ENGINE), .help = "tokens of each prompt"},
    {"prompt-tokens", NULL, 0, CONF_STR, "LIST", .def = "128", .cmds = STEPS,
     .help = "tokens of each prompt behind --depth, computed anew each time"},
    {"depth", NULL, 0, CONF_STR, "LIST", .def = "0", .cmds = STEPS,
     .help = "tokens that each context already holds when the measuring begins"},
    {"repeats", NULL, 0, CONF_INT, "N", 1, 1000, .def = "3", .cmds = STEPS,
     .help = "measurements of each cell, behind one that does not count"},
    {"generate-tokens", NULL, 0, CONF_INT, "N", 2, 1 << 20, .def = "64", .cmds = SPEED,
     .help = "tokens generated for each prompt (decode, engine)"},
    {"parallel", NULL, 0, CONF_INT, "N", 1, 4096, .def = "1", .cmds = BIT(CMD_BENCH_ENGINE),
     .help = "requests at once"},
    {"parallel", NULL, 0, CONF_STR, "LIST", .def = "1", .cmds = STEPS, .help = "requests at once"},
    {"csv", NULL, 0, CONF_FLAG, .cmds = STEPS, .help = "print the rows as CSV"},
    {"grammar", NULL, 0, CONF_FLAG, .cmds = SPEED,
     .help = "hold the answers to a JSON Schema (decode, engine)"},
    {"prompt-tokens", NULL, 0, CONF_STR, "LIST", .def = "128,512,1024,2048",
     .cmds = BIT(CMD_BENCH_LATENCY) | BIT(CMD_BENCH_STUDY), .help = "tokens of the prompts"},
    {"gen-tokens", NULL, 0, CONF_STR, "LIST", .def = "64,128,256",
     .cmds = BIT(CMD_BENCH_LATENCY) | BIT(CMD_BENCH_STUDY), .help = "tokens of the answers"},
    {"num-requests", NULL, 0, CONF_INT, "N", 1, 1 << 20, .def = "10",
     .cmds = BIT(CMD_BENCH_LATENCY) | BIT(CMD_BENCH_STUDY),
     .help = "answers timed for each pair of lengths"},
    {"extended", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_BENCH_LATENCY),
     .help = "further columns: the usual percentiles, the rate behind the first token, when "
             "thinking and answering began"},
    {"context-lengths", NULL, 0, CONF_STR, "LIST", .def = "128,512,1024,2048",
     .cmds = BIT(CMD_BENCH_MEMORY) | BIT(CMD_BENCH_ENERGY) | BIT(CMD_BENCH_STUDY),
     .help = "tokens of the prompts"},
    {"gen-tokens", NULL, 0, CONF_INT, "N", 1, 1 << 20, .def = "64",
     .cmds = BIT(CMD_BENCH_MEMORY) | BIT(CMD_BENCH_ENERGY), .help = "tokens of the answers"},
    {"num-runs", NULL, 0, CONF_INT, "N", 1, 1 << 20, .def = "5",
     .cmds = BIT(CMD_BENCH_ENERGY) | BIT(CMD_BENCH_ABLATION) | BIT(CMD_BENCH_STUDY),
     .help = "answers measured for each length"},
    {"min-seconds", NULL, 0, CONF_NUM, "S", 0, 1e6, .def = "0", .cmds = BIT(CMD_BENCH_ENERGY),
     .help = "more answers than --num-runs until so long was measured; a card's readings are "
             "means of up to a second"},
    {"base-url", NULL, 0, CONF_STR, "URL", .cmds = BIT(CMD_BENCH_SERVE) | BIT(CMD_BENCH_ABLATION),
     .help = "the server to ask, as in http://127.0.0.1:8000/v1; unset: one of this process that "
             "runs --model"},
    {"api-key", NULL, 0, CONF_STR, "KEY", .cmds = BIT(CMD_BENCH_SERVE) | BIT(CMD_BENCH_ABLATION),
     .help = "sent to --base-url"},
    {"served-model-name", NULL, 0, CONF_STR, "NAME",
     .cmds = BIT(CMD_BENCH_SERVE) | BIT(CMD_BENCH_ABLATION),
     .help =
         "the model's name in requests; unset: as in the results, else the first that --base-url "
         "lists"},
    {"endpoint", NULL, 0, CONF_CHOICE, "chat|completions", .def = "chat",
     .cmds = BIT(CMD_BENCH_SERVE) | BIT(CMD_BENCH_STUDY),
     .help = "chat completions with prompts as text, or completions with prompts as token ids of "
             "exactly that number"},
    {"concurrency", "max-concurrency", 0, CONF_STR, "LIST", .def = "1,2,4,8,16,32,64",
     .cmds = BIT(CMD_BENCH_SERVE) | BIT(CMD_BENCH_STUDY), .help = "requests under way at once"},
    {"prompt-tokens", NULL, 0, CONF_STR, "LIST", .def = "128,512,2048",
     .cmds = BIT(CMD_BENCH_SERVE), .help = "tokens of the prompts"},
    {"gen-tokens", NULL, 0, CONF_STR, "LIST", .def = "64,256", .cmds = BIT(CMD_BENCH_SERVE),
     .help = "tokens of the answers"},
    {"num-requests", "num-prompts", 0, CONF_INT, "N", 1, 1 << 16, .cmds = BIT(CMD_BENCH_SERVE),
     .help = "requests of each cell; unset: four for each at once, at least 10"},
    {"reasoning-effort", "reasoning-level", 'r', CONF_CHOICE, "low|medium|high", .def = "medium",
     .cmds = BIT(CMD_BENCH_SERVE) | BIT(CMD_BENCH_STUDY),
     .help = "how much analysis chats ask for"},
    {"text", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_BENCH_SERVE),
     .help = "print each cell as vLLM's benchmark does"},
    {"result-dir", NULL, 0, CONF_STR, "DIR", .cmds = BIT(CMD_BENCH_SERVE),
     .help = "also write each cell to a file there, with the keys of vLLM's benchmark"},
    {"power-poll-hz", NULL, 0, CONF_NUM, "HZ", 0, 1000, .def = "10", .cmds = BIT(CMD_BENCH_STUDY),
     .help = "power readings a second while energy is measured"},
    {"extended", NULL, 0, CONF_FLAG, .def = "1", .cmds = BIT(CMD_BENCH_STUDY),
     .help = "only the study's own columns of latency"},
    {"min-seconds", NULL, 0, CONF_NUM, "S", 0, 1e6, .def = "2", .cmds = BIT(CMD_BENCH_STUDY),
     .help = "more answers than --num-runs until so long was measured"},
    {"load-prompt-tokens", NULL, 0, CONF_STR, "LIST", .def = "128,512,2048",
     .cmds = BIT(CMD_BENCH_STUDY), .help = "tokens of the prompts under load"},
    {"load-gen-tokens", NULL, 0, CONF_STR, "LIST", .def = "64,256", .cmds = BIT(CMD_BENCH_STUDY),
     .help = "tokens of the answers under load"},
    {"load-requests", NULL, 0, CONF_INT, "N", 1, 1 << 16, .cmds = BIT(CMD_BENCH_STUDY),
     .help = "requests of each cell under load; unset: four for each at once, at least 10"},
    {"context-lengths", NULL, 0, CONF_STR, "LIST", .def = "512,1024,2048,4096",
     .cmds = BIT(CMD_BENCH_ABLATION), .help = "tokens of the prompts"},
    {"ablation-contexts", NULL, 0, CONF_STR, "LIST", .def = "512,1024,2048,4096",
     .cmds = BIT(CMD_BENCH_STUDY), .help = "tokens of the prompts of the context ablation"},
    {"tests", NULL, 0, CONF_STR, "LIST", .def = "all",
     .cmds = BIT(CMD_BENCH_ABLATION) | BIT(CMD_BENCH_STUDY),
     .help = "which ablations: all, or some of decoding, quantization, context, server"},
    {"precisions", NULL, 0, CONF_STR, "LIST", .def = "mxfp4,bf16,fp32",
     .cmds = BIT(CMD_BENCH_ABLATION) | BIT(CMD_BENCH_STUDY),
     .help = "of the quantization ablation: some of mxfp4 (the checkpoint as it is), bf16 (a "
             "dequantised copy, written beside the results and removed), fp32 and q8 (arithmetic)"},
    {"max-new-tokens", NULL, 0, CONF_INT, "N", 1, 1 << 20, .def = "64",
     .cmds = BIT(CMD_BENCH_ABLATION) | BIT(CMD_BENCH_STUDY),
     .help = "tokens of the answers of the ablations"},
    {"output-dir", NULL, 0, CONF_STR, "DIR", .def = "new_results/ablations",
     .cmds = BIT(CMD_BENCH_ABLATION), .help = "folder of the results; made when missing"},
    {"output-dir", NULL, 0, CONF_STR, "DIR", .def = "new_results/safety",
     .cmds = BIT(CMD_BENCH_GOVERNANCE), .help = "folder of the results; made when missing"},
    {"metadata", NULL, 0, CONF_STR, "FILE",
     .cmds = BIT(CMD_BENCH_GOVERNANCE) | BIT(CMD_BENCH_STUDY),
     .help = "JSON with records of models, by id, that replace and add to what is built in"},
    {"map", NULL, 0, CONF_LIST, "NAME=SHORT", .cmds = UNIFY | BIT(CMD_BENCH_STUDY),
     .help = "short name of a model; unset: the last part of its name"},
    {"specs", NULL, 0, CONF_STR, "FILE",
     .cmds = BIT(CMD_BENCH_APE) | BIT(CMD_REPORT) | BIT(CMD_BENCH_STUDY),
     .help = "JSON with total_params and active_params of models by short name"},
    {"eval", NULL, 0, CONF_LIST, "SHORT=FILE",
     .cmds = BIT(CMD_BENCH_APE) | BIT(CMD_REPORT) | BIT(CMD_BENCH_STUDY),
     .help =
         "result of an evaluation (JSON of gloss eval, lm-eval or the runner): accuracy for each "
         "10^9 active parameters of that model"},
    {"outdir", NULL, 0, CONF_STR, "DIR", .def = "study", .cmds = BIT(CMD_BENCH_STUDY),
     .help = "folder of the results; made when missing"},
    {"parts", NULL, 0, CONF_STR, "LIST", .def = "latency,memory,energy,serve,ablation,governance",
     .cmds = BIT(CMD_BENCH_STUDY), .help = "what is run"},
    {"fresh", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_BENCH_STUDY),
     .help = "measure again what an earlier run finished"},
    {"power-poll-hz", NULL, 0, CONF_NUM, "HZ", 0, 1000, .def = "0", .cmds = BIT(CMD_BENCH_ENERGY),
     .help = "power readings a second; 0 reads at both ends alone, 10 is a good value"},
    {"gpu-index", NULL, 0, CONF_INT, "N", 0, 1023, .cmds = POWER,
     .help = "the card whose power is read, as nvidia-smi counts; unset: that of --device, none on "
             "the processor"},
    {"powercap", NULL, 0, CONF_STR, "DIR", .def = "/sys/class/powercap", .cmds = POWER,
     .help = "where the kernel shows the processor's energy counters"},
    {"name", NULL, 0, CONF_STR, "NAME", .cmds = STUDY,
     .help = "the model's name in the results; unset: as --model says"},
    {"output", NULL, 'o', CONF_STR, "FILE",
     .cmds = BIT(CMD_BENCH_KERNELS) | BIT(CMD_BENCH_FIDELITY),
     .help = "write the CSV to FILE; unset: standard output"},
    {"json", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_BENCH_KERNELS) | BIT(CMD_BENCH_FIDELITY),
     .help = "print the rows as one JSON array"},
    {"layers", NULL, 0, CONF_STR, "LIST", .cmds = BIT(CMD_BENCH_FIDELITY),
     .help = "compare after so many first layers, a list; unset: after all"},
    {"text-file", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_BENCH_FIDELITY),
     .help = "the text ('-' is standard input); unset: two short paragraphs of its own"},
    {"num-tokens", NULL, 0, CONF_INT, "N", 1, 1 << 20, .def = "256",
     .cmds = BIT(CMD_BENCH_FIDELITY), .help = "at most so many tokens of it"},
    {"output", NULL, 'o', CONF_STR, "FILE", .cmds = ROWS,
     .help = "write the CSV to FILE, finished rows at once to FILE.part, where a later run goes "
             "on; unset: standard output"},
    {"json", NULL, 0, CONF_FLAG, .cmds = ROWS | STEPS, .help = "print the rows as one JSON array"},
    {"scripted", NULL, 0, CONF_STR, "FILE", .cmds = STUDY,
     .help = "for tests: emit the lines of a JSON Lines file instead of what the model would "
             "(docs/engine.md)"},

    /* mlperf harmonize */
    {"data-file", NULL, 0, CONF_STR, "FILE", .required = true, .cmds = BIT(CMD_MLPERF_HARMONIZE),
     .help = "rows with question (or prompt, query) and dataset: JSON Lines or Parquet"},
    {"output-file", NULL, 'o', CONF_STR, "FILE", .required = true,
     .cmds = BIT(CMD_MLPERF_HARMONIZE), .help = "the rows with their prompts, as JSON Lines"},
    {"num-processes", NULL, 0, CONF_INT, "N", 1, 256, .cmds = BIT(CMD_MLPERF_HARMONIZE),
     .help = "threads that render; the output does not depend on it; unset: all processors"},
    {"max-rows", NULL, 0, CONF_INT, "N", 1, 1 << 30, .cmds = BIT(CMD_MLPERF_HARMONIZE),
     .help = "the first N rows only"},
    {"dataset", NULL, 0, CONF_STR, "NAME", .cmds = BIT(CMD_MLPERF_HARMONIZE),
     .help = "only the rows of this data set"},
    {"profiles", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_MLPERF_HARMONIZE),
     .help = "JSON {DATASET: {\"instructions\": TEXT, \"shots\": [[USER, ASSISTANT], ...]}} "
             "instead of gloss's own"},
    {"reasoning-effort", NULL, 'r', CONF_CHOICE, "low|medium|high", .def = "high",
     .cmds = BIT(CMD_MLPERF_HARMONIZE), .help = "how much analysis the model is asked for"},
    {"date", NULL, 0, CONF_STR, "YYYY-MM-DD|today|none", .def = "2025-09-30",
     .cmds = BIT(CMD_MLPERF_HARMONIZE), .help = "the current date told to the model"},

    /* mlperf run */
    {"input-file", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_MLPERF_RUN),
     .help = "the data set of a LoadGen run: rows with input_tokens or tok_input, JSON Lines or "
             "Parquet"},
    {"scenario", NULL, 0, CONF_CHOICE, "offline|server|interactive", .def = "offline",
     .cmds = BIT(CMD_MLPERF_RUN), .help = "how LoadGen issues samples"},
    {"accuracy", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_MLPERF_RUN),
     .help = "every row once, answers logged, instead of a performance run"},
    {"mlperf-conf", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_MLPERF_RUN),
     .help = "settings that replace those compiled into LoadGen"},
    {"user-conf", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_MLPERF_RUN),
     .help = "settings of this system, target_qps above all"},
    {"audit-config", NULL, 0, CONF_STR, "FILE", .def = "audit.config", .cmds = BIT(CMD_MLPERF_RUN),
     .help = "settings of a compliance test; used when the file is there"},
    {"output-dir", NULL, 0, CONF_STR, "DIR", .def = "mlperf_results", .cmds = BIT(CMD_MLPERF_RUN),
     .help = "logs go to DIR/SCENARIO/accuracy or DIR/SCENARIO/performance"},
    {"ref-compat", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_MLPERF_RUN),
     .help = "server: send and count the answer without its first token, as the reference "
             "implementation does"},
    {"trace", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_MLPERF_RUN),
     .help = "fill mlperf_log_trace.json"},
    {"input-tokens", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_MLPERF_RUN),
     .help = "without LoadGen: answer each of these rows"},
    {"output", NULL, 'o', CONF_STR, "FILE", .cmds = BIT(CMD_MLPERF_RUN),
     .help = "with --input-tokens: the rows with model_output_K, tok_model_output_K, "
             "tok_model_output_len_K and infer_time_K"},
    {"pass-k", NULL, 0, CONF_INT, "N", 1, 1000, .def = "1", .cmds = BIT(CMD_MLPERF_RUN),
     .help = "with --input-tokens: answers to each row"},
    {"max-samples", NULL, 0, CONF_INT, "N", 1, 1 << 30, .cmds = BIT(CMD_MLPERF_RUN),
     .help = "the first N rows only"},
    {"backend", NULL, 0, CONF_CHOICE, "native|http|sglang", .cmds = BIT(CMD_MLPERF_RUN),
     .help = "the engine in this process, or a server's /generate (http and sglang are one); "
             "unset: native unless there is a --server-url"},
    {"server-url", NULL, 0, CONF_STR, "URL", .def = "http://localhost:30000",
     .cmds = BIT(CMD_MLPERF_RUN), .help = "the server"},
    {"api-key", NULL, 0, CONF_STR, "KEY", .cmds = BIT(CMD_MLPERF_RUN), .help = "the server's key"},
    {"timeout", NULL, 0, CONF_NUM, "S", 0, 1e6, .def = "1200", .cmds = BIT(CMD_MLPERF_RUN),
     .help = "seconds after which a request to a server has failed"},
    {"num-workers", NULL, 0, CONF_INT, "N", 1, 64, .def = "1", .cmds = BIT(CMD_MLPERF_RUN),
     .help = "threads that talk to a server"},
    {"max-concurrency", NULL, 0, CONF_INT, "N", 1, 65536, .cmds = BIT(CMD_MLPERF_RUN),
     .help = "samples under way at once; unset: 128, or 256 with --input-tokens"},
    {"generation-config", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_MLPERF_RUN), .group = g_sample,
     .help = "JSON with max_new_tokens, temperature, top_k, top_p"},
    {"max-new-tokens", "max-tokens", 0, CONF_INT, "N", 1, 1 << 30, .cmds = BIT(CMD_MLPERF_RUN),
     .group = g_sample,
     .help = "most tokens of an answer; unset: 32768 for accuracy, 10240 for performance, 20480 "
             "with --input-tokens"},
    {"temperature", NULL, 0, CONF_NUM, "X", 0, 2, .cmds = BIT(CMD_MLPERF_RUN), .group = g_sample,
     .help = "spread of the choice; unset: 1, or 0.001 with --input-tokens"},
    {"top-k", NULL, 0, CONF_INT, "N", 0, 1 << 24, .cmds = BIT(CMD_MLPERF_RUN), .group = g_sample,
     .help = "choose among the N likeliest tokens; unset: off, or 1 with --input-tokens"},
    {"top-p", NULL, 0, CONF_NUM, "X", 0, 1, .above = true, .cmds = BIT(CMD_MLPERF_RUN),
     .group = g_sample,
     .help = "choose among the likeliest tokens that sum to this probability; unset: 1"},
    {"seed", NULL, 0, CONF_INT, "N", 1, ANY, .cmds = BIT(CMD_MLPERF_RUN), .group = g_sample,
     .help = "makes the answers repeatable"},
    {"scripted", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_MLPERF_RUN), .group = g_model,
     .help = "for tests: emit the lines of a JSON Lines file instead of what the model would "
             "(docs/engine.md)"},

    /* mlperf accuracy */
    {"mlperf-log", NULL, 0, CONF_STR, "FILE", .required = true, .cmds = BIT(CMD_MLPERF_ACCURACY),
     .help = "mlperf_log_accuracy.json of the run"},
    {"reference-data", NULL, 0, CONF_STR, "FILE", .required = true,
     .cmds = BIT(CMD_MLPERF_ACCURACY),
     .help = "the data set of the run, with dataset and ground_truth"},
    {"output-file", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_MLPERF_ACCURACY),
     .help = "write a JSON file with the summary and every result"},
    {"save-outputs", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_MLPERF_ACCURACY),
     .help = "write the answers as text and ids, by row, as JSON Lines"},
    {"lcb-grader", NULL, 0, CONF_STR, "COMMAND", .cmds = LCB,
     .help = "judges programs: reads lines {\"question_id\",\"code\"}, writes lines "
             "{\"passed\",\"details\"}"},
    {"skip-lcb", NULL, 0, CONF_FLAG, .cmds = LCB,
     .help = "leave programs (livecodebench) out of the score"},

    /* mlperf compliance */
    {"compliance-dir", "compliance_dir", 'c', CONF_STR, "DIR", .cmds = BIT(CMD_MLPERF_COMPLIANCE),
     .help = "logs of the run that audit.config changed"},
    {"output-dir", "output_dir", 'o', CONF_STR, "DIR", .cmds = BIT(CMD_MLPERF_COMPLIANCE),
     .help = "where the folder TEST07 or TEST09 is made"},
    {"audit-config", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_MLPERF_COMPLIANCE),
     .help = "read thresholds from it; unset: MLPerf's own"},
    {"accuracy-threshold", NULL, 0, CONF_NUM, "X", 0, 100, .cmds = BIT(CMD_MLPERF_COMPLIANCE),
     .help = "TEST07: least score"},
    {"min-output-tokens", NULL, 0, CONF_NUM, "X", 0, 1e9, .cmds = BIT(CMD_MLPERF_COMPLIANCE),
     .help = "TEST09: least mean length of an answer"},
    {"max-output-tokens", NULL, 0, CONF_NUM, "X", 0, 1e9, .cmds = BIT(CMD_MLPERF_COMPLIANCE),
     .help = "TEST09: greatest mean length of an answer"},
    {"reference-data", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_MLPERF_COMPLIANCE),
     .help = "TEST07: the data set of the run, with dataset and ground_truth"},
    {"write-audit-config", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_MLPERF_COMPLIANCE),
     .help = "only write the test's audit.config"},
    {"samples", NULL, 0, CONF_INT, "N", 1, 1 << 30, .cmds = BIT(CMD_MLPERF_COMPLIANCE),
     .help = "rows that the audit.config counts on; unset: the benchmark's 990 or 6396"},
    /* eval */
    {"data", NULL, 0, CONF_LIST, "FILE", .required = true, .cmds = BIT(CMD_EVAL),
     .help = "the data set: JSON Lines or CSV; with several tasks one for each, in their order"},
    {"fewshot-data", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_EVAL),
     .help = "the rows that examples are taken from (mmlu, gsm8k)"},
    {"num-fewshot", "num_fewshot", 0, CONF_INT, "N", 0, 100, .cmds = BIT(CMD_EVAL),
     .help = "examples before each question; unset: the task's own"},
    {"fewshot-random", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_EVAL),
     .help =
         "draw other examples for each question, as lm-eval does for gsm8k; else the first ones"},
    {"method", NULL, 0, CONF_CHOICE, "generate|loglikelihood|single_token", .cmds = BIT(CMD_EVAL),
     .help = "how letters are chosen (tinymmlu, mmlu); unset: the task's own"},
    {"lm-final-prefix", NULL, 0, CONF_FLAG, .def = "1", .cmds = BIT(CMD_EVAL),
     .help = "take log-likelihoods of plain text, not behind the header of a final message"},
    {"formatted", NULL, 0, CONF_FLAG, .def = "1", .cmds = BIT(CMD_EVAL),
     .help = "build tinymmlu's prompts from question and choices, not from input_formatted"},
    {"examples", "limit max-items", 0, CONF_INT, "N", 1, 1 << 30, .cmds = BIT(CMD_EVAL),
     .help = "most rows of the data set"},
    {"n-repeats", "repeats", 0, CONF_INT, "N", 1, 10000, .cmds = BIT(CMD_EVAL),
     .help = "how often each row is asked; unset: the task's own"},
    {"base-url", NULL, 0, CONF_STR, "URL", .cmds = BIT(CMD_EVAL),
     .help = "ask this OpenAI-compatible server, not a model here: http://localhost:8000/v1"},
    {"tokenizer", NULL, 0, CONF_STR, "NAME", .cmds = BIT(CMD_EVAL),
     .help =
         "the model whose vocabulary a server's log-likelihood prompts are encoded with; unset: "
         "o200k_harmony, which is compiled in"},
    {"sampler", NULL, 0, CONF_CHOICE, "chat_completions|responses", .def = "chat_completions",
     .cmds = BIT(CMD_EVAL), .help = "which API of the server is asked"},
    {"api-key", NULL, 0, CONF_STR, "KEY", .cmds = BIT(CMD_EVAL),
     .help = "the server's key; unset: OPENAI_API_KEY of the environment"},
    {"max-retries", NULL, 0, CONF_INT, "N", 0, 1000, .def = "5", .cmds = BIT(CMD_EVAL),
     .help = "further tries of a request that the server refused for now"},
    {"timeout", NULL, 0, CONF_NUM, "S", 0, 1e6, .def = "3600", .cmds = BIT(CMD_EVAL),
     .help = "seconds an answer may take; 0 is any time"},
    {"grader-url", NULL, 0, CONF_STR, "URL", .cmds = BIT(CMD_EVAL),
     .help = "the server that grades HealthBench; unset: the evaluated model grades itself"},
    {"grader-model", NULL, 0, CONF_STR, "NAME", .def = "gpt-4.1-2025-04-14", .cmds = BIT(CMD_EVAL),
     .help = "the model asked there"},
    {"grader-key", NULL, 0, CONF_STR, "KEY", .cmds = BIT(CMD_EVAL),
     .help = "the grader's key; unset: OPENAI_API_KEY of the environment"},
    {"grader-template", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_EVAL),
     .help = "instructions of the grader, with <<conversation>> and <<rubric_item>>"},
    {"irt", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_EVAL),
     .help = "parameters of gp-IRT for the 100 rows of tinymmlu"},
    {"samples", NULL, 0, CONF_INT, "N", 0, 1 << 30, .def = "10", .cmds = BIT(CMD_EVAL),
     .help = "answers shown in tinymmlu's result"},
    {"samples-full", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_EVAL), .help = "their whole texts"},
    {"out-dir", "output-path output_path", 'o', CONF_STR, "DIR", .def = "eval_out",
     .cmds = BIT(CMD_EVAL), .help = "folder of the result files; made when missing"},
    {"resume", NULL, 0, CONF_FLAG, .def = "1", .cmds = BIT(CMD_EVAL),
     .help = "ask everything anew, where an unfinished run of the same kind has answers"},
    {"debug", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_EVAL),
     .help = "5 rows, once; file names end with _DEBUG"},
    {"json", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_EVAL),
     .help = "print the summaries as one JSON array"},
    {"parallel", "n-threads", 0, CONF_INT, "N", 1, 4096, .cmds = BIT(CMD_EVAL),
     .help = "questions under way at once; unset: 4 here, 64 on a server"},
    {"date", NULL, 0, CONF_STR, "YYYY-MM-DD|today|none", .def = "today",
     .cmds = BIT(CMD_EVAL) | BIT(CMD_RUN), .help = "the current date told to the model"},
    {"scripted", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_EVAL) | BIT(CMD_RUN), .group = g_model,
     .help = "for tests: emit the lines of a JSON Lines file instead of what the model would "
             "(docs/engine.md)"},
    {"temperature", NULL, 0, CONF_NUM, "X", 0, 2, .cmds = BIT(CMD_EVAL), .group = g_sample,
     .help = "spread of the choice; unset: the task's own (1 or 0)"},
    {"top-p", NULL, 0, CONF_NUM, "X", 0, 1, .above = true, .def = "1", .cmds = BIT(CMD_EVAL),
     .group = g_sample, .help = "choose among the likeliest tokens that sum to this probability"},
    {"max-tokens", "max-new-tokens max_gen_toks", 'n', CONF_INT, "N", 1, 1 << 30,
     .cmds = BIT(CMD_EVAL), .group = g_sample,
     .help = "most tokens of an answer; unset: the task's own"},
    {"seed", NULL, 0, CONF_INT, "N", 0, ANY, .cmds = BIT(CMD_EVAL), .group = g_sample,
     .help = "question i is asked with the seed N + i; unset: another one each time"},
    {"reasoning-effort", "reasoning-level", 'r', CONF_STR, "LEVELS", .def = "medium",
     .cmds = BIT(CMD_EVAL), .group = g_sample,
     .help = "how much analysis is asked for; several in turn: low,medium,high"},
    {"ctx-size", "max-model-len", 0, CONF_INT, "N", 1, 1 << 30,
     .cmds = BIT(CMD_EVAL) | BIT(CMD_RUN), .group = g_model,
     .help = "most tokens of prompt and answer together; unset: the model's own context"},

    /* run */
    {"params", NULL, 0, CONF_STR, "TEXT|FILE", .cmds = BIT(CMD_RUN),
     .help = "the parameters, a map in YAML or JSON: a file, or the text itself"},
    {"param", NULL, 'p', CONF_LIST, "KEY=VALUE", .cmds = BIT(CMD_RUN),
     .help = "one parameter: true, false, a number, JSON that begins with [ or {, or text"},
    {"save", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_RUN),
     .help = "write the result to a file and print the file's name"},
    {"outdir", NULL, 0, CONF_STR, "DIR", .cmds = BIT(CMD_RUN),
     .help = "folder of that file, made when missing; unset: ./omni_out"},
    {"outfile", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_RUN),
     .help = "its name; unset: artifact.json"},
    {"data", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_RUN),
     .help = "tinyMMLU's rows (benchmark_tinymmlu); unset: the split's name and .jsonl"},
    {"model", NULL, 'm', CONF_STR, "NAME", .cmds = BIT(CMD_RUN), .group = g_model,
     .help = "run this model instead of the one that NAME says"},

    /* info */
    {"json", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_INFO), .help = "print one JSON value"},
    {"ctx-size", "max-model-len", 0, CONF_INT, "N", 1, 1 << 30, .cmds = BIT(CMD_INFO),
     .help = "tokens of each conversation to plan for; unset: the model's own context"},
    {"parallel", NULL, 0, CONF_INT, "N", 1, 1 << 20, .def = "1", .cmds = BIT(CMD_INFO),
     .help = "conversations at once to plan for"},
    {"memory-gb", NULL, 0, CONF_NUM, "X", 0, 1e6, .above = true, .cmds = BIT(CMD_INFO),
     .help = "memory to plan with, in GB (10^9 bytes); unset: what this machine has free"},

    /* synth */
    {"like", NULL, 0, CONF_CHOICE, "gpt-oss-20b|gpt-oss-120b", .def = "gpt-oss-20b",
     .cmds = BIT(CMD_SYNTH), .help = "the model whose layout and shape are taken"},
    {"out", NULL, 'o', CONF_STR, "DIR", .required = true, .cmds = BIT(CMD_SYNTH),
     .help = "the folder to write"},
    {"layers", NULL, 0, CONF_INT, "N", 1, 1024, .cmds = BIT(CMD_SYNTH),
     .help = "number of layers instead"},
    {"experts", NULL, 0, CONF_INT, "N", 1, 4096, .cmds = BIT(CMD_SYNTH),
     .help = "number of experts instead"},
    {"hidden", NULL, 0, CONF_INT, "N", 32, 65536, .cmds = BIT(CMD_SYNTH),
     .help = "hidden width instead, a multiple of 32"},
    {"intermediate", NULL, 0, CONF_INT, "N", 32, 65536, .cmds = BIT(CMD_SYNTH),
     .help = "width of an expert instead, a multiple of 32"},
    {"heads", NULL, 0, CONF_INT, "N", 1, 1024, .cmds = BIT(CMD_SYNTH),
     .help = "attention heads instead"},
    {"kv-heads", NULL, 0, CONF_INT, "N", 1, 1024, .cmds = BIT(CMD_SYNTH),
     .help = "key and value heads instead; they divide --heads"},
    {"vocab", NULL, 0, CONF_INT, "N", 1, 1 << 24, .cmds = BIT(CMD_SYNTH),
     .help = "vocabulary size instead"},
    {"seed", NULL, 0, CONF_INT, "N", 0, ANY, .def = "0", .cmds = BIT(CMD_SYNTH),
     .help = "which random weights"},
    {"layout", NULL, 0, CONF_CHOICE, "hf|original", .def = "hf", .cmds = BIT(CMD_SYNTH),
     .help = "names and files as in the Hugging Face checkpoint or in its original/ folder"},
    {"bf16", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_SYNTH),
     .help = "write the experts in bf16, not in MXFP4"},

    /* quantize */
    {"model-id", "model", 'm', CONF_STR, "NAME", .required = true, .cmds = BIT(CMD_QUANTIZE),
     .help = "the checkpoint to convert: a model's name or a folder"},
    {"output-dir", "output", 'o', CONF_STR, "DIR", .required = true, .cmds = BIT(CMD_QUANTIZE),
     .help = "the folder to write"},
    {"quantization-method", "method", 0, CONF_CHOICE, "mxfp4|bf16", .def = "mxfp4",
     .cmds = BIT(CMD_QUANTIZE), .help = "into MXFP4 blocks, or from them back to bf16"},
    {"scale-rule", NULL, 0, CONF_CHOICE, "roundup|ocp|search", .cmds = BIT(CMD_QUANTIZE),
     .help = "how a block's scale is chosen; unset: the measured best"},
    {"json", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_QUANTIZE),
     .help = "print the report as one JSON value"},

    /* help */
    {"as", NULL, 0, CONF_CHOICE, "text|man|markdown", .def = "text", .cmds = BIT(CMD_HELP),
     .help = "man and markdown print the whole table, as the man page and docs/cli.md have it"},

    /* serve */
    {"host", NULL, 0, CONF_STR, "ADDR", .def = "127.0.0.1", .cmds = BIT(CMD_SERVE), .group = g_http,
     .help = "address to listen on"},
    {"port", NULL, 0, CONF_INT, "N", 0, 65535, .def = "8000", .cmds = BIT(CMD_SERVE),
     .group = g_http, .help = "port to listen on; 0 takes a free one"},
    {"api-key", NULL, 0, CONF_LIST, "KEY", .cmds = BIT(CMD_SERVE), .group = g_http,
     .help = "a key that requests must bring; without one everybody may ask"},
    {"api-key-file", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_SERVE), .group = g_http,
     .help = "keys, one a line; read again on SIGHUP"},
    {"allowed-host", NULL, 0, CONF_LIST, "NAME", .cmds = BIT(CMD_SERVE), .group = g_http,
     .help = "a further name of this server in Host headers; '*' is any"},
    {"cors-origin", NULL, 0, CONF_LIST, "ORIGIN", .cmds = BIT(CMD_SERVE), .group = g_http,
     .help = "a web origin that may use the server; '*' is any"},
    {"tls-cert", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_SERVE), .group = g_http,
     .help = "certificate chain in PEM; with --tls-key, HTTPS"},
    {"tls-key", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_SERVE), .group = g_http,
     .help = "private key in PEM"},
    {"request-timeout", NULL, 0, CONF_NUM, "S", 0, 1e6, .def = "0", .cmds = BIT(CMD_SERVE),
     .group = g_http, .help = "seconds after which a request is ended; 0 is never"},
    {"shutdown-timeout", NULL, 0, CONF_NUM, "S", 0, 1e6, .def = "60", .cmds = BIT(CMD_SERVE),
     .group = g_http, .help = "seconds that running requests have to finish after SIGTERM"},
    {"stream-interval", NULL, 0, CONF_INT, "N", 1, 1024, .def = "1", .cmds = BIT(CMD_SERVE),
     .group = g_http, .help = "tokens of a stream that are sent together, behind the first"},
    {"web", NULL, 0, CONF_FLAG, .def = "1", .cmds = BIT(CMD_SERVE), .group = g_http,
     .help = "serve nothing at /"},
    {"access-log", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_SERVE), .group = g_http,
     .help = "a line on standard error for every request"},
    {"powercap", NULL, 0, CONF_STR, "DIR", .cmds = BIT(CMD_SERVE), .group = g_http,
     .help = "folder of the processor's energy counters; unset: /sys/class/powercap"},
    {"served-model-name", "alias", 'a', CONF_LIST, "NAME", .cmds = BIT(CMD_SERVE), .group = g_http,
     .help = "a further name of the model; the first is the one shown"},
    {"any-model-name", NULL, 0, CONF_FLAG, .cmds = BIT(CMD_SERVE), .group = g_http,
     .help = "take every model name in requests for the loaded one"},
    {"response-store", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_SERVE), .group = g_http,
     .help = "SQLite file of stored responses; unset: kept in memory"},
    {"reasoning-field", NULL, 0, CONF_CHOICE, "both|reasoning|reasoning_content|none",
     .def = "both", .cmds = BIT(CMD_SERVE), .group = g_http,
     .help = "how answers name the chain of thought"},
    {"date", NULL, 0, CONF_STR, "YYYY-MM-DD|today|none", .def = "today", .cmds = BIT(CMD_SERVE),
     .group = g_http, .help = "the current date told to the model"},
    {"parallel", "max-num-seqs max-running-requests", 0, CONF_INT, "N", 1, 4096, .def = "16",
     .cmds = BIT(CMD_SERVE), .group = g_model, .help = "sequences that generate at once"},
    {"max-queue", NULL, 0, CONF_INT, "N", 1, 1 << 20, .def = "1024", .cmds = BIT(CMD_SERVE),
     .group = g_model, .help = "requests that may wait beyond these; more get 429"},
    {"max-batch-tokens", "max-num-batched-tokens chunked-prefill-size", 0, CONF_INT, "N", 1, 65536,
     .def = "256", .cmds = BIT(CMD_SERVE), .group = g_model,
     .help = "most prompt tokens computed in one step"},
    {"gpu-memory-utilization", "mem-fraction-static", 0, CONF_NUM, "X", 0, 1, .above = true,
     .def = "0.9", .cmds = BIT(CMD_SERVE), .group = g_model,
     .help = "share of the memory free beside the weights, of the card or the machine, that the "
             "key-value cache may take; --memory-gb says it in bytes"},
    {"prefix-cache", NULL, 0, CONF_FLAG, .def = "1", .cmds = BIT(CMD_SERVE) | BIT(CMD_MLPERF_RUN),
     .group = g_model, .help = "compute a prompt's beginning anew even where it is known"},
    {"ctx-size", "max-model-len", 0, CONF_INT, "N", 1, 1 << 30, .cmds = BIT(CMD_SERVE),
     .group = g_model,
     .help = "most tokens of prompt and answer together; unset: the model's own context"},
    {"scripted", NULL, 0, CONF_STR, "FILE", .cmds = BIT(CMD_SERVE), .group = g_model,
     .help = "for tests: emit the lines of a JSON Lines file instead of what the model would "
             "(docs/engine.md)"},
    {"temperature", NULL, 0, CONF_NUM, "X", 0, 2, .def = "1", .cmds = BIT(CMD_SERVE),
     .group = g_sample, .help = "spread of the choice, where a request does not say"},
    {"top-p", NULL, 0, CONF_NUM, "X", 0, 1, .above = true, .def = "1", .cmds = BIT(CMD_SERVE),
     .group = g_sample, .help = "choose among the likeliest tokens that sum to this probability"},
    {"top-k", NULL, 0, CONF_INT, "N", 0, 1 << 24, .def = "0", .cmds = BIT(CMD_SERVE),
     .group = g_sample, .help = "choose among the N likeliest tokens; 0 is off"},
    {"min-p", NULL, 0, CONF_NUM, "X", 0, 1, .def = "0", .cmds = BIT(CMD_SERVE), .group = g_sample,
     .help = "drop tokens below this share of the likeliest one's probability"},
    {"reasoning-effort", "reasoning-level", 'r', CONF_CHOICE, "low|medium|high", .def = "medium",
     .cmds = BIT(CMD_SERVE), .group = g_sample,
     .help = "how much analysis the model is asked for, where a request does not say"},
    {"reasoning-budget", NULL, 0, CONF_INT, "N", 1, 1 << 30, .cmds = BIT(CMD_SERVE),
     .group = g_sample,
     .help = "most analysis tokens; then the analysis is closed and the answer begun"},

    /* models */
    {"model", NULL, 'm', CONF_STR, "NAME", .def = "tiny", .cmds = OPEN & ~BIT(CMD_RUN),
     .group = g_model,
     .help = "tiny (compiled in), gpt-oss-20b, gpt-oss-120b, or a checkpoint's folder"},
    {"model", NULL, 'm', CONF_STR, "NAME", .cmds = VOCAB, .group = g_model,
     .help = "use this model's vocabulary; unset: o200k_harmony, which is compiled in"},
    {"device", NULL, 0, CONF_CHOICE, "auto|cpu|cuda|cuda:N", .def = "auto", .cmds = RUN,
     .group = g_model, .help = "where the model runs"},
    {"threads", NULL, 't', CONF_INT, "N", 1, 4096, .cmds = RUN | BIT(CMD_BENCH_KERNELS),
     .group = g_model, .help = "processor threads; unset: all that this process may use"},
    {"arith", NULL, 0, CONF_CHOICE, "f32|bf16|q8|fp8", .def = "bf16", .cmds = RUN, .group = g_model,
     .help = "inputs of the matrix products: float32, rounded to bf16 as the reference "
             "implementations do, in 8-bit blocks with 8-bit copies of the dense matrices (on the "
             "processor), or in 8-bit floats (on a card)"},
    {"dense", NULL, 0, CONF_CHOICE, "auto|bf16|q8", .def = "auto", .cmds = RUN, .group = g_model,
     .help = "attention's matrices and the head: as the checkpoint has them or in 8-bit blocks "
             "made at load; auto: 8-bit under --arith q8"},
    {"kv-cache-dtype", NULL, 0, CONF_CHOICE, "auto|float32|bfloat16|q8|fp8", .def = "auto",
     .cmds = RUN, .group = g_model,
     .help = "how keys and values are kept; auto: float32 under --arith f32, else bfloat16"},
    {"ctx-size", "max-model-len", 0, CONF_INT, "N", 1, 1 << 30,
     .cmds = BIT(CMD_INFER) | BIT(CMD_SCORE), .group = g_model,
     .help = "most tokens of prompt and answer together; unset: the model's own context"},
    {"memory-gb", NULL, 0, CONF_NUM, "X", 0, 1e6, .above = true, .cmds = RUN, .group = g_model,
     .help = "memory of the key-value cache, in GB (10^9 bytes); unset: what the requests need"},
    {"n-cpu-moe", NULL, 0, CONF_INT, "N", 0, 1024, .cmds = RUN, .group = g_model,
     .help = "keep the experts of the first N layers on the processor beside a card; unset: see "
             "--fit"},
    {"fit", NULL, 0, CONF_FLAG, .def = "1", .cmds = RUN, .group = g_model,
     .help = "fail where a card's memory is too small, instead of leaving as many layers' experts "
             "to the processor as do not fit"},
    {"gpu-memory-gb", NULL, 0, CONF_NUM, "X", 0, 1e6, .above = true, .cmds = RUN, .group = g_model,
     .help = "use so much of a card's memory, in GB (10^9 bytes); unset: all"},
    {"deterministic", NULL, 0, CONF_FLAG, .def = "1", .cmds = RUN, .group = g_model,
     .help =
         "allow results that depend on what runs beside them: the default on a card; on the CPU "
         "they never do"},
    {"load-mode", NULL, 0, CONF_CHOICE, "mmap|huge|auto", .def = "mmap", .cmds = OPEN,
     .group = g_model,
     .help = "how weights come into memory: the files mapped, copied into pages of 2 MiB, or "
             "copied if the copy fits beside the files"},
    {"swap-gb", "swap-space", 0, CONF_NUM, "X", 0, 1e6, .def = "0", .cmds = RUN, .group = g_model,
     .help = "main memory, in GB, for the cache pages of requests that had to make room: they come "
             "back from there where that is quicker than computing them again"},
    {"speculate", "num-speculative-tokens draft-max", 0, CONF_CHOICE, "auto|off|N", .def = "auto",
     .cmds = RUN & ~MEASURED, .group = g_model,
     .help = "tokens guessed ahead from prompt and answer so far and then checked, which changes "
             "no answer: as many as are measured to pay, none, or N wherever there is a guess"},
    {"speculate", "num-speculative-tokens draft-max", 0, CONF_CHOICE, "auto|off|N", .def = "off",
     .cmds = MEASURED, .group = g_model,
     .help = "tokens guessed ahead, as in gloss infer; not here, where made-up prompts lead to "
             "answers that repeat themselves"},
    {"mlock", NULL, 0, CONF_FLAG, .cmds = RUN, .group = g_model,
     .help = "on the processor: weights and cache may not leave memory"},
    {"dense-cache", NULL, 0, CONF_FLAG, .def = "1", .cmds = RUN, .group = g_model,
     .help = "make the 8-bit matrices of --arith q8 anew at each start, and keep none beside the "
             "checkpoint or in the user's cache folder"},
    {"check-tensors", NULL, 0, CONF_FLAG, .cmds = OPEN, .group = g_model,
     .help = "read every tensor first and refuse NaN, Inf and scale bytes of 255"},

    /* sampling */
    {"max-tokens", "max-new-tokens", 'n', CONF_INT, "N", 1, 1 << 30, .def = "256",
     .cmds = BIT(CMD_INFER), .group = g_sample, .help = "most tokens to generate"},
    {"temperature", NULL, 0, CONF_NUM, "X", 0, 2, .def = "0.7", .cmds = BIT(CMD_INFER),
     .group = g_sample, .help = "spread of the choice; 0 takes the likeliest token"},
    {"top-p", NULL, 0, CONF_NUM, "X", 0, 1, .above = true, .def = "1", .cmds = BIT(CMD_INFER),
     .group = g_sample, .help = "choose among the likeliest tokens that sum to this probability"},
    {"top-k", NULL, 0, CONF_INT, "N", 0, 1 << 24, .def = "0", .cmds = BIT(CMD_INFER),
     .group = g_sample, .help = "choose among the N likeliest tokens; 0 is off"},
    {"min-p", NULL, 0, CONF_NUM, "X", 0, 1, .def = "0", .cmds = BIT(CMD_INFER), .group = g_sample,
     .help = "drop tokens below this share of the likeliest one's probability"},
    {"seed", NULL, 0, CONF_INT, "N", 0, ANY, .cmds = BIT(CMD_INFER), .group = g_sample,
     .help = "makes the answer repeatable; unset: another one each time"},
    {"stop", NULL, 0, CONF_LIST, "TEXT", .cmds = BIT(CMD_INFER), .group = g_sample,
     .help = "end the answer before this text"},
    {"reasoning-effort", "reasoning-level", 'r', CONF_CHOICE, "low|medium|high", .def = "medium",
     .cmds = BIT(CMD_INFER), .group = g_sample, .help = "how much analysis the model is asked for"},
    {"reasoning-budget", NULL, 0, CONF_INT, "N", 1, 1 << 30, .cmds = BIT(CMD_INFER),
     .group = g_sample,
     .help = "most analysis tokens; then the analysis is closed and the answer begun"},

    /* every command */
    {"color", NULL, 0, CONF_FLAG, .def = "1", .cmds = ALL, .group = g_common,
     .help = "no colour on the terminal (also: NO_COLOR in the environment)"},
    {"quiet", NULL, 'q', CONF_FLAG, .cmds = ALL, .group = g_common,
     .help = "no notes and no progress on standard error"},
    {"verbose", NULL, 'v', CONF_FLAG, .cmds = ALL, .group = g_common,
     .help = "more notes on standard error"},
    {"help", NULL, 'h', CONF_FLAG, .cmds = ALL, .group = g_common, .help = "print this text"},
};

static const struct conf_cmd commands[N_CMD] = {
    [CMD_INFER] =
        {"infer", "[PROMPT]...", -1, "one answer to a prompt or a conversation",
         "The prompt is the arguments joined by blanks, or --prompt-file, or --messages, or what "
         "standard input holds; one final newline of a file is not part of it. On a terminal the "
         "analysis streams first, dimmed, then the answer. Into a pipe or file only the answer is "
         "written, when it is complete; a tool call is a line functions.NAME(ARGUMENTS).\n"
         "\n"
         "With --input-path every line is a conversation: a messages array, or an object with "
         "messages, perhaps tools, tool_choice, response_format and reasoning_effort, and any "
         "fields of your own, which are "
         "copied to the answer's line. A line that fails gives {\"error\":{\"message\":...}} in "
         "its place, and the exit code is 1.",
         "gloss infer 'What is 127 + 385?'\n"
         "gloss infer -r high --temperature 0 'Sort: 8 3 5'\n"
         "echo 'Reverse the word lamp.' | gloss infer --json\n"
         "gloss infer --messages chat.json --tools tools.json\n"
         "gloss infer --input-path questions.jsonl --output-path answers.jsonl"},
    [CMD_TOKENIZE] =
        {"tokenize", "[TEXT]...", -1, "text to token ids, and back",
         "Prints the ids as one JSON array. Without TEXT, standard input is encoded byte for "
         "byte: a trailing newline is text too.",
         "gloss tokenize 'hello world'\n"
         "gloss tokenize --count < book.txt\n"
         "echo '[24912,2375]' | gloss tokenize --decode"},
    [CMD_RENDER] =
        {"harmony render", "", 0, "a conversation to harmony tokens",
         "Reads a conversation on standard input, in the harmony library's JSON or as an OpenAI "
         "request, and prints {\"tokens\":[...],\"text\":\"...\"}.",
         "echo '{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}' | gloss harmony render"},
    [CMD_PARSE] =
        {"harmony parse", "", 0, "harmony tokens to messages",
         "Reads {\"tokens\":[...]} on standard input and prints {\"messages\":[...]} in the "
         "harmony library's JSON. The end of the list is the end of the stream. A stream that the "
         "mode refuses: exit code 1 and {\"error\":{\"message\",\"token_index\"},"
         "\"messages\":[...]}. With --deltas there is one record per token; text that only the "
         "end of the stream completes belongs to the last one.",
         "echo '{\"tokens\":[200005,17196,200008,12194,200002]}' | gloss harmony parse"},
    [CMD_LOGITS] =
        {"logits", "", 0, "logits of every position as a NumPy file",
         "Writes float32 [n_tokens, n_vocab]: the scores of the token that follows each position. "
         "The file appears under its name only when it is complete.",
         "gloss logits --tokens '[1,2,3]' --out logits.npy"},
    [CMD_SCORE] =
        {"score", "", 0, "log-probabilities of given text",
         "Reads JSON Lines on standard input: {\"tokens\":[...]}, or {\"prompt\":\"...\","
         "\"continuation\":\"...\"}, whose two texts are encoded separately. Prints a line for "
         "each: {\"tokens\":[...],\"logprobs\":[null,...],\"greedy\":[null,...],\"sum\":x}, where "
         "greedy is the likeliest token of each place; with a continuation also "
         "\"continuation_logprob\" and \"is_greedy\". A line that fails gives "
         "{\"error\":{\"message\":...}}, and the exit code is 1.",
         "echo '{\"prompt\":\"2 + 2 =\",\"continuation\":\" 4\"}' | gloss score"},
    [CMD_SERVE] =
        {"serve", "", 0, "an OpenAI-compatible server",
         "Answers /v1/chat/completions, /v1/completions, /v1/models and more (docs/server.md; the "
         "server's own /openapi.json lists all). SIGTERM and SIGINT let the running requests "
         "finish, a second one stops at once; SIGHUP reads --api-key-file again.",
         "gloss serve -m gpt-oss-20b\n"
         "gloss serve -m gpt-oss-20b --host 0.0.0.0 --allowed-host gpu1 --api-key-file keys\n"
         "curl -s http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' "
         "-d '{\"messages\":[{\"role\":\"user\",\"content\":\"What is 2 + 2?\"}]}'"},
    [CMD_BENCH_LATENCY] =
        {"bench latency", "", 0, "time to the first token and to the end",
         "The study's latency table as CSV: for each prompt and answer length the time to the "
         "first "
         "token, percentiles of the whole time, and tokens per second (docs/measuring.md). One "
         "request at a time, prompts of exactly that many tokens, greedy, end tokens ignored.",
         "gloss bench latency -m gpt-oss-20b --extended\n"
         "gloss bench latency --prompt-tokens 128 --gen-tokens 64,128 --output latency.csv",
         "benchmark_latency_universal"},
    [CMD_BENCH_MEMORY] =
        {"bench memory", "", 0, "memory by context length",
         "The study's memory table as CSV: what the weights, scratch and the key-value cache take "
         "before, during and after a generation, as the allocators say (docs/measuring.md).",
         "gloss bench memory -m gpt-oss-20b --context-lengths 2048,8192,32768,131072",
         "memory_analysis_h100_fixed"},
    [CMD_BENCH_ENERGY] =
        {"bench energy", "", 0, "energy by token",
         "The study's energy table as CSV: power of the card by NVML or nvidia-smi, of the "
         "processor by RAPL, by samples and by counters (docs/measuring.md). A cell without a "
         "source is empty.",
         "gloss bench energy -m gpt-oss-20b --power-poll-hz 10 --min-seconds 3",
         "energy_analysis_simple"},
    [CMD_BENCH_SERVE] =
        {"bench serve", "", 0, "a server under load",
         "Sends streamed requests, --concurrency of them at once, and prints as CSV the times to "
         "the first token, the first of the reasoning and the first of the answer, between tokens "
         "and to the end, and the throughput (docs/measuring.md). With --base-url, --model is only "
         "the vocabulary that prompts are made of; unset, o200k_harmony.",
         "gloss bench serve -m gpt-oss-20b --concurrency 1,8,64 --text\n"
         "gloss bench serve --base-url http://127.0.0.1:8000/v1 --served-model-name gpt-oss-20b",
         NULL},
    [CMD_BENCH_ABLATION] =
        {"bench ablation", "", 0, "what changes when one thing changes",
         "The study's four ablations: the way of choosing tokens, precision, context length, and "
         "who serves (this process, its HTTP server, --base-url). Writes a CSV each and the JSON "
         "of "
         "all into --output-dir (docs/measuring.md). A variant that fails becomes a row with its "
         "error.",
         "gloss bench ablation -m gpt-oss-20b --tests decoding,context", "ablation_studies"},
    [CMD_BENCH_GOVERNANCE] =
        {"bench governance", "", 0, "licences and policies of models, as documented",
         "Writes safety_governance_summary.json, safety_evaluation.json, "
         "safety_governance_overview.csv and safety_governance_report.md. A review of documents: "
         "nothing is probed.",
         "gloss bench governance --metadata models.json", "safety_governance_analysis"},
    [CMD_BENCH_UNIFY] =
        {"bench unify", "[DIR]", 1, "one table of each kind over all models",
         "Reads latency/latency_*_universal.csv, memeory/memory_*_v2.csv and "
         "energy/energy_*_fixed.csv of DIR (new_results unless given) and writes "
         "unified_latency_comparison.csv, unified_memory_comparison_fixed.csv and "
         "unified_energy_comparison_fixed.csv there. Tables of other models that have the study's "
         "columns may lie beside ours.",
         "gloss bench unify study/new_results --map openai/gpt-oss-20b=gpt-oss-20b",
         "create_unified_from_new_results"},
    [CMD_BENCH_APE] =
        {"bench ape", "[DIR]", 1, "active-parameter efficiency",
         "Writes ape/ape_analysis.csv and .json of DIR (new_results unless given) from its unified "
         "tables: speed, 1/latency and tokens per joule for each 10^9 active parameters.",
         "gloss bench ape study/new_results", "ape_analysis"},
    [CMD_BENCH_STUDY] =
        {"bench study", "", 0, "the whole study in one folder",
         "Runs latency, memory, energy, load, ablations and the review of licences, then unifies "
         "the tables, draws the figures and writes report.html. A run that was stopped goes on "
         "where it was; what was finished with the same options is not measured again.",
         "gloss bench study -m gpt-oss-20b --outdir study\n"
         "gloss bench study --parts latency,memory --prompt-tokens 128 --gen-tokens 32",
         NULL},
    [CMD_REPORT] =
        {"report", "[DIR]", 1, "tables, figures and a page from the study's results",
         "Unifies the tables of DIR/new_results (DIR is study unless given), computes "
         "active-parameter efficiency, draws the figures with gnuplot, and writes DIR/report.html, "
         "one page without outside parts.",
         "gloss report study", NULL},
    [CMD_BENCH_DECODE] =
        {"bench decode", "", 0, "tokens per second while all requests generate",
         "A line for each number of requests and each depth: tokens per second of all together "
         "(minimum, median and maximum of the repeats), and the bytes and operations that a step "
         "must read and do beside what this machine reads and computes, measured in the same run. "
         "--json and --csv have more columns, times to the first token and memory among them "
         "(docs/measuring.md).",
         "gloss bench decode -m gpt-oss-20b --arith q8 --parallel 1,2,4,8\n"
         "gloss bench decode -m gpt-oss-20b -t 1 --depth 0,4096,16384 --csv"},
    [CMD_BENCH_PREFILL] =
        {"bench prefill", "", 0, "prompt tokens per second, and time to the first token",
         "As gloss bench decode, of prompts: from their submission to their first tokens.",
         "gloss bench prefill -m gpt-oss-20b --prompt-tokens 512,2048\n"
         "gloss bench prefill -m gpt-oss-20b --prompt-tokens 128 --parallel 1,8 --json"},
    [CMD_BENCH_KERNELS] =
        {"bench kernels", "", 0, "the CPU kernels beside the machine's limits",
         "As CSV: time, GB/s and GFLOP/s of each kernel of the CPU backend at gpt-oss-20b's "
         "shapes, "
         "and the fraction of the read bandwidth and of the float32 peak measured in the same run. "
         "Products of one row are bound by reading, those of 64 by arithmetic; 8-bit products may "
         "exceed the float32 peak. Needs no model.",
         "gloss bench kernels\n"
         "GLOSS_CPU=avx2 gloss bench kernels -t 1 --json"},
    [CMD_BENCH_FIDELITY] =
        {"bench fidelity", "", 0, "how far each arithmetic is from float32",
         "As CSV: mean and largest Kullback-Leibler divergence of the next token's distribution "
         "from "
         "float32's over a text, how often the likeliest token is the same, and the relative error "
         "of the logits; for each arithmetic, type of the cache and of the dense matrices that the "
         "device has. The row of f32 compares a second run with the first and must show zeros. "
         "--layers shows how the error grows with depth: the head is then put behind the first "
         "layers.",
         "gloss bench fidelity\n"
         "gloss bench fidelity -m synth-20b --layers 1,2,4,8 --num-tokens 64\n"
         "gloss bench fidelity -m gpt-oss-20b --text-file chapter.txt --num-tokens 512"},
    [CMD_BENCH_ENGINE] =
        {"bench engine", "", 0, "what the engine itself costs",
         "Prints one JSON value: microseconds of a step without the model's arithmetic, which a "
         "script replaces.",
         "gloss bench engine --parallel 64 --generate-tokens 1000"},
    [CMD_MLPERF_HARMONIZE] =
        {"mlperf harmonize", "", 0, "questions to prompts of token ids",
         "Adds tok_input, tok_input_len and text_input to every row: a harmony conversation of the "
         "data set's instructions, its examples and the question, rendered for completion. "
         "Instructions and examples are data, chosen by the longest profile name that the row's "
         "dataset begins with; rows without dataset take default.",
         "gloss mlperf harmonize --data-file questions.jsonl --output-file acc.jsonl"},
    [CMD_MLPERF_RUN] =
        {"mlperf run", "", 0, "MLPerf's gpt-oss-120b benchmark on LoadGen",
         "Runs MLCommons LoadGen against the engine in this process or a server's /generate, and "
         "prints LoadGen's summary; its logs stay in --output-dir. Exit code 1 when LoadGen calls "
         "the run INVALID or a sample failed. LoadGen comes with 'scripts/deps.sh mlperf' and a "
         "further make. With --input-tokens no LoadGen is needed: each row is answered, and the "
         "rows are written with the answers.",
         "gloss mlperf run -m gpt-oss-120b --input-file perf.jsonl --user-conf user.conf\n"
         "gloss mlperf run -m gpt-oss-120b --scenario server --input-file perf.jsonl\n"
         "gloss mlperf run -m gpt-oss-120b --accuracy --input-file acc.jsonl\n"
         "gloss mlperf run --input-tokens acc.jsonl --pass-k 4 --output answers.jsonl"},
    [CMD_MLPERF_ACCURACY] =
        {"mlperf accuracy", "", 0, "the score of an accuracy run",
         "Takes the answers out of the log, finds the answer in each text by the benchmark's rules "
         "and compares it with the data set. Prints the score by data set and the line "
         "'exact_match' that submission checkers read; with the full data set the target is "
         "82.30.",
         "gloss mlperf accuracy --reference-data acc.jsonl --skip-lcb "
         "--mlperf-log mlperf_results/offline/accuracy/mlperf_log_accuracy.json"},
    [CMD_MLPERF_COMPLIANCE] =
        {"mlperf compliance", "TEST07|TEST09", 1, "MLPerf's compliance tests of a run",
         "First --write-audit-config, then a performance run with that --audit-config, then the "
         "verdict: TEST07 wants a least accuracy, TEST09 a mean length of the answers. Exit code 1 "
         "when the test fails.",
         "gloss mlperf compliance TEST07 --write-audit-config audit.config\n"
         "gloss mlperf run --input-file gpqa.jsonl --audit-config audit.config\n"
         "gloss mlperf compliance TEST07 --reference-data gpqa.jsonl "
         "-c mlperf_results/offline/performance -o compliance"},
    [CMD_EVAL] =
        {"eval", "TASK...", -1, "accuracy and safety on a data set",
         "Tasks: tinymmlu, mmlu, gsm8k, gsm8k_cot, gpqa, aime25, healthbench, healthbench_hard, "
         "healthbench_consensus, safety. Prompts, repeats, extraction and result files are those "
         "of "
         "the published harnesses (docs/evaluation.md). A run that was cut off goes on where it "
         "was when the same command is given again.",
         "gloss eval gpqa -m gpt-oss-20b --data gpqa_diamond.csv -r low,medium,high\n"
         "gloss eval aime25 --base-url http://localhost:8000/v1 -m gpt-oss-120b --data "
         "aime25.jsonl\n"
         "gloss eval mmlu --data test.jsonl --fewshot-data dev.jsonl --num-fewshot 5\n"
         "gloss eval tinymmlu -m gpt-oss-20b --data tinymmlu.jsonl --method loglikelihood"},
    [CMD_RUN] =
        {"run", "NAME ENTRYPOINT", 2, "a runner's entrypoint: infer, setup, benchmark_tinymmlu",
         "NAME is gpt-oss-20b, gpt-oss-120b or tiny, perhaps with a version behind a colon. "
         "Entrypoints: infer, setup, download_files, benchmark_tinymmlu. Prints the result as "
         "{\"content_type\",\"data\"}; with --save or --outdir writes the data to a file and "
         "prints "
         "{\"saved\":[...]}. Exit codes: 2 unknown runner, 3 bad parameters, 4 the run failed.",
         "gloss run gpt-oss-20b infer -p messages='[{\"role\":\"user\",\"content\":\"Hi\"}]'\n"
         "gloss run gpt-oss-20b benchmark_tinymmlu -p max_items=10 --data tinymmlu.jsonl --save"},
    [CMD_INFO] =
        {"info", "", 0, "shape, size and memory of a model",
         "Prints the shape, the number of parameters, bytes by kind of tensor, the memory of the "
         "key-value cache, and what fits.",
         "gloss info -m gpt-oss-20b --ctx-size 32768 --parallel 4 --memory-gb 24"},
    [CMD_SYNTH] =
        {"synth", "", 0, "write a checkpoint with random weights",
         "Writes a checkpoint of exactly that layout with random weights of sane scale, for tests "
         "and for speed work at full size.",
         "gloss synth --like gpt-oss-20b --layers 2 --experts 4 --hidden 64 --out small"},
    [CMD_QUANTIZE] =
        {"quantize", "", 0, "experts of a checkpoint into MXFP4, or back",
         "Writes a new checkpoint and prints, for each converted tensor, the relative "
         "root-mean-square error, the largest error, and how many values were clipped.",
         "gloss quantize --model-id trained --output-dir trained-mxfp4 "
         "--quantization-method mxfp4"},
    [CMD_COMPLETION] = {"completion", "bash|zsh|fish", 1, "completion for a shell",
                        "Prints a script that completes commands, options and their values.",
                        "source <(gloss completion bash)\n"
                        "gloss completion fish > ~/.config/fish/completions/gloss.fish"},
    [CMD_HELP] = {"help", "[COMMAND]", 2, "what a command does and its options",
                  "Without COMMAND, lists the commands.", "gloss help infer"},
};

static const char *const notes[] = {
    "Exit status",
    "  0  success\n"
    "  1  failed at run time\n"
    "  2  the command line is wrong\n"
    "  3  a model or file was not found\n"
    "  4  out of memory\n"
    "  5  network failure\n"
    "  130, 143  stopped by SIGINT, SIGTERM",
    "Environment",
    "Every option of a command can be given as GLOSS_NAME, in capitals and with _ for -: "
    "GLOSS_MAX_TOKENS=64. An argument goes before the environment, that before the model's "
    "generation_config.json, and that before the default. An empty variable counts as unset.\n"
    "NO_COLOR turns colour off. HF_HUB_CACHE, HF_HOME and XDG_CACHE_HOME say where downloaded "
    "models are. GLOSS_CPU limits the instruction set: c, avx2, avxvnni, avx512, amx,"
    " neon, dotprod, i8mm.",
    "Models",
    "tiny is compiled into the program: a small demonstration model. gpt-oss-20b and gpt-oss-120b "
    "(also openai/gpt-oss-20b or gpt-oss:20b) are looked for in the Hugging Face cache. Anything "
    "else is a folder that holds a checkpoint.",
};

const struct conf_table cli_table = {
    .program = "gloss",
    .brief = "runs OpenAI's gpt-oss models",
    .version = GLOSS_VERSION,
    .env_prefix = "GLOSS_",
    .notes = notes,
    .n_note = sizeof notes / sizeof notes[0] / 2,
    .cmd = commands,
    .n_cmd = N_CMD,
    .opt = options,
    .n_opt = sizeof options / sizeof options[0],
};
