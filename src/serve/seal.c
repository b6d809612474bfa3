/* Sealed text by GnuTLS. See seal.h. The only user of gnutls headers. */
#include "serve/seal.h"

#include "base/mem.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

enum { N_NONCE = 12, N_TAG = 16 };
static const size_t most = 64 << 20;

static bool cipher(const uint8_t key[32], gnutls_aead_cipher_hd_t *h)
{
    gnutls_datum_t k = {.data = (uint8_t *)(uintptr_t)key, .size = 32};
    return gnutls_aead_cipher_init(h, GNUTLS_CIPHER_AES_256_GCM, &k) == 0;
}

status seal_text(const uint8_t key[32], uint64_t tenant, const char *s, size_t n, struct buf *b)
{
    if (n > most)
        return E_LIMIT;
    size_t n_out = n + N_TAG;
    uint8_t *raw = mem_alloc(N_NONCE + n_out);
    gnutls_aead_cipher_hd_t h;
    gnutls_datum_t text = {0};
    if (!raw || !cipher(key, &h)) {
        mem_free(raw);
        return E_NOMEM;
    }
    bool ok = gnutls_rnd(GNUTLS_RND_NONCE, raw, N_NONCE) == 0 &&
              gnutls_aead_cipher_encrypt(h, raw, N_NONCE, &tenant, sizeof tenant, N_TAG, s, n,
                                         raw + N_NONCE, &n_out) == 0;
    gnutls_aead_cipher_deinit(h);
    gnutls_datum_t all = {.data = raw, .size = (unsigned)(N_NONCE + n_out)};
    ok = ok && gnutls_base64_encode2(&all, &text) == 0;
    if (ok)
        buf_put(b, text.data, text.size);
    gnutls_free(text.data);
    mem_free(raw);
    return ok ? buf_status(b) : E_NOMEM;
}

bool seal_open(const uint8_t key[32], uint64_t tenant, const char *s, size_t n, struct buf *b)
{
    gnutls_datum_t text = {.data = (uint8_t *)(uintptr_t)s, .size = (unsigned)n}, all = {0};
    gnutls_aead_cipher_hd_t h;
    if (n > 2 * most || gnutls_base64_decode2(&text, &all) != 0)
        return false;
    bool ok = all.size >= N_NONCE + N_TAG && cipher(key, &h);
    if (ok) {
        size_t n_out = all.size;
        uint8_t *out = mem_alloc(n_out);
        ok = out &&
             gnutls_aead_cipher_decrypt(h, all.data, N_NONCE, &tenant, sizeof tenant, N_TAG,
                                        all.data + N_NONCE, all.size - N_NONCE, out, &n_out) == 0;
        if (ok)
            buf_put(b, out, n_out);
        mem_free(out);
        gnutls_aead_cipher_deinit(h);
    }
    gnutls_free(all.data);
    return ok;
}
