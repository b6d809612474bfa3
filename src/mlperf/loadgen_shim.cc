/* The only C++ of gloss: LoadGen behind the C interface of loadgen_abi.h. No exception leaves it. */
#include "mlperf/loadgen_abi.h"

#include <loadgen.h>
#include <query_sample_library.h>
#include <system_under_test.h>
#include <test_settings.h>

#include <cstdio>
#include <cstring>
#include <stdexcept>

namespace {

class Sut : public mlperf::SystemUnderTest {
  public:
    explicit Sut(const loadgen_test *t) : t_(t), name_(t->sut_name) {}
    const std::string &Name() override { return name_; }
    void IssueQuery(const std::vector<mlperf::QuerySample> &v) override
    {
        std::vector<loadgen_sample> s;
        s.reserve(v.size());
        for (const auto &q : v)
            s.push_back({q.id, q.index});
        t_->issue(t_->ctx, s.data(), s.size());
    }
    void FlushQueries() override { t_->flush(t_->ctx); }

  private:
    const loadgen_test *t_;
    std::string name_;
};

/* All rows stay in memory, so that every subset is loaded already. */
class Qsl : public mlperf::QuerySampleLibrary {
  public:
    explicit Qsl(const loadgen_test *t) : n_(t->n_total), name_(t->qsl_name) {}
    const std::string &Name() override { return name_; }
    size_t TotalSampleCount() override { return n_; }
    size_t PerformanceSampleCount() override { return n_; }
    void LoadSamplesToRam(const std::vector<mlperf::QuerySampleIndex> &) override {}
    void UnloadSamplesFromRam(const std::vector<mlperf::QuerySampleIndex> &) override {}

  private:
    size_t n_;
    std::string name_;
};

void read_conf(mlperf::TestSettings *s, const loadgen_test *t, const char *path, int type)
{
    if (s->FromConfig(path, t->model, t->scenario, type) != 0)
        throw std::runtime_error(std::string("conf file ") + path + " is not readable as a list of "
                                 "'model.scenario.key = number'");
}

/* LoadGen reads its own conf before a user.conf, which would undo another mlperf.conf: with one,
 * the user's is read as a plain further file. */
void configure(mlperf::TestSettings *s, const loadgen_test *t)
{
    s->scenario = strcmp(t->scenario, "Server") == 0 ? mlperf::TestScenario::Server
                                                     : mlperf::TestScenario::Offline;
    s->mode = t->accuracy ? mlperf::TestMode::AccuracyOnly : mlperf::TestMode::PerformanceOnly;
    if (t->mlperf_conf || !t->user_conf)
        read_conf(s, t, "", 0);
    if (t->mlperf_conf)
        read_conf(s, t, t->mlperf_conf, 2);
    if (t->user_conf)
        read_conf(s, t, t->user_conf, t->mlperf_conf ? 2 : 1);
    /* A smaller data set than the conf files count on is used whole. */
    if (s->performance_sample_count_override > t->n_total)
        s->performance_sample_count_override = t->n_total;
    if (s->accuracy_sample_count_override > t->n_total)
        s->accuracy_sample_count_override = t->n_total;
}

int run(const loadgen_test *t, char *why, size_t cap)
{
    try {
        mlperf::TestSettings settings;
        configure(&settings, t);
        mlperf::LogSettings log;
        log.log_output.outdir = t->outdir;
        log.log_output.copy_summary_to_stdout = false;
        log.enable_trace = t->trace != 0;
        Sut sut(t);
        Qsl qsl(t);
        mlperf::StartTest(&sut, &qsl, settings, log, t->audit_config);
        return 0;
    } catch (const std::exception &e) {
        snprintf(why, cap, "%s", e.what());
    } catch (...) {
        snprintf(why, cap, "LoadGen failed without a reason");
    }
    return -1;
}

mlperf::QuerySampleResponse response(const loadgen_response *r)
{
    return mlperf::QuerySampleResponse(r->id, reinterpret_cast<uintptr_t>(r->ids),
                                       r->n_ids * sizeof *r->ids, r->n_tokens);
}

void first_token(const loadgen_response *r)
{
    auto q = response(r);
    mlperf::FirstTokenComplete(&q, 1);
}

void complete(const loadgen_response *r)
{
    auto q = response(r);
    mlperf::QuerySamplesComplete(&q, 1);
}

const loadgen api = {run, first_token, complete};

} // namespace

extern "C" __attribute__((visibility("default"))) const loadgen *gloss_loadgen(const char *abi)
{
    return strcmp(abi, LOADGEN_ABI) == 0 ? &api : nullptr;
}
