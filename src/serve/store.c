/* Stored responses in SQLite. See store.h. The only user of sqlite3.h. */
#include "serve/store.h"

#include "base/mem.h"
#include "base/rng.h"

#include <pthread.h>
#include <sqlite3.h>
#include <string.h>

enum { MAX_ROWS = 10000, ID_MAX = 64 };
static const int64_t max_bytes = 512 << 20;

struct store {
    pthread_mutex_t lock;
    sqlite3 *db;
    sqlite3_stmt *put, *get, *drop, *find, *trim, *sum;
    int64_t rows, bytes; /* at most so many; exact after each `measure` */
};

static status failed(struct store *s, struct err *e)
{
    return err_set(e, E_IO, "the response store: %s", s->db ? sqlite3_errmsg(s->db) : "no memory");
}

static void measure(struct store *s)
{
    if (sqlite3_step(s->sum) == SQLITE_ROW) {
        s->rows = sqlite3_column_int64(s->sum, 0);
        s->bytes = sqlite3_column_int64(s->sum, 1);
    }
    sqlite3_reset(s->sum);
}

static status open_db(struct store *s, const char *path, struct err *e)
{
    static const char setup[] =
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=2000;"
        "PRAGMA trusted_schema=OFF;"
        "CREATE TABLE IF NOT EXISTS secret(name TEXT PRIMARY KEY, value BLOB NOT NULL);"
        "CREATE TABLE IF NOT EXISTS response(n INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL,"
        " tenant INTEGER NOT NULL, previous TEXT NOT NULL, object TEXT NOT NULL,"
        " input TEXT NOT NULL);"
        "CREATE INDEX IF NOT EXISTS by_tenant ON response(tenant, n);";
    const struct {
        sqlite3_stmt **to;
        const char *sql;
    } prepared[] = {
        {&s->put, "INSERT INTO response(id,tenant,previous,object,input) VALUES(?1,?2,?3,?4,?5) "
                  "ON CONFLICT(id) DO UPDATE SET object=?4, input=?5"},
        {&s->get, "SELECT object,input,previous FROM response WHERE id=?1 AND tenant=?2"},
        {&s->drop, "DELETE FROM response WHERE id=?1 AND tenant=?2"},
        {&s->find, "SELECT id FROM (SELECT n,id,object,input FROM response WHERE tenant=?1 "
                   "ORDER BY n DESC LIMIT 200) WHERE instr(object,?2) OR instr(input,?2) LIMIT 1"},
        {&s->trim, "DELETE FROM response WHERE n IN (SELECT n FROM response ORDER BY n LIMIT 64)"},
        {&s->sum, "SELECT count(*), total(length(object)+length(input)) FROM response"},
    };
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path ? path : ":memory:", &s->db, flags, NULL) != SQLITE_OK ||
        sqlite3_exec(s->db, setup, NULL, NULL, NULL) != SQLITE_OK)
        return failed(s, e);
    for (size_t i = 0; i < sizeof prepared / sizeof prepared[0]; i++)
        if (sqlite3_prepare_v2(s->db, prepared[i].sql, -1, prepared[i].to, NULL) != SQLITE_OK)
            return failed(s, e);
    measure(s);
    return OK;
}

status store_open(const char *path, struct store **out, struct err *e)
{
    struct store *s = mem_calloc(1, sizeof *s);
    *out = s;
    if (!s)
        return err_set(e, E_NOMEM, "out of memory");
    pthread_mutex_init(&s->lock, NULL);
    return open_db(s, path, e);
}

void store_close(struct store *s)
{
    if (!s)
        return;
    sqlite3_stmt *const all[] = {s->put, s->get, s->drop, s->find, s->trim, s->sum};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        sqlite3_finalize(all[i]);
    sqlite3_close(s->db);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}

/* The secrets are one row, made when the file is new. */
status store_secrets(struct store *s, struct store_secrets *out, struct err *e)
{
    uint64_t fresh[6];
    sqlite3_stmt *q = NULL;
    status st = OK;
    for (int i = 0; i < 6; i++)
        fresh[i] = rng_os_seed();
    if (sqlite3_prepare_v2(s->db, "INSERT OR IGNORE INTO secret VALUES('all',?1)", -1, &q, NULL) !=
        SQLITE_OK)
        return failed(s, e);
    sqlite3_bind_blob(q, 1, fresh, sizeof fresh, SQLITE_STATIC);
    int rc = sqlite3_step(q);
    sqlite3_finalize(q);
    if (rc != SQLITE_DONE || sqlite3_prepare_v2(s->db, "SELECT value FROM secret WHERE name='all'",
                                                -1, &q, NULL) != SQLITE_OK)
        return failed(s, e);
    if (sqlite3_step(q) == SQLITE_ROW && sqlite3_column_bytes(q, 0) == sizeof fresh) {
        memcpy(fresh, sqlite3_column_blob(q, 0), sizeof fresh);
        out->salt = (struct hash_key){fresh[0], fresh[1]};
        memcpy(out->seal, fresh + 2, sizeof out->seal);
    } else {
        st = err_set(e, E_FORMAT, "the response store is not one of gloss");
    }
    sqlite3_finalize(q);
    return st;
}

/* Drops the oldest until the rest is within the bounds, with some room for the next ones. */
static void trim(struct store *s)
{
    if (s->rows <= MAX_ROWS && s->bytes <= max_bytes)
        return;
    measure(s);
    bool more = s->rows > MAX_ROWS || s->bytes > max_bytes;
    while (more) {
        more = sqlite3_step(s->trim) == SQLITE_DONE && sqlite3_changes(s->db) > 0;
        sqlite3_reset(s->trim);
        measure(s);
        more = more && (s->rows > MAX_ROWS - 64 || s->bytes > max_bytes - max_bytes / 16);
    }
}

status store_put(struct store *s, uint64_t tenant, const char *id, const char *previous,
                 const struct buf *object, const struct buf *input)
{
    pthread_mutex_lock(&s->lock);
    sqlite3_bind_text(s->put, 1, id, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s->put, 2, (sqlite3_int64)tenant);
    sqlite3_bind_text(s->put, 3, previous ? previous : "", -1, SQLITE_STATIC);
    sqlite3_bind_text(s->put, 4, object->p, (int)object->n, SQLITE_STATIC);
    sqlite3_bind_text(s->put, 5, input->p, (int)input->n, SQLITE_STATIC);
    int rc = sqlite3_step(s->put);
    sqlite3_reset(s->put);
    sqlite3_clear_bindings(s->put);
    if (rc == SQLITE_DONE) {
        s->rows++;
        s->bytes += (int64_t)(object->n + input->n);
        trim(s);
    }
    pthread_mutex_unlock(&s->lock);
    return rc == SQLITE_DONE ? OK : E_IO;
}

static void column(sqlite3_stmt *q, int i, struct buf *b)
{
    if (b)
        buf_put(b, sqlite3_column_text(q, i), (size_t)sqlite3_column_bytes(q, i));
}

bool store_get(struct store *s, uint64_t tenant, const char *id, struct buf *object,
               struct buf *input, char previous[64])
{
    pthread_mutex_lock(&s->lock);
    sqlite3_bind_text(s->get, 1, id, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s->get, 2, (sqlite3_int64)tenant);
    bool found = sqlite3_step(s->get) == SQLITE_ROW;
    if (found) {
        column(s->get, 0, object);
        column(s->get, 1, input);
        if (previous) {
            size_t n = (size_t)sqlite3_column_bytes(s->get, 2);
            n = n < ID_MAX ? n : 0;
            memcpy(previous, sqlite3_column_text(s->get, 2), n);
            previous[n] = '\0';
        }
    }
    sqlite3_reset(s->get);
    sqlite3_clear_bindings(s->get);
    pthread_mutex_unlock(&s->lock);
    return found;
}

bool store_delete(struct store *s, uint64_t tenant, const char *id)
{
    pthread_mutex_lock(&s->lock);
    sqlite3_bind_text(s->drop, 1, id, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s->drop, 2, (sqlite3_int64)tenant);
    bool found = sqlite3_step(s->drop) == SQLITE_DONE && sqlite3_changes(s->db) > 0;
    sqlite3_reset(s->drop);
    sqlite3_clear_bindings(s->drop);
    pthread_mutex_unlock(&s->lock);
    return found;
}

bool store_find_item(struct store *s, uint64_t tenant, const char *item, char id[64])
{
    pthread_mutex_lock(&s->lock);
    sqlite3_bind_int64(s->find, 1, (sqlite3_int64)tenant);
    sqlite3_bind_text(s->find, 2, item, -1, SQLITE_STATIC);
    bool found = sqlite3_step(s->find) == SQLITE_ROW;
    size_t n = found ? (size_t)sqlite3_column_bytes(s->find, 0) : ID_MAX;
    found = n < ID_MAX;
    if (found) {
        memcpy(id, sqlite3_column_text(s->find, 0), n);
        id[n] = '\0';
    }
    sqlite3_reset(s->find);
    sqlite3_clear_bindings(s->find);
    pthread_mutex_unlock(&s->lock);
    return found;
}
