/* Answers of unfinished runs. See journal.h. */
#include "eval/journal.h"

#include "base/mem.h"

#include <sqlite3.h>
#include <string.h>

struct journal {
    sqlite3 *db;
    sqlite3_stmt *get, *put;
    int64_t run;
};

static status failed(struct journal *j, const char *path, struct err *e)
{
    return err_set(e, E_IO, "the progress file %.100s: %s", path,
                   j->db ? sqlite3_errmsg(j->db) : "no memory");
}

/* Runs a statement with one text bound; the first column of its first row in *v. */
static bool ask(struct journal *j, const char *sql, const char *text, int64_t *v)
{
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(j->db, sql, -1, &s, NULL) != SQLITE_OK)
        return false;
    if (text)
        sqlite3_bind_text(s, 1, text, -1, SQLITE_STATIC);
    else
        sqlite3_bind_int64(s, 1, j->run);
    int r = sqlite3_step(s);
    if (r == SQLITE_ROW && v)
        *v = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return r == SQLITE_ROW || r == SQLITE_DONE;
}

status journal_open(const char *path, const char *key, bool fresh, struct journal **out,
                    struct err *e)
{
    static const char setup[] =
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=2000;"
        "PRAGMA trusted_schema=OFF;"
        "CREATE TABLE IF NOT EXISTS run(id INTEGER PRIMARY KEY, key TEXT NOT NULL,"
        " finished INTEGER NOT NULL DEFAULT 0);"
        "CREATE TABLE IF NOT EXISTS answer(run INTEGER NOT NULL, i INTEGER NOT NULL,"
        " record TEXT NOT NULL, PRIMARY KEY(run, i)) WITHOUT ROWID;";
    static const char find[] = "SELECT id FROM run WHERE key=?1 AND NOT finished ORDER BY id DESC";
    *out = NULL;
    struct journal *j = mem_calloc(1, sizeof *j);
    if (!j)
        return err_set(e, E_NOMEM, "out of memory for the progress file");
    status st = OK;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    bool ok = sqlite3_open_v2(path, &j->db, flags, NULL) == SQLITE_OK &&
              sqlite3_exec(j->db, setup, NULL, NULL, NULL) == SQLITE_OK &&
              (!fresh || ask(j, "UPDATE run SET finished=1 WHERE key=?1", key, NULL)) &&
              ask(j, find, key, &j->run);
    if (ok && !j->run) {
        ok = ask(j, "INSERT INTO run(key) VALUES(?1)", key, NULL);
        j->run = sqlite3_last_insert_rowid(j->db);
    }
    ok = ok &&
         sqlite3_prepare_v2(j->db, "SELECT record FROM answer WHERE run=?1 AND i=?2", -1, &j->get,
                            NULL) == SQLITE_OK &&
         sqlite3_prepare_v2(j->db, "INSERT OR REPLACE INTO answer VALUES(?1,?2,?3)", -1, &j->put,
                            NULL) == SQLITE_OK;
    if (!ok) {
        st = failed(j, path, e);
        journal_close(j);
        return st;
    }
    *out = j;
    return OK;
}

void journal_close(struct journal *j)
{
    if (!j)
        return;
    sqlite3_finalize(j->get);
    sqlite3_finalize(j->put);
    sqlite3_close(j->db);
    mem_free(j);
}

int journal_count(struct journal *j)
{
    int64_t n = 0;
    ask(j, "SELECT count(*) FROM answer WHERE run=?1", NULL, &n);
    return (int)n;
}

bool journal_get(struct journal *j, int64_t i, struct buf *out)
{
    sqlite3_bind_int64(j->get, 1, j->run);
    sqlite3_bind_int64(j->get, 2, i);
    bool found = sqlite3_step(j->get) == SQLITE_ROW;
    if (found)
        buf_put(out, sqlite3_column_text(j->get, 0), (size_t)sqlite3_column_bytes(j->get, 0));
    sqlite3_reset(j->get);
    return found;
}

status journal_put(struct journal *j, int64_t i, const char *s, size_t n, struct err *e)
{
    sqlite3_bind_int64(j->put, 1, j->run);
    sqlite3_bind_int64(j->put, 2, i);
    sqlite3_bind_text(j->put, 3, s, (int)n, SQLITE_STATIC);
    int r = sqlite3_step(j->put);
    sqlite3_reset(j->put);
    return r == SQLITE_DONE ? OK : failed(j, "(writing)", e);
}

status journal_finish(struct journal *j, struct err *e)
{
    bool ok = ask(j, "DELETE FROM answer WHERE run=?1", NULL, NULL) &&
              ask(j, "UPDATE run SET finished=1 WHERE id=?1", NULL, NULL);
    return ok ? OK : failed(j, "(finishing)", e);
}
